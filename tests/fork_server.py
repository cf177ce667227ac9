"""Run `eil` and Snakemake in forks of a process that has imported them: to import them anew takes 2 to 10 seconds.

The tests of whole studies start some 60 processes. What starting itself can break is left to tests that start anew.

    python fork_server.py serve SOCKET               the process that imports and forks
    python -I -S fork_server.py eil ARGUMENT...      in place of a program; its socket is in EIL_FORK_SERVER
"""

import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_LENGTH = struct.Struct("!I")
_servers: list[subprocess.Popen[bytes]] = []  # one ends when the pipe to its input closes
_FUNCTION = 'eil() { "$EIL_FORK_PYTHON" -I -S "$EIL_FORK_CLIENT" eil "$@"; }\n'


@functools.cache
def environment() -> dict[str, str]:
    """Start a server that ends with this process; variables with which any bash below runs `eil` in a fork.

    Empty where a process cannot be waited for beside a socket (all but Linux): there `eil` starts as ever.
    """
    if not hasattr(os, "pidfd_open"):
        return {}
    folder = Path(tempfile.mkdtemp(prefix="eil-fork-"))
    functions = folder / "functions.sh"
    functions.write_text(_FUNCTION)
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder / "socket")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _servers.append(server)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return {
        "BASH_ENV": str(functions),
        "EIL_FORK_PYTHON": sys.executable,
        "EIL_FORK_CLIENT": __file__,
        "EIL_FORK_SERVER": str(folder / "socket"),
    }


def command(program: str) -> list[str]:
    """The command line that runs this program in a fork, given :func:`environment`."""
    return [sys.executable, "-I", "-S", __file__, program]


def _request(arguments: list[str]) -> int:
    """Let the server run a program with this process's files, folder and variables; the program's exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["EIL_FORK_SERVER"])
        content = json.dumps(
            {"arguments": arguments, "folder": str(Path.cwd()), "variables": dict(os.environ)}
        ).encode()
        socket.send_fds(connection, [_LENGTH.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        return _LENGTH.unpack(connection.recv(_LENGTH.size))[0]


def _serve(path: str) -> None:
    """Import what takes long, then fork for each connection."""
    programs = _programs()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes what has ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while listener in select.select([listener, 0], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _supervise(connection, programs)
            connection.close()
    shutil.rmtree(Path(path).parent)


def _programs() -> dict[str, Callable[[list[str]], int | None]]:
    """The programs, with all that they import when they need it."""
    import matplotlib.pyplot  # noqa: F401
    import snakemake.report
    import snakemake.scheduling  # noqa: F401
    from snakemake import cli as snakemake_cli

    import eil.evaluation.evaluate
    import eil.profiling.timing
    import eil.report.figures
    import eil.training.localize
    import eil.training.train  # noqa: F401
    from eil.commands import cli

    return {"eil": cli.main, "snakemake": snakemake_cli.main}


def _supervise(connection: socket.socket, programs: dict[str, Callable[[list[str]], int | None]]) -> None:
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
    ended = os.pidfd_open(worker)
    while ended not in (ready := select.select([connection, ended], [], [])[0]):
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
    programs: dict[str, Callable[[list[str]], int | None]],
    files: list[int],
    arguments: list[str],
    folder: str,
    variables: dict[str, str],
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
    program, *rest = arguments
    sys.argv = arguments
    code: object = 1
    try:
        code = programs[program](rest)
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


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2])
    else:
        sys.exit(_request(sys.argv[1:]))
