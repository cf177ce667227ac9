"""The step of an extractor makes the maps of its network's other extractors; their own steps take them, or compute."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from miniatures import SMOKE

from baselines.extractors.nwc import NWC
from eil.commands import cli, steps
from eil.core.files import read_arrays, write_arrays
from eil.execution import ahead, run_lock
from eil.training import localize

CAM, GRADCAM, NWC_, LAYERCAM = (f"vgg_small-cam-{name}seed0" for name in ("", "gradcam-", "nwc-", "layercam-"))
EXTRACTORS = [GRADCAM, NWC_, LAYERCAM]
STUDY = SMOKE | {"seeds": 1, "methods": {"cam": None}, "maps": ["gradcam", "nwc", "layercam"]}


class Place:
    """A study in an own folder, whose steps are executed in this process."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "results" / "runs"
        self.study = folder / "study.yaml"
        self.where = [str(self.study), "--results", str(folder / "results"), "--data", str(folder / "data")]

    def write(self, **changes: Any) -> None:
        self.study.write_text(yaml.safe_dump(STUDY | changes))

    def step(self, name: str, run: str, *options: str) -> int:
        return cli.main([name, self.where[0], run, *self.where[1:], *options])

    def maps(self, run: str) -> bytes:
        return (self.runs / run / "maps.npz").read_bytes()

    def waits(self, run: str) -> bool:
        return (self.runs / run / ahead.FOLDER / "localize.json").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study after its training."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    place = Place(folder)
    place.write()
    assert cli.main(["prepare", *place.where]) == 0
    assert place.step("train", CAM) == 0
    return folder


@pytest.fixture(scope="module")
def alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same, with the maps that each extractor makes alone."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIL_APART", "1")
        assert all(Place(folder).step("localize", run) == 0 for run in EXTRACTORS)
    return Place(folder)


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Place:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def passes(monkeypatch: pytest.MonkeyPatch, alone: Place) -> list[list[str]]:
    """Names of the runs that are localized together, one list each time."""
    found, own = list[list[str]](), localize.localize_extractors

    def watched(runs: Any, *given: Any) -> Any:
        found.append([run.name for run in runs])
        return own(runs, *given)

    monkeypatch.setattr(localize, "localize_extractors", watched)
    return found


