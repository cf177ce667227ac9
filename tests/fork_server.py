"""Run `eil` and Snakemake in forks of a process that has imported them: to import them anew takes 2 to 10 seconds.

The tests of whole studies start some 60 processes. What starting itself can break is left to tests that start anew, in
which Snakemake's steps are forks of a process of the workflow's own (:mod:`eil.commands.forks`).

    python fork_server.py serve SOCKET               the process that imports and forks
    python -I -S fork_server.py eil ARGUMENT...      in place of a program; its socket is in EIL_FORK_SERVER
"""

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # -I and -S leave out what is installed

from eil.commands import forks
from eil.execution import fork_server as server

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
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder / "socket")],
        stdin=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # as Snakemake sets them for a step
    )
    _servers.append(process)
    while not (folder / "socket").exists():
        assert process.poll() is None
        time.sleep(0.02)
    return {
        "BASH_ENV": str(functions),
        "EIL_FORK_PYTHON": sys.executable,
        "EIL_FORK_CLIENT": __file__,
        "EIL_FORK_SERVER": str(folder / "socket"),
    }


def command(program: str) -> list[str]:
    """The command line that runs this program in a fork, given :func:`environment`."""
    return [sys.executable, "-I", "-S", __file__, program]


def _request(arguments: list[str]) -> int | None:
    """The exit code of a fork that the server of :func:`environment` makes; None if it cannot."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["EIL_FORK_SERVER"])
        return server.request(connection, arguments)


def _programs() -> dict[str, server.Program]:
    """The programs, with all that they import when they need it."""
    import matplotlib.pyplot  # noqa: F401
    import snakemake.report
    import snakemake.scheduling  # noqa: F401
    from snakemake import cli

    import eil.profiling.timing
    import eil.report.figures  # noqa: F401

    return {"snakemake": cli.main, **forks.programs()}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        server.serve(Path(sys.argv[2]), _programs, until=0)
        shutil.rmtree(Path(sys.argv[2]).parent)
    else:
        code = _request(sys.argv[1:])
        assert code is not None
        sys.exit(code)
