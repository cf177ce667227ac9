"""How long the program takes to start."""

import statistics
import subprocess
import sys
import time

from pytest_benchmark.fixture import BenchmarkFixture


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
