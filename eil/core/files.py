"""Write files atomically, read JSON and arrays, and lock files between processes.

Every file is written under a temporary name in its folder and then renamed, so it is either complete or absent.
numpy is imported by the functions that need it: the program's help must not wait for it.
"""

import contextlib
import glob
import json
import logging
import os
import platform
import shutil
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

_log = logging.getLogger(__name__)


class InputError(Exception):
    """The user's input cannot be used; the message says where it is wrong and what was expected."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file or folder atomically: yield a temporary path and rename it to ``path`` if the block succeeds.

    If the process is killed or the disk is full, ``path`` keeps its old content. A folder has one exception: a kill
    between the removal of the old folder and the rename leaves neither.

    Args:
        path: the file or folder to write; missing parents are created.

    Yields:
        A path that does not exist yet, in the same folder, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Host and process in the name: two writers of one file never share a temporary file.
    here = platform.node().replace(".", "_")
    beside = path.with_name(f".{path.stem}.{here}-{os.getpid()}.part{path.suffix}")
    for left in path.parent.glob(f".{glob.escape(path.stem)}.{glob.escape(here)}-*.part{glob.escape(path.suffix)}"):
        if left == beside or not _alive(left.name.removesuffix(f".part{path.suffix}").rsplit("-", 1)[-1]):
            remove(left)  # left by a process that was killed
    try:
        yield beside
        if beside.is_dir():
            remove(path)  # rename cannot replace a folder that is not empty
        else:
            with beside.open("r+b") as file:  # Windows flushes only what is open for writing
                os.fsync(file.fileno())  # otherwise a power cut may keep the name and lose the content
        beside.replace(path)
    finally:
        remove(beside)


def expand_home(path: Path, key: str) -> Path:
    """Replace a leading ``~`` or ``~user`` by the user's home folder.

    Args:
        path: with or without ``~``.
        key: the option or key that gave the path, for the message.

    Raises:
        InputError: the user has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{key} = {path}: {error}") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON, atomically; NaN raises ValueError, since JSON has no NaN."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str = "") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        made_by: the command that writes the file, for the message if it is missing.

    Raises:
        InputError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{f'; {made_by} makes it' if made_by else ''}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not have")


def write_arrays(path: Path, arrays: Mapping[str, "npt.NDArray[Any]"]) -> None:
    """Write named arrays to a compressed ``.npz``, atomically."""
    import numpy as np

    with atomic_write(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(
    path: Path, made_by: str = "", max_bytes: int | None = None, only: Container[str] | None = None
) -> "dict[str, npt.NDArray[Any]]":
    """Read the named arrays of an ``.npz``; pickled objects are refused.

    Args:
        path: the file.
        made_by: the command that writes the file, for the message if it is missing.
        max_bytes: largest total size of the arrays in bytes (default: :data:`eil.core.npz.MAX_BYTES`).
        only: names of the arrays to read (default: all).

    Raises:
        InputError: the file is missing, damaged, larger than ``max_bytes``, or holds a pickle.
    """
    from eil.core.npz import MAX_BYTES, read_npz

    try:
        return read_npz(path, MAX_BYTES if max_bytes is None else max_bytes, only)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{f'; {made_by} makes it' if made_by else ''}") from None
    except (OSError, ValueError) as error:
        remedy = f"; delete it, and {made_by} makes it again" if made_by else ""
        raise InputError(f"{path}: not a readable .npz of plain arrays: {error}{remedy}") from None


def remove(path: Path) -> None:
    """Remove a file, or a folder and its content, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold an exclusive lock between processes; the lock of a killed process is released by the system.

    Args:
        path: the lock file; its parents are created.
        busy: message to log if another process holds the lock.
    """
    from filelock import FileLock

    with locked_if_free(path) as free:
        if free:
            yield
            return
    if busy:
        _log.info(busy)
    with FileLock(path):
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of :func:`locked` unless another process holds it; yield whether this one does."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of :func:`locked`.

    Where the system has flock, this is a shared lock of an instant on a file opened for reading: it works in folders
    of other users, and two processes that ask at the same time do not see each other.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return _is_locked_exclusively(path)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file: nobody has locked it yet
        return False
    return False


def _is_locked_exclusively(path: Path) -> bool:
    """:func:`is_locked` by taking the lock for an instant."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0.05):  # another process that asks holds it for less
            return False
    except Timeout:
        return True


def _alive(process: str) -> bool:
    """Whether this machine may have a process of this number; True where that cannot be told."""
    if os.name == "nt":  # os.kill with 0 would send Ctrl-C
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        pass
    return True
