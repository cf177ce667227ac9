"""For users who have no home that can be written, or no name: where caches go, and what they are called."""

import atexit
import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path


def name_user() -> None:
    """Let a user without a name, as in a container that runs as a mere number, be called by the number.

    Torch names its compiler's cache by the user, and Snakemake writes the name down; both fail without one.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())  # where getpass looks first


def private_folder(name: str) -> Path:
    """A temporary folder that nobody else can write to, for caches whose content is unpickled or run.

    Args:
        name: what it is for.

    Returns:
        The same in every process of this user; where that one is not the user's alone, a new one, which goes with the
        process.
    """
    path = Path(tempfile.gettempdir()) / f"eil-{name}-{os.getuid()}"
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            with tempfile.TemporaryFile(dir=path):
                return path
    fresh = Path(tempfile.mkdtemp(prefix=f"eil-{name}-"))
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    return fresh
