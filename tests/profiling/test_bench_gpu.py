"""The GPU's benchmark on a machine without one: the same code on small networks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_section_leaves_its_table(tmp_path: Path) -> None:
    command = [sys.executable, "tests/benchmarks/gpu.py", "--out", str(tmp_path), "--small"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=560)
    assert process.returncode == 0, process.stderr
    names = {path.name.split("-")[0] for path in tmp_path.glob("*.md")}
    assert names == {"step", "field", "study", "side", "memory", "compile"}
    assert "vgg_small,32,8" in next(tmp_path.glob("step-*.csv")).read_text()


def test_what_does_not_fit_into_the_time_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "tests/benchmarks/gpu.py", "--out", str(tmp_path), "--small", "--minutes", "0"]
    process = subprocess.run([*command, "--only", "memory"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (1, "memory: left out, the time is over\n")
