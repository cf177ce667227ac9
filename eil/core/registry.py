"""Methods, map extractors, controls, backbones, data sets by name: this project's own, and those of installed packages.

This project's backbones and data sets are found as files of a package, all others as entry points. Nothing is imported
until it is loaded.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

from eil.core.settings import SettingError, schema

Group = Literal["eil.methods", "eil.extractors", "eil.controls", "eil.backbones", "eil.data"]
METHODS: Final = "eil.methods"  # name -> class
EXTRACTORS: Final = "eil.extractors"  # name -> class
CONTROLS: Final = "eil.controls"  # name -> function
BACKBONES: Final = "eil.backbones"  # name -> module with INFO, and a builder function of that name
READERS: Final = "eil.data"  # name -> module with `read`
# Packages of this project with one file for each name of a group.
PACKAGES: Final[dict[Group, str]] = {BACKBONES: "eil.backbones.networks", READERS: "eil.data.readers"}
# Libraries with more networks than a list can hold: LIBRARY/NAME is the module's ``find(NAME)``.
LIBRARIES: Final[dict[Group, dict[str, str]]] = {BACKBONES: {"timm": "eil.backbones.timm_networks"}}


def available(group: Group) -> list[str]:
    """Names in a group: this project's files, then entry points, each sorted."""
    return [*_files(group), *sorted(entry.name for entry in entry_points(group=group))]


@functools.cache  # for every run of a study; the entry points of all installed packages are read anew each time
def load(group: Group, name: str) -> Any:
    """The object that an entry point refers to.

    Raises:
        SettingError: no such name; the message lists the known ones.
    """
    for entry in entry_points(group=group, name=name):
        return entry.load()
    raise SettingError(group.removeprefix("eil."), name, f"must be one of {', '.join(available(group))}")


def module(group: Group, name: str) -> str | None:
    """Name of the module that defines a name of a group; None if there is no such name.

    Which names a library has is known only to its module.
    """
    library, _, inside = name.partition("/")
    if inside:
        return LIBRARIES.get(group, {}).get(library)
    if name in _files(group):
        return f"{PACKAGES[group]}.{name}"
    return next((entry.module for entry in entry_points(group=group, name=name)), None)


@functools.cache  # read for the key of every run
def location_settings(dataset: str) -> frozenset[str]:
    """Settings of a data set's reader that are paths; empty for an unknown data set."""
    name = module(READERS, dataset)
    fields = schema(importlib.import_module(name).read).model_fields if name else {}
    return frozenset(key for key, field in fields.items() if "Path" in str(field.annotation))


@functools.cache  # for the cache of every run, which Snakemake asks for again and again
def is_embedded(dataset: str) -> bool:
    """Whether the data set is generated in code."""
    name = module(READERS, dataset)
    return name is not None and getattr(importlib.import_module(name), "EMBEDDED", False)


def class_finder(package: str) -> Callable[[str], Any]:
    """A module-level ``__getattr__`` that imports a class of a package from the file of its name in lower case.

    So ``from baselines import CAM`` imports baselines/cam.py and no other method.

    Args:
        package: name of the package.
    """

    def find(name: str) -> Any:
        file = name.lower()
        if name != file and importlib.util.find_spec(f"{package}.{file}"):
            return getattr(importlib.import_module(f"{package}.{file}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def _files(group: Group) -> list[str]:
    """Names of the files in the group's package, found without importing it."""
    if group not in PACKAGES:
        return []
    top, *rest = PACKAGES[group].split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent.joinpath(*rest)
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))
