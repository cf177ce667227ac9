"""Maps drawn where their cells look."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from conftest import SMOKE

from eil.core.cell_grid import CellGrid
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.run import Run
from eil.data import cache
from eil.evaluation import evaluate, iou_curves, maps, protocols, score
from eil.study.study import parse

GRID, ALIGNED = protocols.find("val-threshold"), protocols.find("val-threshold-aligned")
SIDE = 32


@pytest.mark.parametrize(("kind", "flag"), [("cubic", cv2.INTER_CUBIC), ("linear", cv2.INTER_LINEAR)])
@pytest.mark.parametrize(("cells", "side"), [(14, 224), (7, 100), (1, 9), (2, 64), (28, 224)])
def test_interpolation_is_opencvs_where_cells_look_where_it_draws_them(
    kind: Literal["cubic", "linear"], flag: int, cells: int, side: int
) -> None:
    m = np.random.default_rng(cells).normal(size=(cells, cells))
    drawn = CellGrid.half_pixel(m.shape, side)
    weights = maps.interpolation_weights(cells, side, drawn.origin[0], drawn.stride[0], kind)
    np.testing.assert_allclose(weights @ m @ weights.T, cv2.resize(m, (side, side), interpolation=flag), atol=1e-5)


@pytest.mark.parametrize("shift", [(5.0, 0.0), (-3.0, 8.0)])
def test_cells_that_look_elsewhere_move_the_map_there(shift: tuple[float, float]) -> None:
    """By whole pixels exactly; beyond the outermost cells their values go on."""
    m = np.random.default_rng(0).random((8, 8))
    m[0, 0], m[7, 7] = 0, 1  # neither the lowest nor the highest value leaves the frame
    at = CellGrid.half_pixel(m.shape, SIDE)
    moved = CellGrid((at.origin[0] + shift[0], at.origin[1] + shift[1]), at.stride)
    drawn = maps._resized(m, SIDE, ALIGNED, moved)
    weights = [maps.interpolation_weights(8, 3 * SIDE, origin + SIDE, 4, "cubic") for origin in at.origin]
    large = weights[0] @ m @ weights[1].T  # the map and what is around it
    rows, columns = (slice(SIDE - round(by), 2 * SIDE - round(by)) for by in shift)
    np.testing.assert_allclose(drawn, large[rows, columns], atol=1e-12)
    assert maps.prepared(m, SIDE, ALIGNED, moved).max() == 1


def test_the_alignment_grid_takes_no_notice_of_cells() -> None:
    m, cells = np.random.default_rng(0).random((7, 7)), CellGrid((0.0, 0.0), (4.0, 4.0))
    np.testing.assert_array_equal(maps.prepared(m, SIDE, GRID, cells), maps.prepared(m, SIDE, GRID))
    assert not np.array_equal(maps.prepared(m, SIDE, ALIGNED, cells), maps.prepared(m, SIDE, GRID))


def test_maps_whose_cells_nobody_knows_are_refused(tmp_path: Path) -> None:
    for act in (
        lambda: maps.prepared(np.eye(4), SIDE, ALIGNED),
        lambda: score.MaxBoxAcc("val-threshold-aligned", SIDE),
        lambda: iou_curves.cells_for(ALIGNED, {}, tmp_path / "maps.npz"),
    ):
        with pytest.raises(InputError, match="alignment is receptive_field, and these maps do not say where"):
            act()
    assert iou_curves.cells_for(GRID, {}, tmp_path / "maps.npz") is None


def test_max_box_acc_draws_maps_where_their_cells_look() -> None:
    """A block of 4 x 4 cells of stride 4: from cell 2 at 4 n + 3.5 it is the box 10 to 25; at 4 n + 1.5 it is not."""
    m = np.zeros((8, 8))
    m[2:6, 2:6] = 1
    for origin, least, most in ((3.5, 0.85, 1), (1.5, 0.5, 0.75)):
        metric = score.MaxBoxAcc("val-threshold-aligned", SIDE, CellGrid((origin, origin), (4.0, 4.0)))
        metric.update(m[None], [np.array([[10.0, 10, 25, 25]])])
        assert least <= metric.image_results().curve.max() <= most


def test_published_protocols_have_the_content_that_they_had() -> None:
    """Snakemake and curves.npz compare it: results made before there was an alignment stay current."""
    before = {
        "val-threshold": "c5d812539f805b85",
        "wsoleval-v1": "6300122da088b62c",
        "wsoleval-v2": "2d6371991b870d13",
        "eil-code": "b311f37c6f2fff8f",
        "acol-legacy": "34de9efbd66139f9",
        "ts-cam": "766b955820d2b218",
    }
    for name, digest in before.items():
        content = protocols.find(name).model_dump_json(exclude={"source"})
        assert hashlib.sha256(content.encode()).hexdigest()[:16] == digest
    assert json.loads(ALIGNED.model_dump_json())["alignment"] == "receptive_field"


def test_curves_depend_on_cells_only_where_the_protocol_does() -> None:
    arrays: dict[str, Any] = {"test_maps": np.zeros((1, 2, 2))}
    first, second = (arrays | CellGrid((k, k), (4.0, 4.0)).arrays() for k in (0.0, 1.5))
    marks = [iou_curves.curves_key(found, {}, SIDE, GRID) for found in (arrays, first, second)]
    assert len(set(marks)) == 1
    assert iou_curves.curves_key(first, {}, SIDE, ALIGNED) != iou_curves.curves_key(second, {}, SIDE, ALIGNED)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"cell_origin": np.zeros(2)},
        {"cell_origin": np.zeros(3), "cell_stride": np.ones(2)},
        {"cell_origin": np.zeros(2), "cell_stride": np.zeros(2)},
        {"cell_origin": np.array([0, np.nan]), "cell_stride": np.ones(2)},
        {"cell_origin": np.zeros(2), "cell_stride": np.ones(2, int)},
    ],
)
def test_spoilt_cells_are_refused(spoilt: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"maps\.npz: its cell_origin and cell_stride must be two finite numbers"):
        CellGrid.of_arrays(spoilt, "maps.npz")


def test_a_run_localized_before_there_were_cells_is_refused_by_name(images: Path, tmp_path: Path) -> None:
    run: Run = next(run for run in parse(SMOKE | {"controls": ["centred_box"]}, "x").runs() if run.control)
    made: dict[str, Any] = {"examples": np.array([0])}
    made |= {f"made_from_{what}": np.array(value) for what, value in cache.fingerprints(images)._asdict().items()}
    for name in ("val", "test"):
        count = len(cache.open_split(images, name).ids)
        made[f"{name}_maps"] = np.random.default_rng(0).random((count, 8, 8)).astype(np.float32)
        made[f"{name}_logits"] = np.zeros((count, 2), np.float32)
    write_arrays(tmp_path / "maps.npz", made)
    names = ["val-threshold", "val-threshold-aligned"]
    with pytest.raises(InputError, match=r"maps\.npz: the protocol's alignment is receptive_field"):
        evaluate.evaluate(run, images, tmp_path, names)
    assert not (tmp_path / "record.json").exists()
    write_arrays(tmp_path / "maps.npz", made | CellGrid((1.5, 1.5), (4.0, 4.0)).arrays())
    record = evaluate.evaluate(run, images, tmp_path, names)
    # The cells look where the grid draws them, so that the two protocols agree in every score.
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for row in record.scores:
        if row.split == "test" and row.threshold_from == "val" and not row.subset:
            values[row.protocol][row.metric] = row.value
    assert values[names[1]].items() <= values[names[0]].items()
    assert "gt_known_loc" in values[names[1]]
    assert read_arrays(tmp_path / "curves.npz")["test_curve"].shape == (8, 255)
