"""The steps of a workflow as forks of one process that has imported PyTorch: to import it anew takes seconds.

The first step starts that process, the server, which ends with the workflow. Each later ``eil`` hands its arguments,
folder, variables and open files to the server and waits for a fork to do the step. Signals, output and exit code are
those of a process of its own. A step that gets no server imports everything itself, as ever.
"""

import contextlib
import gc
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from eil.core import ranks, user_cache
from eil.execution import benchmark

WORKFLOW: Final = "EIL_WORKFLOW"  # variable: number of the process of the workflow whose steps are forks
Program = Callable[[list[str]], int | None]  # arguments -> exit code
_STEPS: Final = (["train"], ["localize"], ["evaluate"])
_LENGTH: Final = struct.Struct("!I")
_ACCEPTED: Final = b"+"
_SECONDS_TO_START: Final = 30.0  # of Python, before any import
_POLL: Final = 0.02  # seconds


def possible() -> bool:
    """Whether steps may be forks: on Linux, where a process can be waited for beside a socket; without EIL_FORKS=0.

    Not on a machine with a GPU, where it has not been tried.
    """
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
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
            return request(connection, arguments)
    return None


def _is_step(arguments: Sequence[str]) -> bool:
    """Whether a workflow has started a step of a run, with one thread: numpy's library starts others when imported."""
    program, *given = arguments
    return (
        WORKFLOW in os.environ
        and Path(program).name == "eil"
        and given[:1] in _STEPS
        and os.environ.get("OPENBLAS_NUM_THREADS") == "1"
        and not ranks.launched_externally()
    )


def request(connection: socket.socket, arguments: Sequence[str]) -> int | None:
    """Let a server run ``arguments`` with this process's files, folder and variables.

    Returns:
        The exit code; None if the server refuses.
    """
    variables = os.environ | {benchmark.PROGRAM: str(os.getpid())}
    content = json.dumps({"arguments": list(arguments), "folder": str(Path.cwd()), "variables": variables}).encode()
    try:
        socket.send_fds(connection, [_LENGTH.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
        accepted = connection.recv(1) == _ACCEPTED
    except OSError:
        accepted = False
    if not accepted:
        return None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    code = connection.recv(_LENGTH.size)
    return _LENGTH.unpack(code)[0] if code else 1


def serve(path: Path, load: Callable[[], Mapping[str, Program]], until: int) -> None:
    """Import the programs, then run them in forks, one for each connection.

    Args:
        path: of the socket, which is made. Who connects meanwhile waits.
        load: imports the programs; by their names.
        until: a file; the server ends when it can be read.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes what has ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(64)
        loaded = load()
        usable = _can_fork()
        gc.freeze()
        sources: list[socket.socket | int] = [listener, until]
        while listener in select.select(sources, [], [])[0]:
            connection, _ = listener.accept()
            if usable and not os.fork():
                listener.close()
                _supervise(connection, loaded)
            connection.close()
    path.unlink(missing_ok=True)


def _can_fork() -> bool:
    """Whether this process has one thread, beside jemalloc's (pyarrow), which follows forks.

    Any other thread would be missing in a fork, with the locks that it holds.
    """
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return all((task / "comm").read_text().strip() == "jemalloc_bg_thd" for task in tasks)


def _connection() -> socket.socket:
    """A connection to the server of this workflow and these variables, which is started if there is none.

    Raises:
        OSError: there is none, and none can be started.
    """
    folder = user_cache.private_folder("forks")
    if folder.name != f"eil-forks-{user_cache.user_id()}":
        raise OSError("no folder that all steps share")
    # What is imported may depend on any variable.
    environment = json.dumps([sys.executable, *sorted(os.environ.items())])
    path = folder / hashlib.sha256(environment.encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):
        return _connected(path)
    path.unlink(missing_ok=True)
    start = f"from eil.commands import forks; forks.main({str(path)!r}, {int(os.environ[WORKFLOW])})"
    process = subprocess.Popen(
        [sys.executable, "-c", start],
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
    serve(Path(path), programs, until=os.pidfd_open(workflow))


def programs() -> dict[str, Program]:
    """``eil``, with all that its steps import when they need it."""
    import eil.evaluation.evaluate
    import eil.report.status
    import eil.training.localize
    import eil.training.train  # noqa: F401
    from eil.commands import cli

    return {"eil": cli.main}


def _supervise(connection: socket.socket, programs: Mapping[str, Program]) -> None:
    """Run one program in a fork; pass on the signals that its client gets, and its exit code. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    content = b""
    while len(content) < _LENGTH.unpack(head)[0]:
        content += connection.recv(1 << 16)
    if not (worker := os.fork()):
        connection.close()
        _run(programs, files, **json.loads(content))
    for file in files:
        os.close(file)  # a pipe ends when its last writer closes it
    connection.sendall(_ACCEPTED)
    ended = os.pidfd_open(worker)
    sources: list[socket.socket | int] = [connection, ended]
    while ended not in (ready := select.select(sources, [], [])[0]):
        assert ready == [connection]
        if number := connection.recv(1):
            os.kill(worker, number[0])
        else:  # the client was killed
            os.killpg(worker, signal.SIGKILL)
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    connection.sendall(_LENGTH.pack(code if code >= 0 else 128 - code))
    os._exit(0)


def _run(
    programs: Mapping[str, Program], files: list[int], arguments: list[str], folder: str, variables: dict[str, str]
) -> None:
    """Be the program. Never returns."""
    import atexit
    import traceback

    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.argv = arguments
    code: object = 1
    try:
        code = programs[Path(arguments[0]).name](arguments[1:])
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
