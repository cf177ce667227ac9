"""Time and memory of a step, in the form of Snakemake's ``benchmark:``.

Snakemake samples the processes below the one that it has started. It misses what comes after its last sample, and a
step that is a fork of another process (:mod:`eil.execution.fork_server`).
"""

import os
import re
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from eil.core import ranks
from eil.core.files import write_text

program: int | None = None  # number of the process that handed its step to this one, a fork
_MIB: Final = 1 << 20


def write(path: Path) -> None:
    """Write what a step has used, at its end, since its program was started; rank 0 alone writes.

    Columns: ``s``, seconds; ``h:m:s``, the same; ``max_rss``, the most memory of this process, or of one that it has
    waited for if that had more, in MiB (of a fork: without the libraries' pages that it has not touched, with all
    other memory that it shares); ``mean_load``, in percent of a core; ``cpu_time``, user and system time of this
    process and of those that it has waited for, in seconds.
    """
    if ranks.rank():
        return
    seconds = _age(program or os.getpid())
    used = sum(os.times()[:4])
    row = {
        "s": f"{seconds:.4f}",
        "h:m:s": str(timedelta(seconds=int(seconds))),
        "max_rss": f"{_most_memory() / _MIB:.2f}",
        "mean_load": f"{100 * used / seconds:.2f}",
        "cpu_time": f"{used:.2f}",
    }
    write_text(path, "\t".join(row) + "\n" + "\t".join(row.values()) + "\n")


def _age(process: int) -> float:
    """Seconds since a process was started."""
    if sys.platform == "linux":  # psutil is up to a second wrong there
        ticks = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")
    import psutil  # type: ignore[import-untyped]  # comes with Snakemake

    return float(time.time() - psutil.Process(process).create_time())


def _most_memory() -> int:
    """In bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if sys.platform == "linux":  # getrusage would count the process that has started this one
        peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        return max(int(peak[1]) if peak else 0, children) * 1024
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children)
