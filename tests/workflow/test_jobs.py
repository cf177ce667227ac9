"""A study in shares: each job of a cluster runs several trainings, and a failed one costs none of the others."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil.commands import workflow


def eil(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eil", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)


def counts(plan: str) -> dict[str, int]:
    """Jobs by rule, of a dry run."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE)}


@pytest.fixture
def study(content: dict[str, Any], tmp_path: Path) -> Path:
    """Three trainings, of which the second fails, and a control on the first."""
    content |= {"seeds": 1, "controls": ["gaussian"]}
    content["methods"] = {"cam": {}, "eil": {"recipe": {"learning_rate": 1e30}}, "has": {}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_job_plans_its_share_alone(
    study: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study.parent)
    workflow.run(study, "-n", "--cores", "1", trainings_per_job=2, job=1)
    assert counts(capfd.readouterr().out) == {
        "prepare": 1, "annotate": 1, "train": 2, "localize": 3, "evaluate": 3, "total": 10,
    }  # fmt: skip


@pytest.mark.slow
def test_a_failed_run_costs_none_of_the_others_and_is_tried_again(study: Path, tmp_path: Path) -> None:
    share = ("run", "tiny.yaml", "--cores", "1", "--trainings-per-job", "2", "--job")
    assert eil(tmp_path, "prepare", "tiny.yaml").returncode == 0
    first, second = eil(tmp_path, *share, "1"), eil(tmp_path, *share, "2")
    assert first.returncode == 1
    assert "the loss is not finite" in first.stderr
    assert second.returncode == 0, second.stderr
    done = {path.parent.name for path in (tmp_path / "results/tiny/runs").glob("*/record.json")}
    assert done == {"vgg_small-cam-seed0", "vgg_small-cam-gaussian-seed0", "vgg_small-has-seed0"}
    plan = eil(tmp_path, "run", "tiny.yaml", "--cores", "1", "-n")
    assert counts(plan.stdout + plan.stderr) == {
        "train": 1, "localize": 1, "evaluate": 1, "tables": 1, "figures": 1, "all": 1, "total": 6,
    }  # fmt: skip
