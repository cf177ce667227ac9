"""Execute steps safely: locks, GPU leases, signals, crashes, outdated results."""

from typing import Final

CHECKED_BY_WORKFLOW: Final = "EIL_DATA_CHECKED"  # set by the workflow, which checks the data once for all its jobs
