"""eil without a clone: installed from its wheel, a study is begun and run in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from workflows import ROOT

import eil
from eil.commands import cli
from eil.core import project_files
from eil.report import published
from eil.study.study import load

NEEDED = ["Snakefile", "environment.yml", "results/published.csv", "profiles/default/config.yaml"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_wheel_is_told_to_take_every_file_of_the_workflow() -> None:
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["eil.project"]
    taken = {path for pattern in globs for path in ROOT.glob(pattern)}
    needed = {path for path in ROOT.glob("workflow/**/*") if path.is_file() and "__pycache__" not in path.parts}
    assert len(needed) > 20
    assert needed | {ROOT / name for name in NEEDED} <= taken


def test_the_files_of_the_project_are_found_in_a_clone() -> None:
    assert project_files.folder() == ROOT
    assert eil.snakefile() == str(ROOT / "Snakefile")
    assert published.read()


def test_init_writes_a_study_that_can_be_run(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "birds_2"]) == 0
    study = load(Path("birds_2.yaml"))
    assert study.name == "birds_2"
    assert len([run for run in study.runs() if run.control is None]) == 6
    assert 'configfile: "birds_2.yaml"' in Path("Snakefile").read_text()
    assert "my_study" not in Path("Snakefile").read_text() + Path("birds_2.yaml").read_text()
    assert yaml.safe_load(Path("profiles/default/config.yaml").read_text())["keep-going"] is True
    assert "next: eil run birds_2.yaml --cores all" in capsys.readouterr().out


def test_init_overwrites_nothing(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("Snakefile").write_text("# mine\n")
    assert cli.main(["init", "first"]) == 0
    assert "Snakefile: kept as it was" in capsys.readouterr().out
    assert Path("Snakefile").read_text() == "# mine\n"
    Path("first.yaml").write_text("# edited\n")
    assert cli.main(["init", "first"]) == 1
    assert "first.yaml: exists already, expected the name of a new study" in capsys.readouterr().err
    assert Path("first.yaml").read_text() == "# edited\n"


@pytest.mark.parametrize("name", ["a/b", "..", "a b"])
def test_init_refuses_what_is_no_name_of_a_study(name: str, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", name]) == 1
    assert f"eil init {name}: name" in capsys.readouterr().err
    assert list(empty.iterdir()) == []


def test_run_says_that_there_is_no_study(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "none.yaml", "-n"]) == 1
    assert "none.yaml: no such file, expected a study; `eil init NAME` writes one" in capsys.readouterr().err


def test_run_hands_on_snakemakes_options_and_exit_code(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("name: wrong\nbackbone: [vgg_small]\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "wrong.yaml", "--cores", "1", "-n"])
    assert ended.value.code == 1
    assert "wrong.yaml: backbone: unknown" in capfd.readouterr().err


# A process whose own process says when it began, and when it was told to end.
PARENT = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]]).returncode)
"""
CHILD = """
import signal, sys, time
from pathlib import Path
def end(*_):
    Path(sys.argv[1], "ended").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
Path(sys.argv[1], "began").touch()
time.sleep(60)
"""


def test_a_run_that_is_told_to_end_tells_every_process_of_snakemakes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, CHILD, str(tmp_path)]
    code = f"import sys; from eil.commands import workflow; sys.exit(workflow._run({command!r}) != 0)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        for _ in range(600):
            if (tmp_path / "began").exists():
                break
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=30) == 1
    for _ in range(100):
        if (tmp_path / "ended").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "ended").exists()


def environment_with_the_wheel(folder: Path) -> Path:
    """Programs of an environment with eil's wheel; all else comes from the present environment."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):  # building writes beside the sources
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    quiet = ["--quiet", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", *quiet, "--no-build-isolation", "-w", str(folder), str(folder / "source")]
    subprocess.run(build, check=True, cwd=folder)
    shutil.rmtree(folder / "source")
    (wheel,) = folder.glob("eil-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"eil/project/{name}" for name in NEEDED} <= set(names)
    assert [name for name in names if name.split("/")[0] not in {"eil", "baselines"} and ".dist-info" not in name] == []
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    found = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, "--python", str(python), "install", *quiet, str(wheel)], check=True)
    return python.parent


@pytest.mark.slow
def test_three_commands_lead_from_an_empty_folder_to_tables(tmp_path: Path) -> None:
    programs, study = environment_with_the_wheel(tmp_path), tmp_path / "empty"
    study.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def ended(*command: str) -> str:
        started = [str(programs / command[0]), *command[1:]]
        done = subprocess.run(started, cwd=study, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = ended("python", "-c", "import eil; print(eil.snakefile())").strip()
    assert where.startswith(str(tmp_path / "venv"))
    ended("eil", "init", "tiny")
    content = yaml.safe_load((study / "tiny.yaml").read_text())
    content["dataset"] |= {"classes": 2, "train_per_class": 8, "val_per_class": 3, "test_per_class": 4}
    content |= {"methods": {"cam": {}}, "seeds": 1, "controls": ["centred_box"]}
    content["recipe"] |= {"epochs": 1, "batch_size": 4}
    (study / "tiny.yaml").write_text(yaml.safe_dump(content))
    told = ended("eil", "run", "tiny.yaml", "--cores", "1")
    assert "2 of 2 runs done, 0 failed" in told
    assert "| vgg_small | cam" in (study / "results/tiny/tables/main.md").read_text()
    assert (study / "results/tiny/figures/thresholds.png").exists()
    # The Snakefile in the folder is for Snakemake itself; it finds all done.
    again = subprocess.run(
        [programs / "python", "-m", "snakemake", "--cores", "1", "-n"],
        cwd=study,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Nothing to be done" in again.stdout + again.stderr
    told = ended("python", "-m", "snakemake", "--cores", "1", "--report", "report.html")
    assert (study / "report.html").stat().st_size > 100_000
