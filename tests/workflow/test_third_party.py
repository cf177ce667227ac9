"""A third party's package: installed, found, conformant by itself, and run in a study."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from workflows import COMMANDS, caches

from eil.core import records
from eil.evaluation import protocols
from eil.evaluation.score import MaxBoxAcc

ROOT = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parents[1] / "example_method"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which the example is installed."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(EXAMPLE, folder / "source")  # building writes beside the sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", folder / "site", folder / "source"], check=True)
    return os.environ | {"PYTHONPATH": str(folder / "site"), **caches(folder)}


def test_it_passes_the_conformance_suite_by_itself(environment: dict[str, str]) -> None:
    files = ["tests/methods/test_conformance.py", "tests/methods/test_shared_pass.py"]  # the latter with its extractor
    suite = [*files, "-k", "random_erasing and small"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *suite]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) >= 20


def test_it_runs_in_a_study(environment: dict[str, str], content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"methods": {"random_erasing": {"rate": [0.2]}}, "seeds": 1, "maps": ["channel_mean"]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "-c2"]
    result = subprocess.run(
        [*command, "tables", "--configfile", str(tmp_path / "tiny.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    run = tmp_path / "results" / "tiny" / "runs" / "vgg_small-random_erasing-rate0.2-seed0"
    assert records.read(run / "record.json").status == "done"
    tables = tmp_path / "results" / "tiny" / "tables"
    assert "random_erasing (rate=0.2)" in (tables / "main.md").read_text()
    assert "| random_erasing (rate=0.2) | channel_mean |" in (tables / "maps.md").read_text()


def test_without_it_the_study_says_what_there_is(content: dict[str, Any], tmp_path: Path) -> None:
    content["methods"] = {"random_erasing": {}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "eil", "check", str(tmp_path / "tiny.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 1
    assert "tiny.yaml: methods.random_erasing: must be one of acol, adl, bas" in result.stderr


def test_the_readme_shows_it_as_it_is() -> None:
    code = (EXAMPLE / "random_erasing.py").read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 15


def test_a_backbone_and_a_data_set_run_in_a_study(environment: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    study = re.search(r"```yaml\n(name: mine.*?)```", text, re.DOTALL)
    assert study
    (tmp_path / "mine.yaml").write_text(study[1] + "seeds: 1\ncontrols: []\n")
    where = ["--results", str(tmp_path / "results"), "--data", str(tmp_path / "data")]

    path, run = str(tmp_path / "mine.yaml"), "tiny_net-random_erasing-rate0.1-seed0"
    steps = [[step, path, run, *where] for step in ("train", "localize", "evaluate")]
    others = [["plan", path, "--rates"], ["data", "check", "squares", "--out", str(tmp_path)]]
    lines = [["check", path], ["prepare", path, *where], *steps, *others]
    command = [sys.executable, "-c", COMMANDS, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "tiny_net-random_erasing-rate0.3-seed0" in done.stdout
    assert "tiny_net: 3 trainings" in done.stdout
    assert "squares" in done.stdout
    record = records.read(tmp_path / "results/runs/tiny_net-random_erasing-rate0.1-seed0/record.json")
    assert record.provenance["images"] == 10
    assert record.training["sources"]


@pytest.mark.parametrize("name", ["channel_mean", "tiny_net", "squares"])
def test_the_documentation_shows_them_as_they_are(name: str) -> None:
    code = (EXAMPLE / f"{name}.py").read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in (ROOT / "docs" / "extending.md").read_text()


def test_the_documented_protocol_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    block = re.search(r"```yaml\n(top-half:.*?)```", text, re.DOTALL)
    assert block
    ((name, content),) = yaml.safe_load(block[1]).items()
    known = protocols.read()
    monkeypatch.setattr(protocols, "read", lambda: known | {name: protocols.Protocol.model_validate(content)})
    metric = MaxBoxAcc(name, side=8)
    metric.update(np.pad(np.ones((1, 4, 4)), ((0, 0), (2, 2), (2, 2))), [np.array([[2.0, 2, 6, 6]])])
    assert metric.compute(metric)["gt_known_loc"] == 100
