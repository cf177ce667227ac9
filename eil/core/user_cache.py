"""User names and cache folders for users without a name or without a writable home folder, as in a container."""

import atexit
import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path


def ensure_user_name() -> None:
    """Use the user's number as name if the user has none.

    Torch names its compiler cache after the user and Snakemake records the name; both fail without one.
    """
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):  # Windows has no list of users to import
        os.environ["LOGNAME"] = user_id()  # getpass looks here first


def user_id() -> str:
    """The user's number; on Windows, which has no numbers, the user's name, "unnamed" for a service without one."""
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME") or "unnamed"


def private_folder(name: str) -> Path:
    """A temporary folder that only this user can write to, for caches whose content is unpickled or executed.

    Args:
        name: purpose of the cache; part of the folder's name.

    Returns:
        The same folder in every process of this user. If somebody else can write to that folder, or the system does
        not say who can (Windows), a new folder that is removed when the process ends.
    """
    path = Path(tempfile.gettempdir()) / f"eil-{name}-{user_id()}"
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and str(found.st_uid) == user_id() and not found.st_mode & 0o077:
            with tempfile.TemporaryFile(dir=path):
                return path
    fresh = Path(tempfile.mkdtemp(prefix=f"eil-{name}-"))
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    return fresh
