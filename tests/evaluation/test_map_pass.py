"""Each map is resized and normalised once per protocol, and what reads it later reads the same 8-bit map."""

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMOKE

from eil.core.cell_grid import CellGrid
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Run
from eil.data import cache
from eil.evaluation import boxes, evaluate, iou_curves, map_pass, maps, masks, metrics, protocols, score
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.map_pass import ImageFile
from eil.study.study import parse

SIDE = 32
CELLS = CellGrid((3.0, 1.5), (4.0, 4.5))


@pytest.fixture
def control(images: Path, tmp_path: Path) -> Run:
    """A control's run with random maps, two views among them, one map without contrast."""
    run = next(run for run in parse(SMOKE | {"controls": ["centred_box"]}, "x").runs() if run.control)
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {"examples": np.array([0, 5]), "extra_erased": rng.random((2, 7, 7))}
    made |= CELLS.arrays()
    made |= {f"made_from_{what}": np.array(value) for what, value in cache.fingerprints(images)._asdict().items()}
    for name in ("val", "test"):
        count = len(cache.open_split(images, name).ids)
        made[f"{name}_maps"] = rng.random((count, 7, 7)).astype(np.float32)
        made[f"{name}_logits"] = rng.normal(size=(count, 2)).astype(np.float32)
    made["test_maps"][3] = 0.5
    write_arrays(tmp_path / "maps.npz", made)
    return run


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The normaliser of every map that is prepared from now on."""
    calls: list[str] = []
    made = maps.prepared

    def counted(score_map: Any, side: int, protocol: protocols.Protocol, cells: CellGrid | None = None) -> Any:
        calls.append(protocol.interpolation)
        return made(score_map, side, protocol, cells)

    monkeypatch.setattr(maps, "prepared", counted)
    return calls


def test_each_map_is_prepared_once_per_protocol(
    control: Run, images: Path, tmp_path: Path, prepared: list[str]
) -> None:
    """6 maps of val, 8 of test, and 2 views by the record's own protocol; 14 by the other one."""
    first = evaluate.evaluate(control, images, tmp_path, ["val-threshold"])
    assert prepared == ["cubic"] * 16
    prepared.clear()
    assert (
        evaluate.evaluate(control, images, tmp_path, ["val-threshold", "ts-cam"]).scores[: len(first.scores)]
        == first.scores
    )
    assert sorted(prepared) == ["cubic"] * 16 + ["linear"] * 14
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.npz", "examples.npz", "maps.npz", "record.json"]


@pytest.mark.parametrize("name", list(protocols.read()))
def test_the_record_equals_what_single_maps_give(name: str, control: Run, images: Path, tmp_path: Path) -> None:
    """Curves, pixel scores, coverage and examples of one pass equal those of each map alone."""
    protocol, arrays = protocols.find(name), read_arrays(tmp_path / "maps.npz")
    record = evaluate.evaluate(control, images, tmp_path, [name])
    test = cache.open_split(images, "test")
    assert test.masks is not None
    kept, shown = read_arrays(tmp_path / "curves.npz"), read_arrays(tmp_path / "examples.npz")
    threshold = round(record.value(ScoreKey("threshold")) or 0)
    pixels, covered = masks.PixelHistogram(), []
    for i, score_map in enumerate(arrays["test_maps"]):
        image = maps.to_8_bit(score_map, SIDE, protocol, CELLS)
        curve = boxes.iou_curve(image, test.boxes[i], protocol.contours, protocol.box_convention)
        np.testing.assert_array_equal(kept["test_curve"][i], curve.astype(np.float32))
        assert kept["test_otsu"][i] == maps.otsu(image)
        pixels.add(maps.prepared(score_map, SIDE, protocol, CELLS), test.masks[i])
        covered.append(masks.part_coverage(image, test.masks[i], threshold, 6))
        if i in arrays["examples"]:
            np.testing.assert_array_equal(shown["maps"][arrays["examples"].tolist().index(i)], image)
    assert record.value(ScoreKey("px_ap")) == pixels.average_precision()
    shares = [record.value(ScoreKey("part_coverage", part)) for part in record.subsets("part_coverage")]
    assert shares == pytest.approx((100 * np.nanmean(covered, axis=0)).tolist())
    located = protocol.hits(metrics.iou_at(kept["test_curve"], threshold), 0.5)
    assert record.value(ScoreKey("gt_known_loc")) == 100 * located.mean()


