"""Methods, controls, backbones and data sets by name: this project's own, and those of installed packages.

This project's data sets are found as files of a package, all others as entry points. Nothing is imported until it is
loaded.
"""

import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

from eil.core.settings import SettingError

Group = Literal["eil.methods", "eil.controls", "eil.backbones", "eil.data"]
METHODS: Final = "eil.methods"
CONTROLS: Final = "eil.controls"
BACKBONES: Final = "eil.backbones"  # name -> module with TRAITS and the builder of that name
READERS: Final = "eil.data"  # name -> module with `read`
# Packages of this project with one file for each name of a group.
PACKAGES: Final[dict[Group, str]] = {READERS: "eil.data.readers"}


def available(group: Group) -> list[str]:
    """Names in a group: this project's own, then installed ones, each sorted."""
    return [*_own(group), *sorted(entry.name for entry in entry_points(group=group))]


def load(group: Group, name: str) -> Any:
    """What an entry point names.

    Raises:
        SettingError: nothing of that name; the message lists what there is.
    """
    for entry in entry_points(group=group, name=name):
        return entry.load()
    raise SettingError(group.removeprefix("eil."), name, f"must be one of {', '.join(available(group))}")


def module(group: Group, name: str) -> str | None:
    """Name of the module that defines a name of a group; None if there is none."""
    if name in _own(group):
        return f"{PACKAGES[group]}.{name}"
    return next((entry.module for entry in entry_points(group=group, name=name)), None)


def _own(group: Group) -> list[str]:
    """Files of the group's package, found without importing it."""
    if group not in PACKAGES:
        return []
    top, *rest = PACKAGES[group].split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent.joinpath(*rest)
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))
