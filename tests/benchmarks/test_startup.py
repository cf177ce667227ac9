"""How long the program takes to start."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from eil.study.study import load


def started(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "eil", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def test_help_waits_for_no_torch(benchmark: BenchmarkFixture) -> None:
    benchmark.pedantic(started, ("--help",), rounds=5, warmup_rounds=1)
    assert statistics.median(started("--help") for _ in range(5)) < 0.5


def test_checking_a_study(benchmark: BenchmarkFixture) -> None:
    """The start of every step of a run: torch, the study, its networks' shapes."""
    benchmark.pedantic(started, ("check", "workflow/config/smoke.yaml"), rounds=3, warmup_rounds=1)


def test_a_runs_start(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """`eil train` of the smallest run, less the training itself: what many small runs pay each."""
    study = Path("workflow/config/smoke.yaml")
    where = ["--results", str(tmp_path / "results"), "--data", str(tmp_path / "data")]
    started("prepare", str(study), *where)
    run = load(study).runs()[0].name

    def train() -> None:
        started("train", str(study), run, *where)

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)
    trained = json.loads((tmp_path / "results/runs" / run / "train.json").read_text())["seconds"]
    benchmark.extra_info |= {"seconds of training": trained}
