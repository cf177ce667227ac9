"""Names of runs: each is the name of the run's folder."""

import os
from collections import Counter
from typing import Final

from eil.core import safe_yaml
from eil.core.files import InputError

FORBIDDEN: Final = frozenset('/\\<>:"|?*' if os.name == "nt" else "/")  # in the name of a folder
LONGEST_NAME = 200  # bytes; a folder's name may have 255


def problems(names: list[str]) -> list[str]:
    """A line for each name that cannot be a folder's, and one if two runs have the same name."""
    unusable = [
        name for name in names if FORBIDDEN & set(name) or not name.isprintable() or len(name.encode()) > LONGEST_NAME
    ]
    lines = [
        f"{safe_yaml.shown(name)}: a run's name is made of its settings, and must be a folder's: no "
        f"{' '.join(sorted(FORBIDDEN))}, only what can be printed, and {LONGEST_NAME} bytes at most"
        for name in unusable
    ]
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    return [*lines, f"two runs are named {twice}: a list of settings holds a value twice"] if count > 1 else lines


def require_usable(names: list[str]) -> None:
    """Names of runs are names of folders.

    Raises:
        InputError: the first of :func:`problems`.
    """
    for line in problems(names)[:1]:
        raise InputError(line)
