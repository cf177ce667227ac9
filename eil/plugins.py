"""What is installed beside the project's own, found through entry points; nothing is imported until it is loaded."""

from importlib.metadata import entry_points
from typing import Any, Final, Literal

from eil.settings import SettingError

Group = Literal["eil.methods", "eil.controls", "eil.backbones", "eil.data"]
METHODS: Final = "eil.methods"
CONTROLS: Final = "eil.controls"
BACKBONES: Final = "eil.backbones"  # name -> module with TRAITS and the builder of that name
READERS: Final = "eil.data"  # name -> module with `read`


def available(group: Group) -> list[str]:
    """Names in a group, sorted."""
    return sorted(entry.name for entry in entry_points(group=group))


def load(group: Group, name: str) -> Any:
    """What an entry point names.

    Raises:
        SettingError: nothing of that name; the message lists what there is.
    """
    for entry in entry_points(group=group, name=name):
        return entry.load()
    raise SettingError(group.removeprefix("eil."), name, f"must be one of {', '.join(available(group))}")


def module(group: Group, name: str) -> str | None:
    """Name of the module that an entry point names; None if nothing is of that name."""
    return next((entry.module for entry in entry_points(group=group, name=name)), None)
