"""What is installed: methods and controls, found through entry points; nothing is imported until it is loaded."""

from importlib.metadata import entry_points
from typing import Any, Final, Literal

from eil.settings import SettingError

Group = Literal["eil.methods", "eil.controls"]
METHODS: Final = "eil.methods"
CONTROLS: Final = "eil.controls"


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
