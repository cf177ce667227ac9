"""Steps that the process of a training does ahead: their results are those of the steps themselves, or not used."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from miniatures import SMOKE

from eil.commands import cli, steps
from eil.core.files import read_arrays
from eil.execution import ahead

CAM, CONTROL = "vgg_small-cam-seed0", "vgg_small-cam-random_class-seed0"
NUMBERS = ("scores", "replicates", "curves")
STUDY = SMOKE | {"seeds": 1, "methods": {"cam": None}, "controls": ["random_class"]}


class Place:
    """A study in an own folder, whose steps are executed in this process."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "results" / "runs"
        self.study = folder / "study.yaml"
        self.study.write_text(yaml.safe_dump(STUDY))
        self.where = [str(self.study), "--results", str(folder / "results"), "--data", str(folder / "data")]
        assert cli.main(["prepare", *self.where]) == 0

    def step(self, name: str, run: str, *options: str) -> None:
        assert cli.main([name, self.where[0], run, *self.where[1:], *options]) == 0

    def numbers(self, run: str) -> list[object]:
        record = json.loads((self.runs / run / "record.json").read_text())
        return [record[key] for key in NUMBERS]


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    """Every step alone."""
    (tmp_path / "alone").mkdir()
    place = Place(tmp_path / "alone")
    for name, run in (("train", CAM), *((step, run) for run in (CAM, CONTROL) for step in ("localize", "evaluate"))):
        place.step(name, run)
    return place


@pytest.fixture
def trained(tmp_path: Path) -> Place:
    """A training whose process went on."""
    place = Place(tmp_path)
    place.step("train", CAM, "--ahead")
    return place


def test_steps_take_what_was_made_ahead(trained: Place, alone: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert not (trained.runs / CAM / "record.json").exists()
    for run in (CAM, CONTROL):
        for step in ("localize", "evaluate"):
            trained.step(step, run)
            assert f"{run}: {step} was done ahead" in capsys.readouterr().out
        assert not (trained.runs / run / ahead.FOLDER).exists()
        assert trained.numbers(run) == alone.numbers(run)
        here, there = (read_arrays(place.runs / run / "maps.npz") for place in (trained, alone))
        assert all(np.array_equal(here[key], there[key]) for key in there)


def test_a_step_that_was_made_ahead_loads_no_slow_module(trained: Place) -> None:
    code = "import sys; from eil.commands import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    for step in ("localize", "evaluate"):
        command = [sys.executable, "-c", code, step, trained.where[0], CAM, *trained.where[1:]]
        told, loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert told == f"{CAM}: {step} was done ahead, in the process of another step"
        assert not {"torch", "numba", "pandas", "scipy"} & set(loaded.split())


def test_other_weights_or_protocols_are_not_taken(trained: Place, capsys: pytest.CaptureFixture[str]) -> None:
    trained.step("localize", CAM)
    other = STUDY | {"protocols": ["wsoleval-v1"]}
    trained.study.write_text(yaml.safe_dump(other))
    capsys.readouterr()
    trained.step("evaluate", CAM)
    assert "ahead" not in capsys.readouterr().out
    assert json.loads((trained.runs / CAM / "record.json").read_text())["protocol"] == "wsoleval-v1"
    summary = trained.runs / CAM / "train.json"
    summary.write_text(summary.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    trained.step("localize", CONTROL)
    assert "ahead" not in capsys.readouterr().out


def test_a_failed_evaluation_leaves_the_training_done_and_puts_no_older_record_aside(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.step("localize", CAM)
    trained.step("evaluate", CAM)
    before = (trained.runs / CAM / "record.json").read_text()

    def fails(*_: object) -> None:
        raise ValueError("no evaluation")

    monkeypatch.setattr(steps, "_evaluate", fails)
    trained.step("train", CAM, "--ahead")
    assert (trained.runs / CAM / "record.json").read_text() == before
    assert sorted(path.name for path in (trained.runs / CAM / ahead.FOLDER).iterdir()) == ["localize.json", "maps.npz"]


def test_a_long_training_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LONGEST_TRAINING", 0.0)
    place = Place(tmp_path)
    place.step("train", CAM, "--ahead")
    assert not (place.runs / CAM / ahead.FOLDER).exists()
    assert (place.runs / CAM / "weights.safetensors").exists()
