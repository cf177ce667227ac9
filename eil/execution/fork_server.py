"""Run programs in forks of a process that has imported them.

A client hands its arguments, folder, variables and open files to the server and waits for a fork, the worker, to run
the program. Between them a supervisor, another fork, passes signals one way and the exit code the other way. The worker
dies with its client and with its supervisor. Linux only.
"""

import atexit
import contextlib
import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from eil.execution import benchmark

Program = Callable[[list[str]], int | None]  # arguments -> exit code
_LENGTH: Final = struct.Struct("!I")
_ACCEPTED: Final = b"+"  # from the server
_GO: Final = b"!"  # from the client, which is ready to pass signals on
_PR_SET_PDEATHSIG: Final = 1  # of prctl(2)


def request(connection: socket.socket, arguments: Sequence[str]) -> int | None:
    """Let a server run ``arguments``, the first of which is the program's name.

    Returns:
        The exit code; None if the server refuses, and has run nothing.
    """
    what = {
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "variables": dict(os.environ),
        "client": os.getpid(),
    }
    content = json.dumps(what).encode()
    try:
        socket.send_fds(connection, [_LENGTH.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
        if connection.recv(1) != _ACCEPTED:
            return None
    except OSError:
        return None
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGCONT)
    with contextlib.suppress(OSError):
        # A signal ends this process before the worker is started, or reaches the worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGTSTP})
        for number in passed_on:
            signal.signal(number, lambda number, _: _pass_on(connection, number))
        signal.signal(signal.SIGTSTP, lambda *_: _stop(connection))  # Ctrl-Z
        connection.sendall(_GO)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = _LENGTH.unpack(_received(connection, _LENGTH.size))[0]
        for number in passed_on:
            signal.signal(number, signal.SIG_IGN)  # Python removes handlers when it ends; the code would be lost
        return code
    print(f"{Path(arguments[0]).name}: killed, since the process that waited for its end was", file=sys.stderr)
    return 1


def serve(path: Path, load: Callable[[], Mapping[str, Program]], until: int, idle: float | None = None) -> None:
    """Import programs, then run them in forks, one for each connection; end if another process serves here.

    The server also ends when a file that it has imported changes: a fork would run what was there before.

    Args:
        path: of the socket, which is made. Who connects meanwhile waits.
        load: imports the programs; by their names.
        until: a file; the server ends when it can be read.
        idle: the server ends after so many seconds without a connection.
    """
    import fcntl  # Windows has none, and only imports this file

    variables = set(os.environ)
    lock = path.with_suffix(".lock")
    with lock.open("wb") as held, socket.socket(socket.AF_UNIX) as listener:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)  # of a server that was killed
        listener.bind(os.fspath(path))
        listener.listen(64)
        programs = load()
        usable, sources = _can_fork(), _sources()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes what has ended
        gc.freeze()
        files: list[socket.socket | int] = [listener, until]
        while select.select(files, [], [], idle)[0] == [listener]:
            connection, _ = listener.accept()
            changed = _sources() != sources
            if usable and not changed and not os.fork():
                listener.close()
                held.close()
                _supervise(connection, programs, variables)
            connection.close()
            if changed:
                break
        path.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)


def _can_fork() -> bool:
    """Whether this process has one thread, beside jemalloc's (pyarrow), which follows forks.

    Any other thread would be missing in a fork, with the locks that it holds.
    """
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return all((task / "comm").read_text(encoding="utf-8").strip() == "jemalloc_bg_thd" for task in tasks)


def _sources() -> dict[str, int]:
    """When each imported file was changed, in nanoseconds; 0 if it is gone."""
    found = {}
    for module in list(sys.modules.values()):
        if file := getattr(module, "__file__", None):
            try:
                found[file] = os.stat(file).st_mtime_ns  # noqa: PTH116 thousands for each step
            except OSError:
                found[file] = 0
    return found


def _supervise(connection: socket.socket, programs: Mapping[str, Program], variables: set[str]) -> None:
    """Run one program in a fork; pass on the signals that its client gets, and its exit code. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        content = json.loads(_received(connection, _LENGTH.unpack(head)[0]))
        ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # until they are ignored here, and only here
        connection.sendall(_ACCEPTED)
        _received(connection, len(_GO))
        supervisor = os.getpid()
        if not (worker := os.fork()):
            code = 1
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
                connection.close()
                code = _run(programs, variables, supervisor, files, **content)
            finally:
                os._exit(code)
        for number in ending:
            signal.signal(number, signal.SIG_IGN)  # sent to all processes: the worker's exit code still has to be told
        for file in files:
            os.close(file)  # a pipe ends when its last writer closes it
        _wait(connection, worker)
    finally:
        os._exit(0)


def _wait(connection: socket.socket, worker: int) -> None:
    """Pass signals on until a worker ends, then its exit code; kill it if its client has ended."""
    with contextlib.suppress(OSError):
        os.setpgid(worker, worker)  # which the worker does too: whoever comes first
    try:
        ended = os.pidfd_open(worker)
        files: list[socket.socket | int] = [connection, ended]
        while ended not in select.select(files, [], [])[0]:
            number = _received(connection, 1)[0]
            to_all = number in (signal.SIGSTOP, signal.SIGCONT)
            (os.killpg if to_all else os.kill)(worker, number)
        code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        connection.sendall(_LENGTH.pack(code if code >= 0 else 128 - code))
    except OSError:
        os.killpg(worker, signal.SIGKILL)


def _received(connection: socket.socket, count: int) -> bytes:
    """So many bytes.

    Raises:
        ConnectionResetError: the other side has ended.
    """
    content = b""
    while len(content) < count:
        if not (part := connection.recv(min(count - len(content), 1 << 16))):
            raise ConnectionResetError
        content += part
    return content


def _pass_on(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the step has just ended
        connection.sendall(bytes([number]))


def _stop(connection: socket.socket) -> None:
    """Stop the step, which the terminal cannot, then this process."""
    _pass_on(connection, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def _run(
    programs: Mapping[str, Program],
    server_variables: set[str],
    supervisor: int,
    files: list[int],
    arguments: list[str],
    folder: str,
    variables: dict[str, str],
    client: int,
) -> int:
    """Be the program; its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # die with the supervisor
    if os.getppid() != supervisor:
        return 1
    os.setpgid(0, 0)
    os.chdir(folder)
    for name in server_variables - variables.keys():
        os.environ.pop(name, None)
    os.environ.update(variables)  # what imports have set stays
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    benchmark.program = client
    atexit.unregister(shutil.rmtree)  # folders of the server
    sys.argv = arguments
    code: object = 1
    try:
        code = programs[Path(arguments[0]).name](arguments[1:])
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)
