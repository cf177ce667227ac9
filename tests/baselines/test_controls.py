"""Controls: what their maps come to as boxes, and their runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import controls
from eil.core import records, registry
from eil.core.files import InputError, read_arrays
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Run
from eil.data import cache
from eil.data.augment import Batch
from eil.evaluation import boxes, evaluate, maps, protocols
from eil.methods import base
from eil.study.study import parse
from eil.training import localize, train

SIDE = 20
VAL_THRESHOLD = protocols.find("val-threshold")
TRUE = [
    np.array([[3.0, 4.0, 11.0, 9.0]]),
    np.array([[0.0, 0.0, SIDE - 1.0, SIDE - 1.0]]),
    np.array([[2.2, 1.6, 5.4, 6.0]]),
]


def batch(count: int = 3) -> Batch:
    images = torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.arange(count) % 3, torch.arange(count), None)


@pytest.fixture
def model() -> base.Method:
    return base.build("cam", {}, "vgg_small", 3).eval()


def box_at(score_map: torch.Tensor, level: int) -> list[float]:
    """The largest contour's box of a map, x0, y0, x1, y1."""
    candidates, areas = boxes.boxes_at(maps.to_8_bit(score_map.numpy(), SIDE, VAL_THRESHOLD), level)
    return list(candidates[areas.argmax()])


def test_centred_boxes_are_squares_of_every_size(model: base.Method) -> None:
    score_map = controls.centred_box(model, batch(), TRUE)[1]
    found = {tuple(box_at(score_map, level)) for level in range(255)}
    # x1 = x0 + w is clipped to the border, as the benchmark has it.
    assert found == {(k, k, SIDE - k, SIDE - k) for k in range(1, SIDE // 2)}


def test_a_gaussian_gives_the_same_boxes(model: base.Method) -> None:
    squares, gaussian = (control(model, batch(), TRUE)[0] for control in (controls.centred_box, controls.gaussian))
    assert torch.equal(gaussian, gaussian.T)
    assert torch.equal(gaussian, gaussian.flip(0))
    found = {tuple(box_at(gaussian, level)) for level in range(255)}
    assert found <= {tuple(box_at(squares, level)) for level in range(255)} | {(0.0, 0.0, SIDE - 1.0, SIDE - 1.0)}
    assert len(found) >= SIDE // 2 - 1


def test_the_full_image_is_full_at_every_threshold(model: base.Method) -> None:
    for score_map in controls.full_image(model, batch(), TRUE):
        assert all(box_at(score_map, level) == [0, 0, SIDE - 1, SIDE - 1] for level in (0, 100, 254))


def test_the_oracle_is_the_true_box_at_every_threshold(model: base.Method) -> None:
    maps = controls.oracle_box(model, batch(), TRUE)
    for level in (0, 100, 254):
        assert box_at(maps[0], level) == [3, 4, 12, 10]
        assert box_at(maps[1], level) == [0, 0, SIDE - 1, SIDE - 1]
        assert box_at(maps[2], level) == [2, 2, 6, 7]
    overlaps = [boxes.iou(np.array([box_at(m, 0)]), true).max() for m, true in zip(maps, TRUE, strict=True)]
    assert min(overlaps) > 0.65


def test_random_class_is_the_map_of_another_class(model: base.Method) -> None:
    many = batch(60)
    with torch.inference_mode():
        found = controls.random_class(model, many, [])
        of_each = torch.stack([model.maps(many.images, torch.full((60,), c))[1] for c in range(3)])
        again = controls.random_class(model, many, [])
    assert torch.equal(found, again)
    drawn = [int(((of_each[:, i] - found[i]).abs().amax(dim=(1, 2))).argmin()) for i in range(60)]
    assert all(torch.allclose(of_each[c, i], found[i], atol=1e-6) for i, c in enumerate(drawn))
    labels = many.labels.tolist()
    assert all(c != label for c, label in zip(drawn, labels, strict=True))
    assert {(label, c) for c, label in zip(drawn, labels, strict=True)} == {
        (a, b) for a in range(3) for b in range(3)
    } - {(a, a) for a in range(3)}


@pytest.fixture
def controlled(content: dict[str, Any]) -> dict[str, Run]:
    """The runs of a study of CAM with every control, one repetition."""
    content |= {"methods": {"cam": {}}, "seeds": 1}
    del content["controls"]
    return {run.name: run for run in parse(content, "x").runs()}


def test_a_study_has_every_control_unless_told_otherwise(controlled: dict[str, Run], content: dict[str, Any]) -> None:
    names = [f"vgg_small-cam-{name}-seed0" for name in registry.available(registry.CONTROLS)]
    assert list(controlled) == ["vgg_small-cam-seed0", *names]
    assert len({run.key for run in controlled.values()}) == len(controlled)
    assert {run.training_run.name for run in controlled.values()} == {"vgg_small-cam-seed0"}
    content["controls"] = ["full_image"]
    assert len(parse(content, "x").runs()) == 2
    content["controls"] = ["full_image", "empty"]
    with pytest.raises(InputError, match=r"x: controls\[1\] = empty: must be one of centred_box, full_image"):
        parse(content, "x").expand("x")


def test_controls_borrow_the_first_methods_first_settings(content: dict[str, Any]) -> None:
    content |= {"controls": ["gaussian"], "methods": {"eil": {"gamma": [0.6, 0.8]}, "cam": {}}}
    names = [run.name for run in parse(content, "x").expand("x")[0] if run.control]
    assert names == ["vgg_small-eil-gamma0.6-gaussian-seed0", "vgg_small-eil-gamma0.6-gaussian-seed1"]


def test_a_controls_run_has_the_networks_logits_and_its_own_maps(
    controlled: dict[str, Run], images: Path, tmp_path: Path
) -> None:
    own = controlled["vgg_small-cam-seed0"]
    train.train(own, images, tmp_path / own.name)
    found = {}
    for name, run in controlled.items():
        localize.localize(run, images, tmp_path / name)
        found[run.control] = evaluate.evaluate(run, images, tmp_path / name)
    cam = found[None]
    logits = read_arrays(tmp_path / own.name / "maps.npz")["test_logits"]
    for name, run in controlled.items():
        np.testing.assert_array_equal(read_arrays(tmp_path / name / "maps.npz")["test_logits"], logits)
        record = records.read(tmp_path / name / "record.json")
        assert record.value(ScoreKey("top1_cls")) == cam.value(ScoreKey("top1_cls"))
        assert (record.training == {}) == (run.control is not None)
    oracle = found["oracle_box"]
    assert oracle.value(ScoreKey("gt_known_loc")) == 100
    assert oracle.value(ScoreKey("top1_loc")) == oracle.value(ScoreKey("top1_cls"))
    # An independent count of what the whole image scores.
    test = cache.open_split(images, "test")
    whole = [boxes.iou(np.array([[0, 0, 31, 31]]), true).max() >= 0.5 for true in test.boxes]
    assert found["full_image"].value(ScoreKey("gt_known_loc")) == pytest.approx(100 * np.mean(whole))


def test_a_control_cannot_be_trained(controlled: dict[str, Run], images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no training of its own; it takes the network of vgg_small-cam-seed0"):
        train.train(controlled["vgg_small-cam-gaussian-seed0"], images, tmp_path)
