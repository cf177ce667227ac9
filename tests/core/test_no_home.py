"""Read-only code, no writable home, a user without a name: as in a container. Processes of their own, for real."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import COMMANDS

from eil.core.user_cache import private_folder

ROOT = Path(__file__).parents[2]
NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]  # nor has it root's rights over files


def can_be_nameless() -> bool:
    try:
        return subprocess.run([*NAMELESS, sys.executable, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the code that cannot be written, with a home in it that cannot be made."""
    if not can_be_nameless():
        pytest.skip("needs unshare and user namespaces")
    folder = tmp_path_factory.mktemp("installed") / "code"
    folder.mkdir()
    for name in ("eil", "baselines", "workflow", "profiles", "results/published.csv", "Snakefile", "environment.yml"):
        source, place = ROOT / name, folder / name
        place.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def nameless(code: Path, tmp: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    tmp.mkdir(exist_ok=True)
    given = {"PATH": os.environ["PATH"], "HOME": str(code / "home"), "TMPDIR": str(tmp), "PYTHONPATH": str(code)}
    return subprocess.run(
        [*NAMELESS, sys.executable, *command],
        capture_output=True,
        text=True,
        env=given | env,
        cwd=tmp,
        check=False,
        timeout=560,
    )


def test_check_compiles_nothing(code: Path, tmp_path: Path) -> None:
    process = nameless(code, tmp_path / "tmp", "-m", "eil", "check", str(code / "workflow" / "config" / "smoke.yaml"))
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("16 runs\n")


def test_what_is_compiled_falls_back_to_a_temporary_cache_and_says_it_once(code: Path, tmp_path: Path) -> None:
    tmp, module = tmp_path / "tmp", "eil.evaluation.boxes"
    process = nameless(code, tmp, "-m", module)
    assert process.returncode == 0, process.stderr
    line = f"compiled functions are kept in {tmp}/eil-numba-54321 (NUMBA_CACHE_DIR names another folder)"
    assert process.stderr.count(line) == 1
    assert "Traceback" not in process.stderr
    mine = tmp_path / "mine"
    mine.mkdir()
    assert nameless(code, tmp, "-m", module, NUMBA_CACHE_DIR=str(mine)).stderr == ""


def test_a_training_and_its_scores_and_figures(code: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    content |= {"methods": ["cam"], "seeds": 1}
    tmp = tmp_path / "tmp"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    steps = [["prepare"], *([step, "vgg_small-cam-seed0"] for step in ("train", "localize", "evaluate")), ["figures"]]
    lines = [[step, str(tmp_path / "tiny.yaml"), *run] for step, *run in steps]
    process = nameless(code, tmp, "-c", COMMANDS, json.dumps(lines))
    assert process.returncode == 0, process.stderr
    assert list((tmp / "eil-numba-54321").rglob("*.nbi"))
    assert (tmp / "results" / "tiny" / "figures" / "thresholds.png").exists()


@pytest.mark.slow
def test_the_workflow_in_a_volume(code: Path, tmp_path: Path, content: dict[str, Any]) -> None:
    volume, study = tmp_path / "volume", tmp_path / "tiny.yaml"
    study.write_text(yaml.safe_dump(content | {"methods": ["cam"], "seeds": 1}))
    arguments = ["--cores", "2", "--directory", str(volume), "-s", str(code / "Snakefile"), "--configfile", str(study)]
    process = nameless(code, tmp_path / "tmp", "-m", "snakemake", *arguments, XDG_CACHE_HOME=str(volume / ".cache"))
    assert process.returncode == 0, process.stdout + process.stderr
    assert "1 of 1 runs done, 0 failed" in process.stdout + process.stderr
    assert (volume / "results" / "tiny" / "tables" / "main.md").exists()


def test_a_cache_is_kept_where_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = tmp_path / f"eil-numba-{os.getuid()}"
    assert private_folder("numba") == private_folder("numba") == expected
    assert stat.S_IMODE(expected.stat().st_mode) == 0o700
    expected.chmod(0o777)
    other = private_folder("numba")
    assert other != expected
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    expected.rmdir()
    expected.symlink_to(tmp_path)
    assert private_folder("numba") not in (expected, tmp_path)