def test_the_first_makes_all_and_the_others_take_theirs(
    place: Place, alone: Place, passes: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    place.step("localize", GRADCAM)
    assert "ahead" not in capsys.readouterr().out
    for run in (NWC_, LAYERCAM):
        assert place.waits(run)
        assert not (place.runs / run / "maps.npz").exists()
        place.step("localize", run)
        assert f"{run}: localize was done ahead" in capsys.readouterr().out
        assert not (place.runs / run / ahead.FOLDER).exists()
    assert passes == [EXTRACTORS]
    assert all(place.maps(run) == alone.maps(run) for run in EXTRACTORS)


def test_after_a_training_all_are_localized_in_one_pass_and_evaluated(
    place: Place, alone: Place, passes: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in EXTRACTORS:  # current, since the new training ends in the same weights
        shutil.copytree(alone.runs / run, place.runs / run)
    place.step("train", CAM, "--ahead")
    assert passes == [[CAM], EXTRACTORS]
    capsys.readouterr()
    for run in (CAM, *EXTRACTORS):
        assert place.step("localize", run) == place.step("evaluate", run) == 0
    assert capsys.readouterr().out.count("was done ahead") == 2 * 4
    assert all(place.maps(run) == alone.maps(run) for run in EXTRACTORS)


def test_an_extractor_that_is_added_leaves_current_maps_as_they_are(place: Place, passes: list[list[str]]) -> None:
    for run in EXTRACTORS:
        place.step("localize", run)
    before = {run: (place.runs / run / "maps.npz").stat().st_mtime_ns for run in EXTRACTORS}
    place.write(maps=["gradcam", "nwc", "layercam", "hirescam", "pc1"])
    added = ["vgg_small-cam-hirescam-seed0", "vgg_small-cam-pc1-seed0"]
    place.step("localize", added[0])
    assert passes[1:] == [added]
    for run in EXTRACTORS:
        assert (place.runs / run / "maps.npz").stat().st_mtime_ns == before[run]
        assert not (place.runs / run / ahead.FOLDER).exists()


def test_outdated_maps_are_made_too_but_stay_until_their_own_step(place: Place, passes: list[list[str]]) -> None:
    for run in (GRADCAM, NWC_):
        place.step("localize", run)
    path = place.runs / NWC_ / "maps.npz"
    write_arrays(path, read_arrays(path) | {"made_from_sources": np.array("of earlier sources")})
    outdated = place.maps(NWC_)
    place.step("localize", GRADCAM)
    assert passes[1:] == [[GRADCAM, NWC_]]  # layercam's wait
    assert place.maps(NWC_) == outdated
    place.step("localize", NWC_)
    assert len(passes) == 2
    assert str(read_arrays(path)["made_from_sources"]) != "of earlier sources"


def test_maps_that_wait_for_other_weights_are_made_again(place: Place, alone: Place, passes: list[list[str]]) -> None:
    place.step("localize", GRADCAM)
    summary = place.runs / CAM / "train.json"
    summary.write_text(summary.read_text().replace('"seconds": ', '"seconds": 1'))
    place.step("localize", NWC_)
    assert passes[1:] == [[NWC_, LAYERCAM]]
    assert place.maps(NWC_) == alone.maps(NWC_)
    assert not (place.runs / NWC_ / ahead.FOLDER).exists()


def test_another_process_on_a_run_keeps_it_out(place: Place, passes: list[list[str]]) -> None:
    with run_lock.exclusive_if_free(place.runs / NWC_) as free:
        assert free
        place.step("localize", GRADCAM)
    assert passes == [[GRADCAM, LAYERCAM]]
    assert not (place.runs / NWC_ / ahead.FOLDER).exists()
    assert not run_lock.is_busy(place.runs / LAYERCAM)


def test_who_waits_for_another_process_takes_what_it_leaves(
    place: Place, alone: Place, passes: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    place.step("localize", GRADCAM)
    waiting, hidden = place.runs / NWC_ / ahead.FOLDER, place.runs / "hidden"
    waiting.rename(hidden)
    with run_lock.exclusive_if_free(place.runs / NWC_):
        other = threading.Thread(target=steps._taken, args=opened_run(place))
        other.start()
        other.join(0.5)
        assert other.is_alive()  # it waits
        hidden.rename(waiting)
    other.join()
    assert f"{NWC_}: localize was done ahead" in capsys.readouterr().out
    assert place.maps(NWC_) == alone.maps(NWC_)
    assert len(passes) == 1


def test_maps_that_appear_before_the_lock_is_held_are_taken(
    place: Place, alone: Place, passes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.step("localize", GRADCAM)
    monkeypatch.setattr(steps, "_taken", lambda *_: False)  # it looked too early
    place.step("localize", NWC_)
    assert len(passes) == 1
    assert place.maps(NWC_) == alone.maps(NWC_)


@pytest.mark.parametrize("why", ["storage", "time limit", "failed", "killed"])
def test_alone(place: Place, passes: list[list[str]], monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    (place.runs / GRADCAM).mkdir()
    if why == "storage":
        monkeypatch.setenv("EIL_APART", "1")
    elif why == "time limit":
        place.write(time_limit=10)
    else:
        (place.runs / GRADCAM / {"failed": "failure.json", "killed": "running.json"}[why]).write_text("{}")
    place.step("localize", GRADCAM)
    assert passes == [[GRADCAM]]
    assert not (place.runs / NWC_).exists()


def test_what_failed_before_is_left_to_its_own_step(place: Place, passes: list[list[str]]) -> None:
    (place.runs / NWC_).mkdir()
    (place.runs / NWC_ / "failure.json").write_text("{}")
    place.step("localize", GRADCAM)
    assert passes == [[GRADCAM, LAYERCAM]]


@pytest.mark.parametrize("training", [False, True])
def test_one_that_fails_fails_alone(
    place: Place, alone: Place, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    monkeypatch.setattr(NWC, "maps", lambda *_: 1 / 0)
    if training:
        assert place.step("train", CAM, "--ahead") == 0
        assert all((place.runs / run / ahead.FOLDER / "evaluate.json").exists() for run in (GRADCAM, LAYERCAM))
    for run in (GRADCAM, LAYERCAM):
        assert place.step("localize", run) == 0
        assert place.maps(run) == alone.maps(run)
    assert place.step("localize", NWC_) == 1
    assert not (place.runs / NWC_ / ahead.FOLDER).exists()
    assert json.loads((place.runs / NWC_ / "failure.json").read_text())["step"] == "localize"


def test_curves_that_a_gpu_made_go_with_the_maps(tmp_path: Path) -> None:
    waiting = tmp_path / ahead.FOLDER
    waiting.mkdir()
    for name in ("maps.npz", "curves.npz"):
        (tmp_path / name).write_text("old")
        (waiting / name).write_text("new")
    ahead.mark_ready("localize", tmp_path, {"key": "a"})
    assert not ahead.restore("localize", tmp_path, {"key": "b"})
    assert ahead.restore("localize", tmp_path, {"key": "a"})
    assert [(tmp_path / name).read_text() for name in ("maps.npz", "curves.npz")] == ["new", "new"]
    assert not waiting.exists()


def opened_run(place: Place) -> tuple[Any, ...]:
    """What :func:`eil.commands.steps.localize` looks up first for nwc's run."""
    from eil.commands.options import Folders, open_study

    folder = place.study.parent
    opened = open_study(place.study, Folders(folder / "results", folder / "data"))
    return opened, opened.study.find_run(NWC_), "localize"
