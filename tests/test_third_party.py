"""A third party's package: installed, found, conformant by itself, and run in a study."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil import records

ROOT = Path(__file__).parent.parent
EXAMPLE = Path(__file__).parent / "example_method"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which the example is installed."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(EXAMPLE, folder / "source")  # building writes beside the sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", folder / "site", folder / "source"], check=True)
    return os.environ | {"PYTHONPATH": str(folder / "site"), "XDG_CACHE_HOME": str(folder / "cache")}


def test_it_passes_the_conformance_suite_by_itself(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/test_conformance.py"]
    result = subprocess.run(
        [*command, "-k", "random_erasing"], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) >= 40


def test_it_runs_in_a_study(environment: dict[str, str], content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"methods": {"cam": {}, "random_erasing": {"rate": [0.2]}}, "seeds": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "-c2"]
    result = subprocess.run(
        [*command, "--configfile", str(tmp_path / "tiny.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    run = tmp_path / "results" / "tiny" / "runs" / "vgg_small-random_erasing-rate0.2-seed0"
    assert records.read(run / "record.json").status == "done"
    assert "random_erasing (rate=0.2)" in (tmp_path / "results" / "tiny" / "tables" / "main.md").read_text()


def test_without_it_the_study_says_what_there_is(content: dict[str, Any], tmp_path: Path) -> None:
    content["methods"] = {"random_erasing": {}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "eil", "check", str(tmp_path / "tiny.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 1
    assert "tiny.yaml: methods.random_erasing: must be one of acol, adl, cam" in result.stderr


def test_the_readme_shows_it_as_it_is() -> None:
    code = (EXAMPLE / "random_erasing.py").read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 15
