"""SIGKILL at random moments of every step, then the same command: in the end all is as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from eil.core import records
from eil.core.files import read_arrays

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAME = "vgg_small-eil-seed0"
# What Snakemake does: the steps whose output is missing, in their order.
STEPS = f"""
import sys
from pathlib import Path
from eil.commands import cli
study, here = sys.argv[1], Path(sys.argv[2])
where = ["--results", str(here / "results"), "--data", str(here / "data")]
own = here / "results/runs/{NAME}"
for command, output in (
    ("prepare", None), ("train", own / "train.json"), ("localize", own / "maps.npz"), ("evaluate", own / "record.json"),
    ("aggregate", None), ("figures", None),
):
    run = [] if output is None else ["{NAME}"]
    if output is None or not output.exists():
        if code := cli.main([command, study, *run, *where]):
            sys.exit(code)
print("done")
"""


def start(study: Path, here: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STEPS, str(study), str(here)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(study: Path, here: Path) -> None:
    process = start(study, here)
    output = process.communicate(timeout=280)[0]
    assert process.returncode == 0, output
    assert output.endswith("done\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """A study, what it comes to when nobody disturbs it, and how long that takes."""
    here = tmp_path_factory.mktemp("whole")
    content: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"name": "birds", "classes": 2, "train_per_class": 60, "val_per_class": 10, "test_per_class": 10},
        "backbones": ["vgg_small"],
        "methods": {"eil": {}},
        "controls": [],
        "seeds": 1,
        "recipe": {"epochs": 10, "batch_size": 8, "learning_rate": 0.01, "resize": 36, "crop": 32},
    }
    (here / "tiny.yaml").write_text(yaml.safe_dump(content))
    started = time.monotonic()
    finish(here / "tiny.yaml", here)
    return here / "tiny.yaml", here, time.monotonic() - started


def assert_same(one: Path, other: Path) -> None:
    """Weights, maps, metrics and tables, bit for bit."""
    runs = [here / "results/runs" / NAME for here in (one, other)]
    weights, others = (load_file(run / "weights.safetensors") for run in runs)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    maps, again = (read_arrays(run / "maps.npz") for run in runs)
    assert maps.keys() == again.keys()
    assert all(np.array_equal(maps[name], again[name]) for name in maps)
    first, second = (records.read(run / "record.json") for run in runs)
    assert (first.scores, first.replicates) == (second.scores, second.replicates)
    caches = [next((here / "data").glob("*/dataset.json")).read_text() for here in (one, other)]
    assert caches[0] == caches[1]
    assert {p.name for p in (one / "results/tables").iterdir()} == {
        p.name for p in (other / "results/tables").iterdir()
    }
    assert not list(other.rglob("*.part*"))
    assert not list(other.rglob("*.ckpt"))


@pytest.mark.parametrize("trial", range(5))
def test_killed_four_times_at_random_it_ends_the_same(
    whole: tuple[Path, Path, float], tmp_path: Path, trial: int
) -> None:
    study, undisturbed, seconds = whole
    draw = random.Random(trial)
    moments = []
    for _ in range(4):
        process = start(study, tmp_path)
        moments.append(draw.uniform(0.3 * seconds, 0.95 * seconds) if draw.random() < 0.7 else draw.uniform(0, seconds))
        try:
            process.wait(moments[-1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finish(study, tmp_path)
    assert_same(undisturbed, tmp_path)


@pytest.mark.parametrize("step", ["prepare", "train", "localize", "evaluate", "aggregate", "figures"])
def test_killed_within_each_step_it_ends_the_same(whole: tuple[Path, Path, float], tmp_path: Path, step: str) -> None:
    study, undisturbed, _ = whole
    marker = tmp_path / "reached"
    spoilt = STEPS.replace(
        "import sys\n",
        "import sys, os, signal\nfrom eil.core import files\n"
        "count, replace = iter(range(9999)), files.os.fsync\n"
        "def killed(number):\n"
        f"    if current == {step!r} and next(count) == 0:\n"
        f"        open({str(marker)!r}, 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(number)\n"
        "files.os.fsync = killed\ncurrent = ''\n",
        1,
    ).replace("    run = []", "    current = command\n    run = []")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", spoilt, str(study), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert marker.exists()
    finish(study, tmp_path)
    assert_same(undisturbed, tmp_path)


def test_a_disk_that_fills_up_leaves_the_study_resumable(whole: tuple[Path, Path, float], tmp_path: Path) -> None:
    study, undisturbed, _ = whole
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        process = start(study, small)
        output = process.communicate(timeout=280)[0]
        assert process.returncode == 1, output
        assert "No space left on device" in output
        assert "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        finish(study, small)
        assert_same(undisturbed, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)