def test_a_protocol_with_the_same_boxes_computes_no_curve_again(
    control: Run, images: Path, tmp_path: Path, prepared: list[str]
) -> None:
    """v1 has the boxes of val-threshold's MaxBoxAcc, v2 those of its MaxBoxAccV2; eil-code has boxes of its own."""
    names = ["val-threshold", "wsoleval-v1", "wsoleval-v2", "eil-code"]
    together = evaluate.evaluate(control, images, tmp_path, names)
    assert len(prepared) == 16 + 14
    for name in names:
        alone = evaluate.evaluate(control, images, tmp_path, [name])
        rows = [
            each for each in alone.scores if (each.protocol, each.threshold_from) == (name, alone.threshold_from[name])
        ]
        found = {(each.metric, each.subset): each.value for each in rows if each.split == "test"}
        shared = [each for each in together.scores if (each.protocol, each.split) == (name, "test")]
        shared = [each for each in shared if each.threshold_from == alone.threshold_from[name]]
        assert len(shared) >= 3
        assert all(found[each.metric, each.subset] == each.value for each in shared)


def test_reused_curves_are_those_that_the_maps_give() -> None:
    rng = np.random.default_rng(0)
    score_maps, ids = rng.random((4, 7, 7)), list("abcd")
    true = [np.array([[3.0, 2, 20, 25 + k]]) for k in range(4)]
    made = {}
    for name, protocol in protocols.read().items():
        curves = IouCurves(protocol, SIDE, CELLS)
        curves.update(score_maps, true, ids)
        made[name] = curves.arrays()
    pairs = 0
    for by, other in itertools.permutations(made, 2):
        found = iou_curves.reused_curves(protocols.find(other), made[by], protocols.find(by))
        if found is not None:
            pairs += 1
            assert found.keys() == made[other].keys()
            for key, array in made[other].items():
                np.testing.assert_array_equal(found[key], array)
    assert pairs >= 3
    for by, other in (("wsoleval-v2", "wsoleval-v1"), ("val-threshold", "val-threshold-aligned")):
        assert iou_curves.reused_curves(protocols.find(other), made[by], protocols.find(by)) is None


def test_curves_do_not_depend_on_how_maps_come() -> None:
    rng = np.random.default_rng(0)
    score_maps = rng.random((9, 7, 7))
    score_maps[4] = 0.1
    true = [np.array([[3.0, 2, 20, 25 + k % 3]]) for k in range(9)]
    ids = [str(k) for k in range(9)]
    protocol = protocols.find("val-threshold")
    whole, parts, metric = IouCurves(protocol, SIDE), IouCurves(protocol, SIDE), score.MaxBoxAcc("val-threshold", SIDE)
    whole.update(score_maps, true, ids)
    for part in (slice(0, 2), slice(2, 2), slice(2, 9)):
        parts.update(score_maps[part], true[part], ids[part])
        metric.update(score_maps[part], true[part])
    for other in (parts, metric.curves):
        assert len(other) == 9
        assert other.flat.tolist() == whole.flat.tolist() == [k == 4 for k in range(9)]
        for key, array in whole.arrays().items():
            np.testing.assert_array_equal(other.arrays()[key], array)
    assert metric.without_contrast == 1


def test_a_refused_batch_adds_nothing() -> None:
    metric = score.MaxBoxAcc("val-threshold", SIDE)
    with pytest.raises(InputError, match="NaN"):
        metric.update(np.array([[[0.0, 1]], [[0, np.nan]]]), np.array([[0.0, 0, 9, 9]] * 2))
    assert len(metric.curves) == metric.overhang.boxes == 0


def test_a_file_of_images_gives_them_back_and_leaves_nothing(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (5, 6, 6), np.uint8))
    with ImageFile(tmp_path, 6) as kept:
        kept.append(images[:2])
        np.testing.assert_array_equal(kept[1], images[1])
        kept.append(images[2:])
        assert len(kept) == 5
        np.testing.assert_array_equal(list(kept), images)
        with pytest.raises(IndexError):
            kept[5]
    assert list(tmp_path.iterdir()) == []


def test_maps_of_another_number_of_images_are_refused(images: Path) -> None:
    split = cache.open_split(images, "val")
    with pytest.raises(InputError, match="2 maps for 6 images"):
        map_pass.scan(np.ones((2, 7, 7)), split, SIDE, protocols.find("val-threshold"))


def test_the_earlier_name_of_a_protocol_is_accepted(
    control: Run, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    protocols._note_renamed.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert protocols.find("honest") is protocols.find("val-threshold")
        assert protocols.find("honest").threshold_from == "val"
    assert [record.message for record in caplog.records] == [
        "protocol honest is now called val-threshold; the old name will be removed in the next release"
    ]
    assert parse(SMOKE | {"protocols": ["ts-cam", "honest"]}, "x").protocols == ("ts-cam", "val-threshold")
    record = evaluate.evaluate(control, images, tmp_path, ["honest"])
    assert record.protocol == "val-threshold"
    assert list(evaluate.evaluate(control, images, tmp_path, ["ts-cam", "honest"]).threshold_from) == [
        "ts-cam",
        "val-threshold",
    ]
