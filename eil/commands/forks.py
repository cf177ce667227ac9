"""The steps of a workflow as forks of one process that has imported PyTorch: to import it anew takes seconds.

The first step starts that process, a server (:mod:`eil.execution.fork_server`), which ends with the workflow. Signals,
output and exit code are those of a process of its own. A step that gets no server imports everything itself, as ever.
"""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eil.core import ranks, user_cache
from eil.execution import fork_server

WORKFLOW: Final = "EIL_WORKFLOW"  # variable: number of the process of the workflow whose steps are forks
_PROGRAM: Final = "eil"
_STEPS: Final = (["train"], ["localize"], ["evaluate"])
_MAX_SERVERS: Final = 2  # of a workflow: each takes half a gigabyte
_IDLE: Final = 300.0  # seconds after which a server ends
_SECONDS_TO_START: Final = 30.0  # of Python, before any import
_POLL: Final = 0.02  # seconds


def possible() -> bool:
    """Whether steps may be forks: on Linux, where a process can be waited for beside a socket; without EIL_FORKS=0.

    Not on a machine with a GPU, where it has not been tried.
    """
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or any(Path("/dev", name).exists() for name in ("kfd", "dxg"))
    return hasattr(os, "pidfd_open") and not has_gpu and os.environ.get("EIL_FORKS") != "0"


def run(arguments: Sequence[str]) -> int | None:
    """Let a fork do a step of a workflow.

    Args:
        arguments: of the command line, with the program's name.

    Returns:
        The exit code; None if the caller has to do it.
    """
    if _is_step(arguments):
        try:
            connection = _connection()
        except OSError:
            return None
        with connection:
            if connection.fileno() > 2:  # none of the three files that the fork gets was closed
                return fork_server.request(connection, arguments)
    return None


def _is_step(arguments: Sequence[str]) -> bool:
    """Whether a workflow has started a step of a run, with one thread: numpy's library starts others when imported."""
    program, *given = arguments
    return (
        WORKFLOW in os.environ
        and Path(program).name == _PROGRAM
        and given[:1] in _STEPS
        and os.environ.get("OPENBLAS_NUM_THREADS") == "1"
        and not ranks.launched_externally()
    )


def _connection() -> socket.socket:
    """A connection to the server of this workflow and these variables, which is started if there is none.

    Raises:
        OSError: there is none, and none can be started.
    """
    folder = user_cache.private_folder("forks")
    if folder.name != f"eil-forks-{user_cache.user_id()}":
        raise OSError("no folder that all steps share")
    # What is imported may depend on any variable; containers may share the folder.
    same = [sys.executable, str(Path("/proc/self/ns/mnt").readlink()), *sorted(os.environ.items())]
    workflow = int(os.environ[WORKFLOW])
    path = folder / f"{workflow}-{hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]}"
    with contextlib.suppress(OSError):
        return _connected(path)
    others = [other for other in folder.glob(f"{workflow}-*.lock") if other.stem != path.name]
    if len(others) >= _MAX_SERVERS:
        raise OSError("each step has other variables")
    start = f"from eil.commands import forks; forks.main({str(path)!r}, {workflow})"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", start],  # -P: no module of the working directory
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's signals are for the steps
    )
    for _ in range(int(_SECONDS_TO_START / _POLL)):
        with contextlib.suppress(OSError):
            return _connected(path)
        if process.poll() is not None:  # another step's server was quicker
            break
        time.sleep(_POLL)
    return _connected(path)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.fspath(path))
    except OSError:
        connection.close()
        raise
    return connection


def main(path: str, workflow: int) -> None:
    """Serve the steps of a workflow until its process ends."""
    fork_server.serve(Path(path), programs, until=os.pidfd_open(workflow), idle=_IDLE)


def programs() -> dict[str, fork_server.Program]:
    """``eil``, with all that its steps import when they need it."""
    import eil.evaluation.evaluate
    import eil.report.status
    import eil.training.localize
    import eil.training.train  # noqa: F401
    from eil.commands import cli

    return {_PROGRAM: cli.main}
