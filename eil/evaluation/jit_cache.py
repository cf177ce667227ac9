"""Where numba keeps what it compiled: a temporary folder if neither the code's nor the user's can be written."""

import logging
import os

import numba

from eil.core.user_cache import private_folder

_log = logging.getLogger(__name__)


def ensure() -> None:
    """Let functions be compiled with ``cache=True`` wherever this runs, and say so where that takes a folder.

    Processes that this one starts use the folder too, without a word.
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
    """Is never compiled: numba looks for a folder when it is told of a function."""
