"""Choose a writable folder for numba's compiled functions."""

import logging
import os

import numba

from eil.core.user_cache import private_folder

_log = logging.getLogger(__name__)


def ensure() -> None:
    """Make ``cache=True`` work even if neither the code's folder nor the user's cache is writable.

    Then a temporary folder is used, and one line in the log says so. Child processes use the same folder silently.
    """
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:  # numba: "no locator available"
        folder = private_folder("numba")
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        numba.config.reload_config()  # type: ignore[no-untyped-call]
        _log.warning(
            "neither the code's folder nor the user's cache can be written: compiled functions are kept in %s "
            "(NUMBA_CACHE_DIR names another folder)",
            folder,
        )


def _probe() -> None:
    """Never called: numba looks for a cache folder as soon as a function is decorated."""
