"""Extractors of one network in one pass: the files of each alone, whatever happens to another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.extractors.gradients import GradCAM
from baselines.extractors.nwc import NWC
from eil.core import source_hash
from eil.core.files import InputError, read_arrays
from eil.core.run import Run
from eil.methods import receptive_field
from eil.methods.extractor import Evidence
from eil.study.study import parse
from eil.training import localize, map_sources, train, train_step

MAPS = ["nwc", "gradcam", {"name": "layercam", "at": ["pool2", "conv4"]}, "bagcams", "pc1", "ddt"]
BATCHES = 2 + 2  # of 4 images each: 6 of val, 8 of test
Together = Callable[..., dict[str, Exception]]


@pytest.fixture
def extractors(content: dict[str, Any], images: Path, tmp_path: Path) -> list[Run]:
    """Runs of all these extractors; their network is trained."""
    content |= {"methods": {"cam": {}}, "seeds": 1, "maps": MAPS}
    own, *others = parse(content, "x").runs()
    train.train(own, images, tmp_path / own.name)
    return others


@pytest.fixture
def together(images: Path, tmp_path: Path) -> Together:
    """Localize runs in one pass, each in its folder."""

    def act(runs: list[Run], *options: Any) -> dict[str, Exception]:
        folders = {run.name: tmp_path / run.name for run in runs}
        return localize.localize_extractors(runs, images, tmp_path / runs[0].training_run.name, folders, *options)

    return act


def test_each_gets_the_file_that_it_makes_alone(
    extractors: list[Run], together: Together, images: Path, tmp_path: Path
) -> None:
    assert together(extractors) == {}
    for run in extractors:
        path = tmp_path / run.name / "maps.npz"
        made = path.read_bytes()
        path.unlink()
        localize.localize(run, images, tmp_path / run.name)
        assert path.read_bytes() == made


def test_the_network_sees_each_image_once_for_all(
    extractors: list[Run], together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, passes, located = list[Any](), list[int](), receptive_field.locate_cells

    def locate(model: Any, side: int, maps: Any) -> Any:
        measured.append(maps)
        return located(model, side, maps)

    def built(*arguments: Any) -> Any:
        model = build(*arguments)
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        first.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
        return model

    build = train_step.build
    monkeypatch.setattr(receptive_field, "locate_cells", locate)
    together(extractors)
    assert len(measured) == 4  # what the head pools, conv3 by default, pool2, conv4
    monkeypatch.setattr(map_sources, "locate_cells", lambda runs, *_: {run.name: None for run in runs})
    monkeypatch.setattr(train_step, "build", built)
    together([run for run in extractors if run.extractor and run.extractor.name != "ddt"])  # it reads training images
    assert len(passes) == BATCHES
    assert sum(passes) == 6 + 8


@pytest.mark.parametrize("meanwhile", [False, True])
def test_maps_that_are_no_numbers_are_their_own_runs_alone(
    extractors: list[Run], together: Together, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    own = NWC.maps

    def maps(self: NWC, found: Evidence) -> torch.Tensor:
        values = own(self, found)
        return values.where(found.classes[:, None, None] != 1, torch.nan)

    monkeypatch.setattr(NWC, "maps", maps)
    passes = counted(monkeypatch)
    errors = together(extractors, "val-threshold", meanwhile)
    assert {name: str(error) for name, error in errors.items()} == {
        extractors[0].name: "image val/01/0000: its map is not finite (NaN or infinite)"
    }
    assert len(passes) == 1
    for run in extractors:
        assert (tmp_path / run.name / "maps.npz").exists() == (run != extractors[0])
        assert (tmp_path / run.name / "curves.npz").exists() == (meanwhile and run != extractors[0])


def test_an_extractor_that_raises_does_not_lose_the_others_maps(
    extractors: list[Run], together: Together, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: GradCAM, found: Evidence) -> torch.Tensor:
        raise ZeroDivisionError("no gradients today")

    monkeypatch.setattr(GradCAM, "maps", fails)
    passes = counted(monkeypatch)
    (failing,) = (run for run in extractors if run.extractor and run.extractor.name == "gradcam")
    errors = together(extractors)
    assert list(errors) == [failing.name]
    assert isinstance(errors[failing.name], ZeroDivisionError)
    # Of seven, halves: gradcam is the second. Three of these passes end at their first batch.
    assert [len(chosen) for chosen in passes] == [7, 3, 1, 2, 1, 1, 4]
    arrays = {run.name: read_arrays(tmp_path / run.name / "maps.npz") for run in extractors if run != failing}
    assert len(arrays) == 6
    with pytest.raises(ZeroDivisionError, match="no gradients today"):
        localize.localize(failing, images, tmp_path / failing.name)


def test_without_weights_nobody_is_tried(
    extractors: list[Run], together: Together, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / extractors[0].training_run.name / "weights.safetensors").unlink()
    passes = counted(monkeypatch)
    with pytest.raises(InputError, match="no such file; train the run first"):
        together(extractors)
    assert not passes


def test_maps_are_current_until_what_they_were_made_from_changes(
    extractors: list[Run], together: Together, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = extractors[0]
    folder = tmp_path / run.name
    assert not localize.has_current_maps(run, images, folder)
    together([run])
    assert localize.has_current_maps(run, images, folder)
    recipe = run.recipe.model_copy(update={"learning_rate": 0.02})
    assert not localize.has_current_maps(run.model_copy(update={"recipe": recipe}), images, folder)
    monkeypatch.setattr(source_hash, "of_step", lambda *_: "other")
    assert not localize.has_current_maps(run, images, folder)
    monkeypatch.undo()
    summary = tmp_path / run.training_run.name / "train.json"
    summary.write_text(summary.read_text().replace('"weights_sha256": "', '"weights_sha256": "0'))
    assert not localize.has_current_maps(run, images, folder)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs of each pass that is begun from now on."""
    passes, source = list[Any](), map_sources.map_source
    monkeypatch.setattr(map_sources, "map_source", lambda runs, *given: (passes.append(runs), source(runs, *given))[1])
    return passes
