"""Studies on a real one-node SLURM, through the profile that the README names: `make test-slurm`, as root."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import one_node
import pandas as pd
import pytest
import yaml

from eil.core import records

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.skipif(os.environ.get("EIL_SLURM") != "1", reason="starts SLURM's daemons: make test-slurm")

ROOT = Path(__file__).parent.parent.parent
# The node counts four processors, keeps no accounts, and its jobs last seconds: what is said besides the profile.
PROFILE = ["--profile", "workflow/profiles/slurm", "--cores", "2"]
PROFILE += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "6"]
KILLED = "vgg_small-eil-seed0"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    try:
        one_node.up()
        yield
    finally:
        one_node.down()


@pytest.fixture
def content(content: dict[str, Any]) -> dict[str, Any]:
    """Two trainings, each long enough to be stopped after a checkpoint."""
    content["recipe"] |= {"epochs": 100, "milestones": [80]}
    return content | {"methods": {"cam": {}, "eil": {}}, "seeds": 1}


@pytest.fixture
def snakemake(content: dict[str, Any]) -> Iterator[Start]:
    """Starts Snakemake in a folder; what a failed test leaves running ends with the test."""
    started = []

    def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        study = folder / "tiny.yaml"
        study.write_text(yaml.safe_dump(content))
        command = [sys.executable, "-m", "snakemake", "--directory", str(folder), *arguments]
        process = subprocess.Popen(
            [*command, "--configfile", str(study)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # which does nothing to one that has ended


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    output = process.communicate(timeout=600)[0]
    assert process.returncode == code, output
    return output


def run(folder: Path, name: str) -> Path:
    return folder / "results" / "tiny" / "runs" / name


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def jobs(folder: Path) -> dict[str, str]:
    """Number of a study's last job of each rule and run, which the executor writes into the job's comment."""
    lines = slurm("squeue", "--noheader", "--states=all", "--sort=i", "--format=%k %i %Z").splitlines()
    return {comment: number for comment, number, place in map(str.split, lines) if place == str(folder)}


def stop_the_training(process: subprocess.Popen[str], folder: Path, *command: str) -> str:
    """Stop the job of a training that has a checkpoint; its number."""
    checkpoint = run(folder, KILLED) / "last.ckpt"
    end = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None, finished(process)
        assert time.monotonic() < end, "no checkpoint after 300 seconds"
        time.sleep(0.05)
    number = jobs(folder)[f"rule_train_wildcards_{KILLED}"]
    slurm(*command, number)
    assert not checkpoint.with_name("weights.safetensors").exists()
    return number


def test_a_killed_job_is_a_failure_and_the_rerun_ends_as_on_a_laptop(tmp_path: Path, snakemake: Start) -> None:
    laptop, cluster = tmp_path / "laptop", tmp_path / "cluster"
    finished(snakemake(laptop, "--cores", "2"))
    # As on a cluster that has no GPU, and without the retries that would mend it.
    arguments = [*PROFILE, "--set-resources", "train:gpu=0", "localize:gpu=0", "--retries", "0"]
    process = snakemake(cluster, *arguments)
    number = stop_the_training(process, cluster, "scancel")
    output = finished(process, code=1)
    assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in output
    assert records.read(run(cluster, "vgg_small-cam-seed0") / "record.json").status == "done"
    assert not (run(cluster, KILLED) / "record.json").exists()
    output = finished(snakemake(cluster, *arguments))
    assert re.search(r"^train +1$", output, re.MULTILINE)
    assert "resumed after epoch" in (run(cluster, KILLED) / "train.log").read_text()
    frame = pd.read_parquet(cluster / "results" / "tiny" / "records.parquet")
    assert frame.drop_duplicates("run")["status"].tolist() == ["done"] * 2
    for name in ("vgg_small-cam-seed0", KILLED):
        there, here = (records.read(run(folder, name) / "record.json") for folder in (cluster, laptop))
        assert there.scores == here.scores
    # What works was sent to a node, what only names targets was not, and nothing asked for a GPU.
    sent = jobs(cluster)
    assert {re.sub("^rule_|_wildcards_.*", "", comment) for comment in sent} == {
        *("prepare", "annotate", "train", "localize", "evaluate", "tables", "figures")
    }
    assert not [number for number in sent.values() if "TresPerJob" in slurm("scontrol", "show", "job", number)]


@pytest.mark.parametrize("command", [("scancel",), ("scontrol", "requeue")], ids=" ".join)
def test_a_training_that_is_stopped_goes_on_by_itself(
    tmp_path: Path, snakemake: Start, command: tuple[str, ...]
) -> None:
    """By Snakemake after a failure, by SLURM after what a preemption does; on a GPU, as far as SLURM knows."""
    weights = run(Path(), KILLED) / "weights.safetensors"
    process = snakemake(tmp_path, str(weights), *PROFILE)
    number = stop_the_training(process, tmp_path, *command)
    assert "TresPerJob=gres:gpu:1" in slurm("scontrol", "show", "job", number)
    finished(process)
    assert (jobs(tmp_path)[f"rule_train_wildcards_{KILLED}"] == number) == (command[0] == "scontrol")
    assert "resumed after epoch" in (run(tmp_path, KILLED) / "train.log").read_text()
