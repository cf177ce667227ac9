"""Execute steps safely: locks, GPU leases, signals, crashes, outdated results."""

from typing import Final

APART: Final = "EIL_APART"  # set by the workflow where the other runs' files are not on this disk
CHECKED_BY_WORKFLOW: Final = "EIL_DATA_CHECKED"  # set by the workflow, which checks the data once for all its jobs
