"""What is drawn, exported and counted as an error is the box that is scored, in every protocol."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from eil.evaluation import boxes, errors, example_images, maps, metrics, protocols
from eil.evaluation.protocols import Protocol
from eil.report import example_figures

SIDE = 32
# Every protocol, and every box end, contour rule and IoU beyond those that they have.
ALL = protocols.read() | {
    f"{contours} {end} {iou}": Protocol(source="x", contours=contours, box_end=end, iou=iou, empty=(0, 0, 1, 1))
    for contours in ("all", "largest", "union")
    for end in ("x+w, clipped", "x+w", "x+w-1")
    for iou in ("inclusive", "continuous")
}


def two_blobs(side: int = SIDE) -> np.ndarray:
    """A large blob in one corner and a small one in the other, with a gap between."""
    image = np.zeros((side, side), np.uint8)
    image[4:14, 4:14], image[22:27, 24:29] = 200, 255
    return image


def maps_of(seed: int, cells: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((cells, cells))
    m = cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return (255 * (m - m.min()) / (m.max() - m.min())).astype(np.uint8)


def require_same(image: np.ndarray, true: np.ndarray, protocol: Protocol) -> None:
    curve = boxes.iou_curve(image, true, protocol.contours, protocol.box_convention)
    for threshold in range(255):
        found = boxes.predicted_boxes(image, threshold, protocol)
        assert len(found) == 1 or protocol.contours == "all"
        assert boxes.best_ious(found, true, protocol.box_convention).max() == curve[threshold]
        counted = boxes.scored_box(found, true, protocol.box_convention)
        assert boxes.best_ious(counted, true, protocol.box_convention).tolist() == [curve[threshold]]


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**31), cells=st.sampled_from([2, 4, 8, 24]))
def test_predicted_boxes_have_the_iou_that_is_scored(name: str, seed: int, cells: int) -> None:
    corners = np.random.default_rng(seed + 1).integers(0, SIDE, (2, 2, 2)).astype(float)
    true = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    require_same(maps_of(seed, cells), true, ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_predicted_boxes_of_two_blobs(name: str) -> None:
    require_same(two_blobs(), np.array([[4.0, 4, 28, 26]]), ALL[name])
    require_same(two_blobs(), np.array([[24.0, 22, 28, 26], [0, 0, 3, 3]]), ALL[name])


def test_boxes_by_hand() -> None:
    image = two_blobs()
    expected = {
        "eil-code": [[4, 4, 28, 26]],  # all that is above, to the last pixel
        "val-threshold": [[4, 4, 14, 14]],  # the larger blob, to x + w
        "wsoleval-v2": [[24, 22, 29, 27], [4, 4, 14, 14]],  # both
    }
    for name, found in expected.items():
        assert boxes.predicted_boxes(image, 38, protocols.find(name)).tolist() == found
    edge = np.zeros((8, 8), np.uint8)
    edge[4:, 4:] = 9
    ends = {"x+w, clipped": 7, "x+w": 8, "x+w-1": 7}
    for end, last in ends.items():
        protocol = protocols.find("val-threshold").model_copy(update={"box_end": end})
        assert boxes.predicted_boxes(edge, 0, protocol).tolist() == [[4, 4, last, last]]
    assert boxes.predicted_boxes(edge, 100, protocols.find("ts-cam")).tolist() == [[0, 0, 1, 1]]


def split_of(true: list[np.ndarray]) -> Any:
    count = len(true)
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    return SimpleNamespace(ids=[str(k) for k in range(count)], images=images, boxes=true)


def drawn(found: dict[str, Any]) -> list[tuple[str, str, tuple[float, ...]]]:
    """Colour, line and corners of each box in the panel of the map."""
    run = SimpleNamespace(repetition=0)
    record = SimpleNamespace(run=run, protocol="val-threshold", threshold_from={"val-threshold": "val"})
    cell: Any = SimpleNamespace(method="cam", label="cam", backbone="vgg", records=[record], extractor=None)
    figure = example_figures.qualitative({_Hashable(cell): found})
    rows = []
    for patch in figure.axes[1].patches:
        assert isinstance(patch, Rectangle)
        x, y = patch.get_xy()
        corners = (x + 0.5, y + 0.5, x + patch.get_width() - 0.5, y + patch.get_height() - 0.5)
        rows.append((to_hex(patch.get_edgecolor()), str(patch.get_linestyle()), corners))
    plt.close(figure)
    return rows


class _Hashable:
    """Stands for a cell."""

    def __init__(self, content: Any) -> None:
        self.__dict__.update(vars(content))


@pytest.mark.parametrize("name", ["eil-code", "val-threshold", "wsoleval-v2", "ts-cam"])
def test_the_picture_shows_the_box_that_scored(name: str) -> None:
    """With eil-code the map scores 1 of the union; the largest contour's box has 0.2 and was drawn."""
    protocol = protocols.find(name)
    true = np.array([[0.0, 0, 1, 1], [4, 4, 28, 26]])
    score_map = two_blobs().astype(np.float32)
    found = example_images.example_arrays(
        [maps.to_8_bit(score_map, SIDE, protocol)], split_of([true]), protocol, 38, [0]
    )
    curve = boxes.iou_curve(two_blobs(), true, protocol.contours, protocol.box_convention)
    assert boxes.best_ious(found["predicted"], found["true"], protocol.box_convention).tolist() == [curve[38]]
    assert found["true"].tolist() == [[4, 4, 28, 26]]  # not the first, but the one that is found
    assert found["further_true"].tolist() == [[0, 0, 1, 1]]
    if name == "eil-code":
        assert found["predicted"].tolist() == [[4, 4, 28, 26]]
        assert curve[38] == 1
    rows = drawn(found)
    solid = [row for row in rows if row[1] == "solid"]
    assert solid == [
        (example_figures.TRUE_BOX, "solid", (4, 4, 28, 26)),
        (example_figures.PREDICTED_BOX, "solid", tuple(found["predicted"][0])),
    ]
    thin = [row[2] for row in rows if row[1] == "--" and row[0] == example_figures.PREDICTED_BOX]
    assert thin == ([(24, 22, 29, 27)] if name == "wsoleval-v2" else [])


