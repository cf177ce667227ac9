"""Wait for what another process does."""

import time
from collections.abc import Callable


def wait_for(true: Callable[[], bool]) -> None:
    """Return once ``true()``; TimeoutError after a minute."""
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise TimeoutError
