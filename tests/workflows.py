"""Snakemake on a study: in processes of its own, or a dry run in this one."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import fork_server
import matplotlib
import yaml
from snakemake import cli

ROOT = Path(__file__).parents[1]
# Without the environment's own programs: the workflow must find them beside its Snakemake.
PROGRAMS = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.executable).parent)

# Several `eil` commands, as lists in JSON, in one process: each start costs seconds.
COMMANDS = "import json, sys; from eil.commands import cli; sys.exit(max(map(cli.main, json.loads(sys.argv[1]))))"


def caches(folder: Path) -> dict[str, str]:
    """Environment variables: caches of its own, except Matplotlib's, whose list of fonts takes seconds to make."""
    return {"XDG_CACHE_HOME": str(folder / "cache"), "MPLCONFIGDIR": matplotlib.get_cachedir()}


def snakemake(
    folder: Path, *arguments: str, root: Path = ROOT, forks: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """Start Snakemake in ``folder`` on the Snakefile of ``root``.

    Args:
        forks: Snakemake and each `eil` below it are forks of a process that has imported them (:mod:`fork_server`).
    """
    forking = fork_server.environment() if forks else {}
    command = fork_server.command("snakemake") if forking else [sys.executable, "-m", "snakemake"]
    return subprocess.Popen(
        [*command, "-s", str(root / "Snakefile"), "--directory", str(folder), "--cores", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PATH": PROGRAMS, **caches(folder), **forking},
        cwd=root,
        **options,
    )


def finished(
    folder: Path, *arguments: str, code: int = 0, root: Path = ROOT, timeout: float = 280, forks: bool = False
) -> str:
    """The output of a Snakemake that ends with this exit code."""
    with snakemake(folder, *arguments, root=root, forks=forks, start_new_session=True) as process:
        try:
            output = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # otherwise its end is waited for, without a reader of its output
            raise
    assert process.returncode == code, output
    return output


def in_process(
    folder: Path, *arguments: str, cwd: Path = ROOT, snakefile: Path = ROOT / "Snakefile"
) -> tuple[int, str]:
    """Exit code and output of a Snakemake that runs no job. To start Python anew takes thirty times as long."""
    output, code = io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, caches(folder)),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            cli.main(["-s", str(snakefile), "--directory", str(folder), *arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            print(end.code if isinstance(end.code, str) else "")
    return code, output.getvalue()


def dry_run(folder: Path, *arguments: str, cwd: Path = ROOT, snakefile: Path = ROOT / "Snakefile") -> tuple[int, str]:
    """Exit code and output of a dry run."""
    return in_process(folder, "-n", "--cores", "2", *arguments, cwd=cwd, snakefile=snakefile)


def planned(folder: Path, *arguments: str, code: int = 0, root: Path = ROOT) -> str:
    """What a dry run says that ends with this exit code."""
    found, output = dry_run(folder, *arguments, snakefile=root / "Snakefile")
    assert found == code, output
    return output


def unlock(folder: Path, *arguments: str) -> None:
    """Remove the lock of a Snakemake that was killed, as the documentation says."""
    code, output = in_process(folder, "--unlock", *arguments)
    assert code == 0, output


def study(folder: Path, content: dict[str, Any]) -> list[str]:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["--configfile", str(path)]