def test_of_a_map_without_contrast_no_box_is_drawn() -> None:
    protocol, true = ALL["val-threshold"], np.array([[4.0, 4, 28, 26]])
    images = [maps.to_8_bit(each, SIDE, protocol) for each in (np.full((SIDE, SIDE), 0.1), two_blobs())]
    found = example_images.example_arrays(images, split_of([true, true]), protocol, 38, [0, 1])
    assert np.isnan(found["predicted"][0]).all()
    assert found["predicted"][1].tolist() == [4, 4, 14, 14]
    assert [row[0] for row in drawn(found)] == [example_figures.TRUE_BOX]


@pytest.mark.parametrize("name", list(protocols.read()))
def test_the_error_table_counts_what_is_scored(name: str) -> None:
    """Correct is what GT-known Loc counts, but for IoUs of exactly one half."""
    protocol = protocols.find(name)
    rng = np.random.default_rng(0)
    images = [maps_of(k, 4) for k in range(60)] + [np.zeros((SIDE, SIDE), np.uint8)]
    corners = rng.integers(0, SIDE, (61, 2, 2)).astype(float)
    true = [np.concatenate([own.min(axis=0), own.max(axis=0)])[None] for own in corners]
    curves = boxes.iou_curves(images, true, protocol.contours, protocol.box_convention)
    for threshold in (20, 90, 200):
        predicted = [
            boxes.scored_box(boxes.predicted_boxes(image, threshold, protocol), own, protocol.box_convention)
            for image, own in zip(images, true, strict=True)
        ]
        found = errors.decompose(predicted, true, np.ones(61, dtype=bool))
        correct = 100 * float((metrics.iou_at(curves, threshold) > 0.5).mean())
        assert found["box_kind_gt_known", "correct"] == pytest.approx(correct)
        assert sum(value for key, value in found.items() if key[0] == "box_kind") == pytest.approx(100)
        assert found["box_kind", "other"] > 0


def test_figures_of_earlier_runs_are_drawn() -> None:
    """examples.npz as it was before there were further boxes."""
    split = split_of([np.array([[4.0, 4, 28, 26]])])
    found = example_images.example_arrays([two_blobs()], split, ALL["val-threshold"], 38, [0])
    earlier = {key: value for key, value in found.items() if not key.startswith("further")}
    assert len(drawn(earlier)) == 2
