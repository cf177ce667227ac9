"""Programs in forks of a process that has imported them: exit codes, signals, kills at every point."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from eil.execution import fork_server

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are used on Linux alone")
ROOT = Path(__file__).parents[2]
SERVER = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, ".")
from eil.execution import fork_server

def end(code):
    return int(code)

def stop(number, _):
    signal.signal(number, signal.SIG_IGN)  # it may come to this process and from the client
    sys.exit(75)

def wait(file):
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell that runs in the background
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)

def variables(*names):
    print(*(os.environ.get(name) for name in names))

def load():
    if "slow" in sys.argv:
        time.sleep(1.5)
    if "thread" in sys.argv:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    if "module" in sys.argv:
        import mine
    os.environ["SET_BY_IMPORT"] = "yes"
    return {each.__name__: lambda arguments, each=each: each(*arguments) for each in (end, wait, variables)}

idle = 1.0 if "idle" in sys.argv else None
fork_server.serve(Path("socket"), load, until=0, idle=idle)
print("ended", flush=True)
"""
CLIENT = """
import socket, sys
from eil.execution import fork_server
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("socket")
    code = fork_server.request(connection, sys.argv[1:])
sys.exit(99 if code is None else code)
"""
REFUSED = 99


class Server:
    """A server in a folder, and its clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def python(self, program: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def start(self, *how: str, **variables: str) -> subprocess.Popen[str]:
        process = self.python(SERVER, *how, **variables)
        wait_for((self.folder / "socket").exists)
        return process

    def done(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit code and output of a program."""
        process = self.python(CLIENT, *arguments, **variables)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def waiting(self) -> tuple[subprocess.Popen[str], psutil.Process]:
        """A client, and its worker, which waits."""
        file = self.folder / "worker"
        client = self.python(CLIENT, "wait", str(file))
        wait_for(lambda: file.exists() and file.read_text() != "")
        wait_for(lambda: catches(client.pid, signal.SIGTSTP))  # the last of those that it passes on
        return client, psutil.Process(int(file.read_text()))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
    for process in made.processes:
        process.communicate()


def catches(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) & 1 << (number - 1))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_exit_code_and_variables_are_those_of_the_client_and_imports_keep_theirs(server: Server) -> None:
    server.start(OF_SERVER="1", OF_BOTH="server")
    assert server.done("end", "7") == (7, "", "")
    names = ("OF_SERVER", "OF_BOTH", "SET_BY_IMPORT")
    assert server.done("variables", *names, OF_BOTH="client") == (0, "None client yes\n", "")
    code, _, errors = server.done("end", "seven")
    assert code == 1
    assert "ValueError" in errors


def test_a_process_with_another_thread_is_not_forked(server: Server) -> None:
    """The thread would be missing in the fork, with the locks that it holds."""
    server.start("thread")
    assert server.done("end", "7")[0] == REFUSED


def test_it_ends_with_its_input_or_when_nobody_comes_and_removes_its_socket(server: Server) -> None:
    first = server.start()
    assert first.communicate(timeout=60)[0] == "ended\n"
    second = server.start("idle")
    assert server.done("end", "7")[0] == 7
    assert second.wait(timeout=60) == 0
    assert not list(server.folder.iterdir())


def test_one_server_for_a_path_and_a_killed_one_is_replaced(server: Server) -> None:
    first = server.start()
    assert server.done("end", "7")[0] == 7
    second = server.python(SERVER)
    assert second.wait(timeout=60) == 0
    assert server.done("end", "7")[0] == 7
    first.kill()
    first.wait()
    third = server.python(SERVER)
    wait_for(lambda: server.done("end", "7")[0] == 7)
    assert third.poll() is None


def test_it_ends_when_an_imported_file_has_changed(server: Server) -> None:
    (server.folder / "mine.py").write_text("VALUE = 1\n")
    process = server.start("module")
    assert server.done("end", "7")[0] == 7
    (server.folder / "mine.py").write_text("VALUE = 2\n")
    assert server.done("end", "7")[0] == REFUSED
    assert process.wait(timeout=60) == 0


