"""Files that are either whole or absent: everything is written beside its place and renamed."""

import contextlib
import fcntl
import glob
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core.npz import MOST, read_npz

_log = logging.getLogger(__name__)


class InputError(Exception):
    """Something the user gave cannot be used; the message says where, what and what was expected."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and rename it to ``path`` if the block succeeds.

    Works for a file and for a folder. A killed process or a full disk leaves ``path`` as it was; of a folder, a kill
    just when the old one has gone and the new one is renamed leaves neither.

    Args:
        path: the file or folder to make; its parents are created.

    Yields:
        A path that does not exist yet, in the same folder, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Host and process keep two writers of one file from sharing a half-written copy.
    here = os.uname().nodename.replace(".", "_")
    beside = path.with_name(f".{path.stem}.{here}-{os.getpid()}.part{path.suffix}")
    for left in path.parent.glob(f".{glob.escape(path.stem)}.{glob.escape(here)}-*.part{glob.escape(path.suffix)}"):
        if left == beside or not _alive(left.name.removesuffix(f".part{path.suffix}").rsplit("-", 1)[-1]):
            remove(left)  # of a process that was killed
    try:
        yield beside
        if beside.is_dir():
            remove(path)  # rename cannot put a folder over a full one
        else:
            with beside.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut may keep the name and lose the bytes
        beside.replace(path)
    finally:
        remove(beside)


def at_home(path: Path, key: str) -> Path:
    """A path whose leading ``~`` or ``~user`` is that user's home.

    Args:
        path: with or without ``~``.
        key: where it was given, for the message.

    Raises:
        InputError: there is no such home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{key} = {path}: {error}") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as a whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file.
        made_by: the command that makes it, named if it is missing.

    Raises:
        InputError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{f'; {made_by} makes it' if made_by else ''}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _refused(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not have")


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays to a compressed ``.npz``."""
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, made_by: str = "", most: int = MOST) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays of an ``.npz``; pickled objects are refused.

    Args:
        path: of the file.
        made_by: the command that makes it, named if it is missing.
        most: bytes that the arrays may have together.

    Raises:
        InputError: the file is missing, damaged, larger than ``most``, or holds a pickle.
    """
    try:
        return read_npz(path, most)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{f'; {made_by} makes it' if made_by else ''}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable .npz of plain arrays: {error}") from None


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Let one process at a time into the block; the others wait. A killed process lets go by itself.

    Args:
        path: of a file that stands for what is locked; it stays.
        busy: is logged by a process that has to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                _log.info(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alive(process: str) -> bool:
    """Whether this machine has a process of this number, for all that can be told."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        pass
    return True
