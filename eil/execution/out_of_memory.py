"""Evidence that the system killed for want of memory: the kernel's counter in this process's control group.

Linux counts in ``memory.events`` (version 2) or ``memory.oom_control`` (version 1) the processes that it killed because
their control group, a container's or a job's, was full. A machine without control groups leaves no such evidence.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LISTS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def counter(lists: Path = _LISTS, mount: Path = _MOUNT) -> dict[str, str | int]:
    """The counter as it stands: ``oom_file`` and ``oom_kills``; empty if there is none to be read.

    Args:
        lists: names this process's control groups.
        mount: where they are mounted.
    """
    try:
        lines = lists.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (mount / "memory", "memory.oom_control") if kinds else (mount, "memory.events")
        # In a container the group may be mounted as the root, whatever it is called outside.
        for path in (top / group.lstrip("/") / name, top / name):
            kills = _read(path)
            if kills is not None:
                return {"oom_file": str(path), "oom_kills": kills}
    return {}


def since(trace: Mapping[str, Any]) -> int:
    """How many processes were killed for want of memory in a control group since :func:`counter` was taken.

    Args:
        trace: what a process of this machine left, the counter in it. Without one, or if the group is gone, 0.
    """
    path, before = trace.get("oom_file"), trace.get("oom_kills")
    if not isinstance(path, str) or not isinstance(before, int):
        return 0
    now = _read(Path(path))
    return 0 if now is None else max(now - before, 0)  # a restart sets it to 0


def _read(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
