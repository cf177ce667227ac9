"""A program in a fork does what it does in a process of its own: otherwise the tests that use forks prove nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest
from waiting import wait_for
from workflows import ROOT, study

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are used on Linux alone")
WRONG = ["train", "workflow/config/smoke.yaml", "vgg_small-eil-seed9"]


def run(*command: str, **variables: str) -> tuple[int, str, str]:
    process = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | variables, check=False, timeout=120
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize("arguments", [["check", "workflow/config/smoke.yaml"], WRONG, ["trian"]], ids=" ".join)
def test_exit_code_and_output_are_those_of_a_process_of_its_own(arguments: list[str]) -> None:
    anew = run(sys.executable, "-m", "eil", *arguments)
    assert run(*fork_server.command("eil"), *arguments, **fork_server.environment()) == anew


def test_a_bash_runs_it_with_its_folder_and_variables_and_in_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text((ROOT / "workflow/config/smoke.yaml").read_text())
    line = "cd $PLACE; set -e -o pipefail; eil check tiny.yaml 2>&1 | tail -n 1; eil check none.yaml"
    code, output, errors = run("bash", "-c", line, PLACE=str(tmp_path), **fork_server.environment())
    assert (code, output, errors) == (1, "16 runs\n", "eil: none.yaml: No such file or directory\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_signal_reaches_the_fork(number: int, code: int, tmp_path: Path, content: dict[str, Any]) -> None:
    """A killed client's fork is killed: it would go on to train, and hold the run's lock."""
    content["recipe"] |= {"epochs": 99999, "milestones": [99998]}
    where = [*study(tmp_path, content)[1:], "--results", str(tmp_path / "results"), "--data", str(tmp_path / "data")]
    eil, environment = fork_server.command("eil"), os.environ | fork_server.environment()
    subprocess.run([*eil, "prepare", *where], env=environment, check=True, stdout=subprocess.DEVNULL)
    training = [*eil, "train", where[0], "vgg_small-cam-seed0", *where[1:]]
    run = tmp_path / "results" / "runs" / "vgg_small-cam-seed0"
    with subprocess.Popen(training, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for((run / "last.ckpt").exists)
            fork = json.loads((run / "running.json").read_text())["process"]
            assert fork != process.pid
            process.send_signal(number)
            assert process.wait(timeout=60) == code
            wait_for(lambda: not Path(f"/proc/{fork}").exists())
        finally:
            process.kill()
