"""Boxes and metrics against slow oracles that share none of their code."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from eil.evaluation import boxes, metrics
from eil.evaluation.metrics import Scores, Thresholds
from eil.files import InputError


def random_map(seed: int, cells: int, side: int = 24) -> np.ndarray:
    """From smooth (few cells) to rough (many), with its extremes at 0 and 255."""
    return boxes.to_8_bit(np.random.default_rng(seed).normal(size=(cells, cells)), side)


def counted_iou(a: list[float], b: list[float]) -> float:
    """Inclusive pixels as sets."""

    def pixels(box: list[float]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}

    return len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))


def labelled_boxes(foreground: np.ndarray) -> set[tuple[int, int, int, int]]:
    """Boxes of 8-connected foreground and of 4-connected holes grown by a pixel, x + w clipped, by scipy."""
    height, width = foreground.shape
    found = []
    for rows, columns in ndimage.find_objects(ndimage.label(foreground, np.ones((3, 3)))[0]):
        found.append((columns.start, rows.start, columns.stop, rows.stop))
    background = ndimage.label(~foreground)[0]
    for rows, columns in ndimage.find_objects(background):
        touches = rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        if not touches:
            found.append((columns.start - 1, rows.start - 1, columns.stop + 1, rows.stop + 1))
    return {(x0, y0, min(x1, width - 1), min(y1, height - 1)) for x0, y0, x1, y1 in found} or {(0, 0, 0, 0)}


def literal_curves(image: np.ndarray, true: np.ndarray) -> dict[int, tuple[float, float]]:
    """The benchmark's loop: 1,000 thresholds, each a fresh look at the map; level -> best, largest."""
    found = {}
    height, width = image.shape
    for tau in np.arange(0, 1, 0.001):
        level = int(tau * image.max())
        binary = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        estimated = []
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            estimated.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        largest = estimated[int(np.argmax([cv2.contourArea(c) for c in contours]))] if contours else [0, 0, 0, 0]
        best = max(counted_iou(box, t) for box in estimated or [[0, 0, 0, 0]] for t in true.tolist())
        found[level] = (best, max(counted_iou(largest, t) for t in true.tolist()))
    return found


@st.composite
def any_map(draw: st.DrawFn) -> np.ndarray:
    """Smooth, rough, flat, holed, two-valued, one-pixel and thin maps, whose features touch the border or do not."""
    height, width, seed = draw(st.integers(1, 22)), draw(st.integers(1, 22)), draw(st.integers(0, 2**31))
    kind = draw(st.sampled_from(["noise", "few", "smooth", "blurred", "flat", "holes", "pixel", "rings"]))
    rng = np.random.default_rng(seed)
    noise = rng.random((height, width))
    if kind == "noise":
        found = noise * 255
    elif kind == "few":
        found = rng.integers(0, 4, noise.shape) * 80
    elif kind == "smooth":
        found = 255 * cv2.resize(rng.random((4, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == "blurred":
        found = 255 * cv2.GaussianBlur(noise, (0, 0), 2)
    elif kind == "flat":
        found = np.full(noise.shape, rng.integers(0, 256))
    elif kind == "holes":
        found = 255 * (noise < 0.65)
    elif kind == "pixel":
        found = np.zeros(noise.shape)
        found[rng.integers(height), rng.integers(width)] = 200
    else:
        y, x = np.mgrid[:height, :width] - rng.integers(0, 20, 2)[:, None, None]
        found = 127 + 120 * np.sin(np.hypot(y, x))
    return np.clip(found, 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=1500)
@given(any_map(), st.integers(0, 2**31))
def test_curves_equal_opencvs_contours_at_every_level(image: np.ndarray, seed: int) -> None:
    height, width = image.shape
    corners = np.random.default_rng(seed).integers(0, [width, height, width, height], (2, 4)).astype(float)
    true = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    found = [boxes.iou_curve(image, true, contours) for contours in ("all", "largest")]
    for level in range(255):
        candidates, areas = boxes.boxes_at(image, level)
        overlaps = boxes.iou(candidates, true).max(axis=1)
        assert found[0][level] == overlaps.max()
        assert found[1][level] == overlaps[areas.argmax()]


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4, 8, 16]))
def test_curves_equal_the_literal_loop_over_a_thousand_thresholds(seed: int, cells: int) -> None:
    image = random_map(seed, cells)
    true = np.array([[3, 2, 15, 17], [10, 10, 23, 23]], dtype=float)
    every, largest = (boxes.iou_curve(image, true, contours) for contours in ("all", "largest"))
    expected = literal_curves(image, true)
    assert image.max() == 0 or set(expected) == set(range(255))
    for level, (best, of_largest) in expected.items():
        assert every[level] == pytest.approx(best)
        assert largest[level] == pytest.approx(of_largest)


def test_threads_change_nothing() -> None:
    images = [random_map(seed, 8) for seed in range(20)]
    true = [np.array([[3.0, 2.0, 15.0, 12.0 + k % 5]]) for k in range(20)]
    for contours in ("all", "largest"):
        alone = np.stack([boxes.iou_curve(image, own, contours) for image, own in zip(images, true, strict=True)])
        assert np.array_equal(boxes.iou_curves(images, true, contours, threads=4), alone)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**31), st.sampled_from([2, 4, 8, 24]), st.integers(0, 254))
