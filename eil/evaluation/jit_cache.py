"""Choose a writable folder for numba's compiled functions, and keep only those compiled from the present sources."""

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numba

from eil.core.files import write_text
from eil.core.user_cache import private_folder

_log = logging.getLogger(__name__)
_STAMP = "compiled-from.txt"


def ensure() -> None:
    """Make ``cache=True`` work even if neither the code's folder nor the user's cache is writable.

    Then a temporary folder is used, and one line in the log says so. Child processes use the same folder silently.
    """
    try:
        probe: Any = numba.njit(cache=True)(_probe)
    except RuntimeError:  # numba: "no locator available"
        folder = private_folder("numba")
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        numba.config.reload_config()  # type: ignore[no-untyped-call]
        _log.warning(
            "neither the code's folder nor the user's cache can be written: compiled functions are kept in %s "
            "(NUMBA_CACHE_DIR names another folder)",
            folder,
        )
        probe = numba.njit(cache=True)(_probe)
    remove_outdated(Path(probe.stats.cache_path))


def remove_outdated(folder: Path) -> None:
    """Delete functions that were compiled from other sources of this package.

    Numba unpickles what it kept before it looks at the date of the sources. That fails if a module or a class was
    renamed since.

    Args:
        folder: of numba's files for this package.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()
    stamp = folder / _STAMP
    with contextlib.suppress(OSError):  # read-only, so nobody compiled into it since it was made
        if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
            return
        for path in folder.glob("*.nb[ic]"):
            path.unlink(missing_ok=True)
        write_text(stamp, digest)


def _probe() -> None:
    """Never called: numba looks for a cache folder as soon as a function is decorated."""
