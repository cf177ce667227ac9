"""Detect kills for lack of memory by the kernel's counter in this process's control group.

Linux counts the processes that it killed because their control group (of a container or a job) was full, in
``memory.events`` (version 2) or ``memory.oom_control`` (version 1). Other systems have no such counter.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LISTS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def counter(lists: Path = _LISTS, mount: Path = _MOUNT) -> dict[str, str | int]:
    """The counter's file and value, ``oom_file`` and ``oom_kills``; empty if it cannot be read.

    Args:
        lists: file with this process's control groups.
        mount: where control groups are mounted.
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
    """How many processes of a control group were killed for lack of memory since :func:`counter` was read.

    Args:
        trace: contains that counter, of this machine. Without it, or if the group is gone, the result is 0.
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