def test_boxes_equal_labelled_components_and_holes(seed: int, cells: int, level: int) -> None:
    image = random_map(seed, cells)
    assert {tuple(map(int, box)) for box in boxes.boxes_at(image, level)[0]} == labelled_boxes(image > level)


def test_a_hole_is_a_box_of_its_own() -> None:
    image = np.full((16, 16), 255, np.uint8)
    image[5:9, 4:12] = 0
    found = {tuple(map(int, box)) for box in boxes.boxes_at(image, 100)[0]}
    assert found == {(0, 0, 15, 15), (3, 4, 13, 10)}


corner = st.integers(0, 12)


@given(st.tuples(corner, corner, corner, corner), st.tuples(corner, corner, corner, corner))
def test_iou_equals_counted_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    first, second = ([*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])] for box in (a, b))
    expected = counted_iou(first, second)
    assert boxes.iou(np.array([first], float), np.array([second], float))[0, 0] == pytest.approx(expected)


def test_resize_comes_before_normalisation() -> None:
    score_map = np.random.default_rng(0).normal(size=(4, 4))
    resized = cv2.resize(score_map, (20, 20), interpolation=cv2.INTER_CUBIC)
    expected = np.floor(255 * (resized - resized.min()) / (resized.max() - resized.min()))
    image = boxes.to_8_bit(score_map, 20)
    assert (image.min(), image.max()) == (0, 255)
    np.testing.assert_array_equal(image, expected)


def test_a_constant_map_has_no_foreground() -> None:
    image = boxes.to_8_bit(np.full((3, 3), 7.0), 12)
    assert image.max() == 0
    true = np.array([[0.0, 0, 11, 11]])
    every, largest = (boxes.iou_curve(image, true, contours) for contours in ("all", "largest"))
    assert set(every) == set(largest) == {1 / 144}  # the box (0, 0, 0, 0) is one pixel


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        boxes.to_8_bit(np.array([[0.0, bad], [1.0, 2.0]]), 8)


def scores(seed: int, count: int = 9) -> Scores:
    rng = np.random.default_rng(seed)
    every, largest = np.round(rng.random((2, count, 255)), 1)  # rounded, so that 0.3, 0.5 and 0.7 occur
    top1 = rng.random(count) < 0.6
    return Scores(every, largest, top1, top1 | (rng.random(count) < 0.5))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31))
def test_metrics_equal_loops_over_images(seed: int) -> None:
    found = scores(seed)
    chosen = metrics.choose(found)

    def share(hits: list[bool]) -> float:
        return 100 * sum(hits) / len(hits)

    def best(curves: np.ndarray, iou: float) -> tuple[float, int]:
        rates = [share([curve[level] >= iou for curve in curves]) for level in range(255)]
        return max(rates), rates.index(max(rates))

    located = [curve[best(found.largest, 0.5)[1]] >= 0.5 for curve in found.largest]
    result = metrics.metrics(found, chosen)
    assert chosen == Thresholds(
        best(found.largest, 0.5)[1], tuple(best(found.every, iou)[1] for iou in (0.3, 0.5, 0.7))
    )
    assert result["gt_known_loc"] == pytest.approx(best(found.largest, 0.5)[0])
    assert result["max_box_acc_v2"] == pytest.approx(sum(best(found.every, iou)[0] for iou in (0.3, 0.5, 0.7)) / 3)
    assert result["max_box_acc_v2_30"] == pytest.approx(best(found.every, 0.3)[0])
    assert result["top1_loc"] == pytest.approx(share([a and b for a, b in zip(located, found.top1, strict=True)]))
    assert result["top5_loc"] == pytest.approx(share([a and b for a, b in zip(located, found.top5, strict=True)]))
    assert result["top1_cls"] == pytest.approx(share(list(found.top1)))
    assert result["top1_loc"] <= result["top5_loc"] <= result["gt_known_loc"]


@given(st.integers(0, 2**31))
def test_no_threshold_beats_the_oracle(seed: int) -> None:
    val, test = scores(seed), scores(seed + 1)
    transferred, oracle = (metrics.metrics(test, metrics.choose(source)) for source in (val, test))
    for name in ("gt_known_loc", "max_box_acc_v2"):
        assert transferred[name] <= oracle[name]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_top_k_equals_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(7, 6)), rng.integers(0, 6, 7)
    expected = [label in sorted(range(6), key=lambda c: -row[c])[:k] for row, label in zip(logits, labels, strict=True)]
    assert metrics.in_top(logits, labels, k).tolist() == expected


def test_constant_logits_are_no_right_answer() -> None:
    assert not metrics.in_top(np.zeros((2, 4)), np.array([0, 3]), 1).any()


@given(st.integers(0, 2**31), st.integers(0, 254))
def test_part_coverage_equals_counting(seed: int, level: int) -> None:
    rng = np.random.default_rng(seed)
    image, parts = rng.integers(0, 256, (6, 6), dtype=np.uint8), rng.integers(0, 3, (6, 6), dtype=np.uint8)
    found = metrics.part_coverage(image, parts, level, 3)
    for part in (1, 2):
        pixels = [image[y, x] > level for y in range(6) for x in range(6) if parts[y, x] == part]
        assert found[part - 1] == pytest.approx(sum(pixels) / len(pixels)) if pixels else np.isnan(found[part - 1])
    assert np.isnan(found[2])
