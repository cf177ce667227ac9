"""The workflow as a module of another one, as Snakemake's users combine workflows."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import PROGRAMS, ROOT, dry_run

from eil.core import records

PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8").split("## Part of another workflow")[1]
SECOND = """
module other:
    snakefile: snakefile()
    config: config["wsol"] | {"name": "second"}
    prefix: "other/place"

use rule * from other as other_*
"""


def write(folder: Path, content: dict[str, Any]) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block
    (folder / "config.yaml").write_text(yaml.safe_dump({"wsol": content}))
    (folder / "Snakefile").write_text(block[1] + SECOND)


def snakemake(folder: Path, content: dict[str, Any], *arguments: str) -> str:
    write(folder, content)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    environment = os.environ | {"PATH": PROGRAMS}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture
def tiny(content: dict[str, Any]) -> dict[str, Any]:
    content["recipe"] |= {"epochs": 1}
    return content | {"methods": {"cam": {}}, "seeds": 1}


def test_two_modules_are_planned_below_their_prefixes(tmp_path: Path, tiny: dict[str, Any]) -> None:
    write(tmp_path, tiny)
    code, told = dry_run(tmp_path, "all", "other_tables", cwd=tmp_path, snakefile=tmp_path / "Snakefile")
    assert code == 0, told
    for rule in ("prepare", "annotate", "train", "localize", "evaluate", "tables"):
        assert {f"eil_{rule}", f"other_{rule}"} <= {line.split()[0] for line in told.splitlines() if line}
    assert "wsol/results/tiny/runs/vgg_small-cam-seed0/maps.npz" in told
    assert "other/place/results/second/runs/vgg_small-cam-seed0/maps.npz" in told
    assert "tables of second" in told
    assert (tmp_path / "wsol/results/tiny/study.yaml").exists()
    assert (tmp_path / "other/place/results/second/study.yaml").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_module_runs(tmp_path: Path, tiny: dict[str, Any]) -> None:
    told = snakemake(tmp_path, tiny)
    assert told.startswith("0\n"), told
    assert "1 of 1 runs done, 0 failed" in told.splitlines()
    record = records.read(tmp_path / "wsol/results/tiny/runs/vgg_small-cam-seed0/record.json")
    assert record.status == "done"
    assert "Method" in (tmp_path / "summary.txt").read_text()
    assert not (tmp_path / "results").exists()
    assert "Nothing to be done" in snakemake(tmp_path, tiny)
    told = snakemake(tmp_path, tiny | {"seeds": 0}, "-n")
    assert "config of module eil: seeds = 0: must be how many repetitions" in told
    assert "Traceback" not in told
