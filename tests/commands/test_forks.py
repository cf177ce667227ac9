"""The steps of a workflow are forks of one process, and do what a process of their own does."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from safetensors.numpy import load_file
from waiting import wait_for
from workflows import study

from eil.commands import cli, forks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks are used on Linux alone")
EIL = str(Path(sys.executable).with_name("eil"))
RUN = "vgg_small-cam-seed0"


@dataclasses.dataclass
class Workflow:
    """A process that stands for Snakemake's, with the folder of a prepared study."""

    process: subprocess.Popen[bytes]
    folder: Path
    variables: dict[str, str]

    def step(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a step of the study as Snakemake does."""
        step, *rest = arguments
        return subprocess.Popen(
            [EIL, step, "tiny.yaml", *rest],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=os.environ | self.variables | variables,
        )

    def done(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit code and output of a step."""
        with self.step(*arguments, **variables) as process:
            output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def servers(self) -> list[psutil.Process]:
        """Processes whose forks are the steps, without those forks."""
        mine = {
            each.pid: each
            for each in psutil.process_iter(["cmdline", "ppid"])
            if f", {self.process.pid})" in " ".join(each.info["cmdline"] or [])
        }
        return [each for each in mine.values() if each.info["ppid"] not in mine]


@pytest.fixture
def workflow(tmp_path: Path, content: dict[str, Any]) -> Iterator[Workflow]:
    content |= {"methods": {"cam": {}}, "seeds": 2}
    path = study(tmp_path, content)[-1]
    assert cli.main(["prepare", path, "--data", str(tmp_path / "results" / "data")]) == 0
    with subprocess.Popen(["sleep", "600"]) as process:
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        yield Workflow(process, tmp_path, {forks.WORKFLOW: str(process.pid), "TMPDIR": str(tmp_path), **threads})
        process.kill()


def test_steps_that_start_at_once_share_a_server_which_ends_with_the_workflow(workflow: Workflow) -> None:
    runs = workflow.folder / "results" / "tiny" / "runs"
    both = [workflow.step("train", f"vgg_small-cam-seed{seed}", "--ahead") for seed in (0, 1)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (server,) = workflow.servers()
    assert workflow.done("localize", RUN) == (
        0,
        f"{RUN}: localize was done ahead, in the process of another step\n",
        "",
    )
    assert workflow.servers() == [server]
    forked = load_file(runs / RUN / "weights.safetensors")
    folder = workflow.folder / f"eil-forks-{os.getuid()}"
    assert len(list(folder.iterdir())) == 2  # socket and lock
    # Its own process, with its own threads, trains the same network.
    (runs / RUN / "weights.safetensors").unlink()
    assert workflow.done("train", RUN, OPENBLAS_NUM_THREADS="2")[0] == 0
    assert workflow.servers() == [server]
    alone = load_file(runs / RUN / "weights.safetensors")
    assert forked.keys() == alone.keys()
    assert all(np.array_equal(forked[name], alone[name]) for name in alone)
    workflow.process.kill()
    wait_for(lambda: not server.is_running())
    assert not list(folder.iterdir())


def test_a_step_without_a_server_does_the_same_itself(workflow: Workflow) -> None:
    wrong = workflow.done("train", "vgg_small-cam-seed9")
    assert wrong[0] == 1
    assert "vgg_small-cam-seed9" in wrong[2]
    (server,) = workflow.servers()
    server.kill()
    server.wait()
    # A killed server leaves its socket; the next step starts another one.
    assert workflow.done("train", "vgg_small-cam-seed9") == wrong
    (another,) = workflow.servers()
    assert another != server
    # Nor can there be one if the workflow has ended, or where no folder can be made.
    workflow.process.kill()
    workflow.process.wait()
    wait_for(lambda: not another.is_running())
    assert workflow.done("train", "vgg_small-cam-seed9") == wrong
    assert not workflow.servers()


def test_time_and_memory_of_a_fork_are_its_own(workflow: Workflow) -> None:
    folder = workflow.folder / "results" / "tiny" / "runs" / RUN

    def measured(**variables: str) -> tuple[pd.Series, float, float]:
        """What a training has written, its seconds, and CPU seconds of the process that was started."""
        before = time.monotonic()
        process = workflow.step("train", RUN, **variables)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        seconds = time.monotonic() - before
        (folder / "weights.safetensors").unlink()
        return (
            pd.read_csv(folder / "train.benchmark.tsv", sep="\t").iloc[0],
            seconds,
            usage.ru_utime + usage.ru_stime,
        )

    anew, seconds, used = measured(OPENBLAS_NUM_THREADS="2")
    assert seconds - 2 < anew["s"] < seconds + 0.1
    assert used - 2 < anew["cpu_time"] <= used
    measured()  # starts the server
    forked, seconds, used = measured()
    assert seconds - 2 < forked["s"] < seconds + 0.1
    assert used < forked["cpu_time"] < anew["cpu_time"]
    assert min(forked["max_rss"], anew["max_rss"]) > 100
    assert forked["mean_load"] == pytest.approx(100 * forked["cpu_time"] / forked["s"], abs=1)


def test_each_workflow_has_at_most_two_servers(workflow: Workflow) -> None:
    """A workflow whose steps each have a variable of their own would have one for each."""
    wrong = [workflow.done("train", "vgg_small-cam-seed9", MINE=number) for number in "123"]
    assert wrong[0] == wrong[1] == wrong[2]
    assert len(workflow.servers()) == 2


def test_only_steps_of_a_workflow_are_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(forks, "_connection", lambda: started.append(1) or _refused())
    for name in (forks.WORKFLOW, "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    step = ["/somewhere/eil", "train", "tiny.yaml", RUN]
    assert forks.run(step) is None
    assert not started
    monkeypatch.setenv(forks.WORKFLOW, "1")
    assert forks.run(step) is None
    assert len(started) == 1
    for other in (["/somewhere/eil", "aggregate", "tiny.yaml"], ["/somewhere/eil"], ["__main__.py", "train"]):
        assert forks.run(other) is None
    for name, value in (("OPENBLAS_NUM_THREADS", "2"), ("RANK", "1")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert forks.run(step) is None
    assert len(started) == 1


def _refused() -> socket.socket:
    raise ConnectionRefusedError


def test_no_forks_beside_a_gpu_nor_where_they_are_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EIL_FORKS", raising=False)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert forks.possible()
    with monkeypatch.context() as off:
        off.setenv("EIL_FORKS", "0")
        assert not forks.possible()
    with monkeypatch.context() as nvidia:
        nvidia.setattr(Path, "glob", lambda folder, pattern: iter([Path("/dev/nvidia0")]))
        assert not forks.possible()
    monkeypatch.setattr(Path, "exists", lambda path: path == Path("/dev/kfd"))
    assert not forks.possible()