def test_a_client_that_is_killed_while_the_server_imports_leaves_no_worker(server: Server) -> None:
    server.start("slow")
    client = server.python(CLIENT, "wait", str(server.folder / "worker"))
    time.sleep(0.5)
    client.kill()
    assert server.done("end", "7")[0] == 7
    time.sleep(1)
    if (server.folder / "worker").exists():
        wait_for(lambda: gone(psutil.Process(int((server.folder / "worker").read_text()))))


def test_a_client_that_ends_within_its_request_leaves_no_process(server: Server) -> None:
    process = server.start()
    for sent in (b"", b"\0\0", b"\0\0\1\0", b"\0\0\1\0{"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.fspath(server.folder / "socket"))
            if sent:
                socket.send_fds(connection, [sent], [0, 1, 2])
    wait_for(lambda: not psutil.Process(process.pid).children(recursive=True))
    assert server.done("end", "7")[0] == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_to_the_client_reaches_the_worker(number: signal.Signals, code: int, server: Server) -> None:
    server.start()
    client, worker = server.waiting()
    client.send_signal(number)
    assert client.wait(timeout=60) == code
    wait_for(lambda: gone(worker))


def test_a_signal_to_all_processes_keeps_the_exit_code(server: Server) -> None:
    server.start()
    client, worker = server.waiting()
    supervisor = worker.parent()
    assert supervisor is not None
    for process in (supervisor, worker, client):
        process.send_signal(signal.SIGTERM)
    assert client.wait(timeout=60) == 75


def test_a_signal_after_the_end_of_the_program_keeps_the_exit_code(server: Server) -> None:
    """Python removes handlers before it removes the last objects."""
    server.start()
    late = """
import os, signal
class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)
late = Late()
"""
    client = server.python(CLIENT.replace("sys.exit", late + "sys.exit"), "end", "7")
    assert server.python(late).wait(timeout=60) == -signal.SIGTERM  # what it would be
    assert client.wait(timeout=60) == 7


def test_a_signal_before_the_client_passes_them_on_ends_it_and_nothing_runs(server: Server) -> None:
    """The server has accepted, the client is not ready: here it never is."""
    process = server.start()
    file = server.folder / "worker"
    unready = "fork_server.signal.pthread_sigmask = lambda *_: signal.raise_signal(signal.SIGTERM)\n"
    client = server.python("import signal\n" + CLIENT.replace("with", unready + "with", 1), "wait", str(file))
    assert client.wait(timeout=60) == -signal.SIGTERM
    wait_for(lambda: not psutil.Process(process.pid).children(recursive=True))
    assert not file.exists()


def test_a_worker_dies_with_its_supervisor_and_the_client_says_so(server: Server) -> None:
    server.start()
    client, worker = server.waiting()
    supervisor = worker.parent()
    assert supervisor is not None
    supervisor.kill()
    assert client.wait(timeout=60) == 1
    assert client.stderr is not None
    assert client.stderr.read() == "wait: killed, since the process that waited for its end was\n"
    wait_for(lambda: gone(worker))


def test_a_killed_worker_has_the_exit_code_of_a_shell(server: Server) -> None:
    server.start()
    client, worker = server.waiting()
    worker.kill()
    assert client.wait(timeout=60) == 128 + signal.SIGKILL


def test_ctrl_z_stops_the_worker_too_until_the_client_goes_on(server: Server) -> None:
    server.start()
    client, worker = server.waiting()
    client.send_signal(signal.SIGTSTP)
    wait_for(lambda: worker.status() == psutil.STATUS_STOPPED)
    wait_for(lambda: psutil.Process(client.pid).status() == psutil.STATUS_STOPPED)
    client.send_signal(signal.SIGCONT)
    wait_for(lambda: worker.status() == psutil.STATUS_SLEEPING)
    client.terminate()
    assert client.wait(timeout=60) == 75


def test_a_server_that_ends_without_an_answer_has_run_nothing() -> None:
    here, there = socket.socketpair()
    with here:
        there.close()
        assert fork_server.request(here, ["eil", "train"]) is None
