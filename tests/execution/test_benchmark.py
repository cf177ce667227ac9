"""What a step has used, against what was spent on purpose."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from eil.execution import benchmark

SPEND = """
import subprocess, sys, time
from pathlib import Path
spend = "import time\\nwhile time.process_time() < 0.5: pass"
subprocess.run([sys.executable, "-c", spend], check=True)
exec(spend.replace("0.5", str(time.process_time() + 0.5)))
time.sleep(0.5)
filled = b"1" * (300 << 20)
from eil.execution import benchmark
benchmark.write(Path(sys.argv[1]))
"""


def test_time_of_a_process_with_those_that_it_waited_for_and_its_memory(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SPEND, str(tmp_path / "step.benchmark.tsv")], check=True)
    (row,) = pd.read_csv(tmp_path / "step.benchmark.tsv", sep="\t").to_dict("records")
    assert list(row) == ["s", "h:m:s", "max_rss", "mean_load", "cpu_time"]
    assert 1 <= row["cpu_time"] < 3
    assert row["s"] >= row["cpu_time"] + 0.4
    assert row["h:m:s"] == f"0:00:{int(row['s']):02}"
    assert 300 < row["max_rss"] < 500
    assert row["mean_load"] == pytest.approx(100 * row["cpu_time"] / row["s"], abs=1)


def test_other_ranks_of_a_training_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    benchmark.write(tmp_path / "step.benchmark.tsv")
    assert not list(tmp_path.iterdir())
