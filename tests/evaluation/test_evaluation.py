"""Boxes and metrics against slow oracles that share none of their code."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy import stats as scipy_stats

from eil.core.files import InputError
from eil.core.settings import SettingError
from eil.evaluation import boxes, errors, maps, masks, metrics, protocols, statistics
from eil.evaluation.metrics import ImageResults
from eil.evaluation.protocols import Protocol

VAL_THRESHOLD = protocols.find("val-threshold")


def random_map(seed: int, cells: int, side: int = 24) -> np.ndarray:
    """From smooth (few cells) to rough (many), with its extremes at 0 and 255."""
    return maps.to_8_bit(np.random.default_rng(seed).normal(size=(cells, cells)), side, VAL_THRESHOLD)


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
    """The benchmark's loop: 1,000 shares of the maximum; threshold -> best, largest."""
    found = {}
    height, width = image.shape
    for tau in np.arange(0, 1, 0.001):
        threshold = int(tau * image.max())
        if threshold in found:
            continue
        binary = cv2.threshold(image, threshold, 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        estimated = []
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            estimated.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        largest = estimated[int(np.argmax([cv2.contourArea(c) for c in contours]))] if contours else [0, 0, 0, 0]
        best = max(counted_iou(box, t) for box in estimated or [[0, 0, 0, 0]] for t in true.tolist())
        found[threshold] = (best, max(counted_iou(largest, t) for t in true.tolist()))
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


@settings(deadline=None, max_examples=2500)
@given(any_map(), st.integers(0, 2**31))
def test_curves_equal_opencvs_contours_at_every_threshold(image: np.ndarray, seed: int) -> None:
    height, width = image.shape
    corners = np.random.default_rng(seed).integers(0, [width, height, width, height], (2, 4)).astype(float)
    true = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    found = [boxes.iou_curve(image, true, contours) for contours in ("all", "largest")]
    starts = sorted({0, *np.unique(image[image < 255]).tolist()})  # from one to the next, the foreground is the same
    for threshold, following in pairwise([*starts, 255]):
        candidates, areas = boxes.boxes_at(image, threshold)
        overlaps = boxes.iou(candidates, true).max(axis=1)
        # A map without contrast has no box; the benchmark predicts one of a pixel, (0, 0, 0, 0).
        assert (found[0][threshold:following] == overlaps.max() * image.any()).all()
        assert (found[1][threshold:following] == overlaps[areas.argmax()] * image.any()).all()


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4, 8, 16]))
def test_curves_equal_the_literal_loop_over_a_thousand_thresholds(seed: int, cells: int) -> None:
    image = random_map(seed, cells)
    true = np.array([[3, 2, 15, 17], [10, 10, 23, 23]], dtype=float)
    every, largest = (boxes.iou_curve(image, true, contours) for contours in ("all", "largest"))
    expected = literal_curves(image, true)
    assert image.max() == 0 or set(expected) == set(range(255))
    for threshold, (best, of_largest) in expected.items():
        assert every[threshold] == pytest.approx(best)
        assert largest[threshold] == pytest.approx(of_largest)


def test_threads_change_nothing() -> None:
    images = [random_map(seed, 8) for seed in range(20)]
    true = [np.array([[3.0, 2.0, 15.0, 12.0 + k % 5]]) for k in range(20)]
    for contours in ("all", "largest"):
        alone = np.stack([boxes.iou_curve(image, own, contours) for image, own in zip(images, true, strict=True)])
        assert np.array_equal(boxes.iou_curves(images, true, contours, threads=4), alone)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**31), st.sampled_from([2, 4, 8, 24]), st.integers(0, 254))
def test_boxes_equal_labelled_components_and_holes(seed: int, cells: int, threshold: int) -> None:
    image = random_map(seed, cells)
    assert {tuple(map(int, box)) for box in boxes.boxes_at(image, threshold)[0]} == labelled_boxes(image > threshold)


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
    image = maps.to_8_bit(score_map, 20, VAL_THRESHOLD)
    assert (image.min(), image.max()) == (0, 255)
    np.testing.assert_array_equal(image, expected)


def test_a_constant_map_has_no_foreground() -> None:
    image = maps.to_8_bit(np.full((3, 3), 7.0), 12, VAL_THRESHOLD)
    assert image.max() == 0
    true = np.array([[0.0, 0, 11, 11]])
    every, largest = (boxes.iou_curve(image, true, contours) for contours in ("all", "largest"))
    assert set(every) == set(largest) == {0}  # no box, where the benchmark has one of a pixel, (0, 0, 0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        maps.to_8_bit(np.array([[0.0, bad], [1.0, 2.0]]), 8, VAL_THRESHOLD)


def scores(seed: int, count: int = 9) -> ImageResults:
    rng = np.random.default_rng(seed)
    every, largest = np.round(rng.random((2, count, 255)), 1)  # rounded, so that 0.3, 0.5 and 0.7 occur
    top1 = rng.random(count) < 0.6
    return ImageResults(largest, every, rng.integers(0, 255, count), top1, top1 | (rng.random(count) < 0.5))


def share(hits: list[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def best(curves: np.ndarray, iou: float) -> tuple[float, int]:
    """The best accuracy over thresholds and the first threshold that has it, counted image by image."""
    rates = [share([curve[threshold] >= iou for curve in curves]) for threshold in range(255)]
    return max(rates), rates.index(max(rates))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31))
def test_metrics_equal_loops_over_images(seed: int) -> None:
    found = scores(seed)
    assert found.curve_v2 is not None
    located = [curve[best(found.curve, 0.5)[1]] >= 0.5 for curve in found.curve]
    result = metrics.metrics(found, scores(seed + 1), VAL_THRESHOLD, "oracle")
    assert result["gt_known_loc"] == pytest.approx(best(found.curve, 0.5)[0])
    assert result["max_box_acc_v2"] == pytest.approx(sum(best(found.curve_v2, iou)[0] for iou in (0.3, 0.5, 0.7)) / 3)
    assert result["max_box_acc_v2_30"] == pytest.approx(best(found.curve_v2, 0.3)[0])
    assert result["top1_loc"] == pytest.approx(share([a and b for a, b in zip(located, found.top1, strict=True)]))
    assert result["top5_loc"] == pytest.approx(share([a and b for a, b in zip(located, found.top5, strict=True)]))
    assert result["top1_cls"] == pytest.approx(share(list(found.top1)))
    assert result["top1_loc"] <= result["top5_loc"] <= result["gt_known_loc"]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31))
def test_thresholds_come_from_where_they_should(seed: int) -> None:
    test, val = scores(seed), scores(seed + 1)
    thresholds = {
        "val": [best(val.curve, 0.5)[1]] * 9,
        "oracle": [best(test.curve, 0.5)[1]] * 9,
        "fixed": [51] * 9,  # 0.2 of 255
        "otsu": test.otsu.tolist(),
    }
    found: dict[str, float] = {}
    for threshold_from, own in thresholds.items():
        result = metrics.metrics(test, val, VAL_THRESHOLD, threshold_from)  # type: ignore[arg-type]
        expected = share([curve[threshold] >= 0.5 for curve, threshold in zip(test.curve, own, strict=True)])
        assert result["gt_known_loc"] == pytest.approx(expected)
        found[threshold_from] = result["gt_known_loc"]
    assert found["oracle"] >= max(found["val"], found["fixed"])


def test_a_threshold_that_a_protocol_lacks_is_not_chosen() -> None:
    test = scores(0)
    acol = protocols.find("acol-legacy")
    assert acol.candidates.tolist() == [20, 100, 110]
    assert metrics.threshold_of("oracle", test, test, acol) == max(
        (20, 100, 110), key=lambda threshold: (test.curve[:, threshold] >= 0.5).mean()
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(0, 254))
def test_losses_add_up(seed: int, threshold: int) -> None:
    found = scores(seed)
    lost = metrics.miss_rates(found, threshold, VAL_THRESHOLD)
    never = share([curve.max() < 0.5 for curve in found.curve])
    assert lost["map_loss"] == pytest.approx(never)
    located = share([curve[threshold] >= 0.5 for curve in found.curve])
    assert lost["map_loss"] + lost["threshold_loss"] + located == pytest.approx(100)


def test_float32_decides_as_float64_would() -> None:
    ratios = np.array([n / d for d in range(1, 400) for n in range(d + 1)])
    for iou in (0.3, 0.5, 0.7):
        assert np.array_equal(VAL_THRESHOLD.hits(ratios.astype(np.float32), iou), ratios >= iou)


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_top_k_equals_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(7, 6)), rng.integers(0, 6, 7)
    expected = [label in sorted(range(6), key=lambda c: -row[c])[:k] for row, label in zip(logits, labels, strict=True)]
    assert metrics.topk_correct(logits, labels, k).tolist() == expected


def test_constant_logits_and_nan_are_no_right_answer() -> None:
    assert not metrics.topk_correct(np.full((2, 4), np.nan), np.array([0, 3]), 1).any()
    assert not metrics.topk_correct(np.zeros((2, 4)), np.array([0, 3]), 1).any()


@given(st.integers(0, 2**31), st.integers(0, 254))
def test_part_coverage_equals_counting(seed: int, threshold: int) -> None:
    rng = np.random.default_rng(seed)
    image, parts = rng.integers(0, 256, (6, 6), dtype=np.uint8), rng.integers(0, 3, (6, 6), dtype=np.uint8)
    found = masks.part_coverage(image, parts, threshold, 3)
    for part in (1, 2):
        pixels = [image[y, x] > threshold for y in range(6) for x in range(6) if parts[y, x] == part]
        assert found[part - 1] == pytest.approx(sum(pixels) / len(pixels)) if pixels else np.isnan(found[part - 1])
    assert np.isnan(found[2])


# Other box rules


@settings(deadline=None, max_examples=60)
@given(any_map(), st.sampled_from(["eil-code", "ts-cam", "wsoleval-v2"]))
def test_protocols_boxes_equal_looking_at_each_level(image: np.ndarray, name: str) -> None:
    protocol = protocols.find(name)
    height, width = image.shape
    true = np.array([[0.0, 0.0, width // 2, height // 2]])
    found = boxes.iou_curve(image, true, protocol.contours, protocol.box_convention)
    for threshold in range(0, 255, 7):
        rows, columns = np.nonzero(image > threshold)
        if not len(rows):
            candidates = [list(map(float, protocol.empty))]
        elif name == "eil-code":
            candidates = [[columns.min(), rows.min(), columns.max(), rows.max()]]
        else:
            traced = cv2.findContours((image > threshold).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            if name == "ts-cam":
                traced = [max(traced, key=cv2.contourArea)]
            candidates = [[x, y, x + w, y + h] for x, y, w, h in map(cv2.boundingRect, traced)]
            if name == "wsoleval-v2":
                candidates = [[x, y, min(u, width - 1), min(v, height - 1)] for x, y, u, v in candidates]
        best = max(counted_iou(box, true[0].tolist()) for box in candidates)
        assert found[threshold] == pytest.approx(best * image.any())


def test_an_iou_of_points_has_no_extra_pixel() -> None:
    image = np.zeros((10, 10), np.uint8)
    image[2:6, 2:6] = 9
    points = protocols.find("val-threshold").model_copy(update={"iou": "continuous"})
    assert boxes.iou_curve(image, np.array([[2.0, 2, 6, 6]]), "largest", points.box_convention)[0] == 1
    assert boxes.iou_curve(image, np.array([[2.0, 2, 6, 6]]), "largest")[0] == 1
    assert boxes.iou_curve(image, np.array([[4.0, 2, 8, 6]]), "largest", points.box_convention)[0] == pytest.approx(
        8 / 24
    )
    assert boxes.iou_curve(image, np.array([[4.0, 2, 8, 6]]), "largest")[0] == pytest.approx(15 / 35)


def test_strictly_more_than_half_is_another_protocol() -> None:
    strict = VAL_THRESHOLD.model_copy(update={"hit": ">"})
    curve = np.array([[0.5, 0.51]])
    assert VAL_THRESHOLD.hits(curve, 0.5).tolist() == [[True, True]]
    assert strict.hits(curve, 0.5).tolist() == [[False, True]]


def test_every_protocol_is_named_and_has_a_source() -> None:
    assert list(protocols.read()) == [
        "val-threshold",
        "val-threshold-aligned",
        "wsoleval-v1",
        "wsoleval-v2",
        "eil-code",
        "acol-legacy",
        "ts-cam",
    ]
    assert all(protocol.source for protocol in protocols.read().values())
    with pytest.raises(SettingError, match="protocols = wsol: must be one of val-threshold, val-threshold-aligned, "):
        protocols.find("wsol")


# Normalisers


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(["min-max", "max", "pas", "ivr"]), st.floats(0.05, 0.95))
def test_normalisers_equal_their_formulas(seed: int, normaliser: str, percentile: float) -> None:
    m = np.random.default_rng(seed).normal(size=(5, 7))
    given_ = percentile if normaliser in ("pas", "ivr") else None
    protocol = Protocol(source="x", normaliser=normaliser, percentile=given_)  # type: ignore[arg-type]
    values = sorted(m.ravel().tolist())
    at, low, high = values[int(35 * percentile)], values[0], values[-1]
    expected = {
        "min-max": lambda v: (v - low) / (high - low),
        "max": lambda v: max(v, 0) / high,
        "pas": lambda v: min((v - low) / (at - low), 1),
        "ivr": lambda v: max(v - at, 0) / (high - at),
    }[normaliser]
    found = maps.normalised(m, protocol)
    np.testing.assert_allclose(found.ravel(), [expected(v) for v in m.ravel().tolist()])
    assert found.min() >= 0
    assert found.max() == 1


@pytest.mark.parametrize("normaliser", ["min-max", "max", "pas", "ivr"])
def test_a_constant_or_negative_map_divides_by_nothing(normaliser: str) -> None:
    percentile = 0.5 if normaliser in ("pas", "ivr") else None
    protocol = Protocol(source="x", normaliser=normaliser, percentile=percentile)  # type: ignore[arg-type]
    for m in (np.full((3, 3), 2.0), np.zeros((3, 3)), -np.arange(9.0).reshape(3, 3), np.eye(9)):
        assert np.isfinite(maps.normalised(m, protocol)).all()


def test_the_order_of_resizing_and_normalising_matters() -> None:
    m = np.random.default_rng(3).normal(size=(4, 4))
    first, second = (
        maps.prepared(m, 16, VAL_THRESHOLD.model_copy(update={"order": order, "normaliser": "max"}))
        for order in ("resize-normalise", "normalise-resize")
    )
    assert not np.allclose(first, second)
    assert 0 <= second.min() <= second.max() <= 1


@pytest.mark.parametrize(("normaliser", "percentile"), [("pas", None), ("min-max", 0.9)])
def test_a_percentile_belongs_to_its_normalisers(normaliser: str, percentile: float | None) -> None:
    with pytest.raises(ValueError, match="pas and ivr need a percentile"):
        Protocol(source="x", normaliser=normaliser, percentile=percentile)  # type: ignore[arg-type]


def test_otsu_splits_two_values() -> None:
    image = np.full((8, 8), 40, np.uint8)
    image[2:5, 2:5] = 200
    assert 40 <= maps.otsu(image) < 200


# Masks


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31))
def test_pxap_and_pixel_iou_equal_loops_over_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts, scored, truth = np.zeros((2, masks.BINS), np.int64), [], []
    for _ in range(3):
        score_map = rng.integers(0, 30, (6, 5)) / 29
        mask = rng.choice([0, 1, 2, masks.IGNORED], (6, 5)).astype(np.uint8)
        counts += masks.histogram(score_map, mask)
        kept = mask != masks.IGNORED
        scored += score_map[kept].tolist()
        truth += (mask[kept] > 0).tolist()
    average, before = 0.0, 0.0
    ious = masks.pixel_iou(counts)
    for k in range(999, -1, -1):
        above = [t for s, t in zip(scored, truth, strict=True) if s >= k / 1000]
        recall, precision = sum(above) / max(sum(truth), 1), sum(above) / max(len(above), 1)
        average += precision * (recall - before)
        before = recall
        union = sum(truth) + len(above) - sum(above)
        assert ious[k] == pytest.approx(100 * sum(above) / max(union, 1))
    assert masks.pixel_average_precision(counts) == pytest.approx(100 * average)


# Errors


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 29, 29), "correct"),
        ((10, 10, 19, 19), "part"),  # a quarter of it
        ((0, 0, 59, 59), "more"),  # all of it and much else
        ((20, 10, 39, 49), "other"),
        ((60, 60, 79, 79), "other"),
        (
            (10, 14, 29, 43),
            "part",
        ),  # it covers 0.8 of the object, and more than half of it lies there: part comes first
    ],
)
def test_kinds_of_error(box: tuple[int, ...], expected: str) -> None:
    true = np.array([[10.0, 10, 29, 29]])
    assert errors.kind(np.array(box, dtype=float), true) == expected


def test_one_box_over_two_objects_is_multi_instance() -> None:
    two = np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]])
    assert errors.kind(np.array([0.0, 0, 29, 9]), two) == "multi_instance"
    assert errors.kind(np.array([0.0, 0, 29, 9]), two[:1]) == "more"


def test_shares_of_errors_add_up_with_and_without_the_class() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 40, (2, 60, 2, 2)), axis=2).astype(float)
    predicted, true = corners.reshape(2, 60, 4)
    found = errors.decompose(predicted, list(true[:, None]), rng.random(60) < 0.5)
    for metric in ("box_kind", "box_kind_gt_known"):
        assert sum(value for key, value in found.items() if key[0] == metric) == pytest.approx(100)
    right = share([errors.kind(p, t[None]) == "correct" for p, t in zip(predicted, true, strict=True)])
    assert found["box_kind_gt_known", "correct"] == pytest.approx(right)
    assert found["box_kind_gt_known", "multi_instance"] == 0


def test_sizes_are_shares_of_the_image() -> None:
    true = [np.array([[0.0, 0, side - 1, side - 1]]) for side in (5, 10, 10, 50, 100)]
    found = errors.by_size(np.array([True, True, False, False, True]), true, 100)
    expected = {"object size 0-1 %": (200 / 3, 3), "object size 16-25 %": (0, 1), "object size 81-100 %": (100, 1)}
    shares = {("gt_known_loc", subset): pair[0] for subset, pair in expected.items()}
    assert found == pytest.approx(shares | {("images", subset): pair[1] for subset, pair in expected.items()})


# Statistics


def test_replicates_equal_a_loop_over_resamples() -> None:
    test, val = scores(1, 40), scores(2, 30)
    found = statistics.replicates(test, val, VAL_THRESHOLD, count=25)
    for r in range(25):
        drawn, drawn_val = (
            np.random.default_rng([len(s.top1), stream, r]).integers(0, len(s.top1), len(s.top1))
            for stream, s in enumerate((test, val))
        )
        threshold = best(val.curve[drawn_val], 0.5)[1]
        located = test.curve[drawn, threshold] >= 0.5
        assert found["gt_known_loc"][r] == pytest.approx(100 * located.mean(), abs=1e-3)
        assert found["top1_loc"][r] == pytest.approx(100 * (located & test.top1[drawn]).mean(), abs=1e-3)
        assert found["top1_cls"][r] == pytest.approx(100 * test.top1[drawn].mean(), abs=1e-3)
        assert test.curve_v2 is not None
        assert val.curve_v2 is not None
        v2 = [(test.curve_v2[drawn, best(val.curve_v2[drawn_val], iou)[1]] >= iou).mean() for iou in (0.3, 0.5, 0.7)]
        assert found["max_box_acc_v2"][r] == pytest.approx(100 * np.mean(v2), abs=1e-3)


@pytest.mark.parametrize("threshold_from", ["oracle", "fixed", "otsu"])
def test_replicates_with_other_thresholds(threshold_from: str) -> None:
    test, val = scores(1, 40), scores(2, 30)
    found = statistics.replicates(
        test, val, VAL_THRESHOLD.model_copy(update={"threshold_from": threshold_from}), count=10
    )
    for r in range(10):
        drawn = np.random.default_rng([40, 0, r]).integers(0, 40, 40)
        threshold = {"oracle": best(test.curve[drawn], 0.5)[1], "fixed": 51, "otsu": test.otsu[drawn]}[threshold_from]
        assert found["gt_known_loc"][r] == pytest.approx(100 * (test.curve[drawn, threshold] >= 0.5).mean(), abs=1e-3)


def test_the_interval_of_one_seed_is_that_of_the_images() -> None:
    count, found = 400, np.random.default_rng(0).random(400) < 0.7
    curve = np.repeat(found[:, None].astype(float), 255, axis=1)
    one = ImageResults(curve, None, np.zeros(count, int), found, found)
    runs = statistics.replicates(one, one, VAL_THRESHOLD)["gt_known_loc"][None]
    mean, half = statistics.interval(runs)
    assert mean == pytest.approx(100 * found.mean(), abs=0.5)
    assert half == pytest.approx(196 * np.sqrt(found.mean() * (1 - found.mean()) / count), rel=0.1)


def test_seeds_widen_the_interval_by_students_t() -> None:
    constant = np.array([60.0, 66.0, 63.0])[:, None].repeat(1000, axis=1)
    mean, half = statistics.interval(constant)
    assert statistics.p_value(constant - 60) == pytest.approx(scipy_stats.ttest_1samp([0, 6, 3], 0).pvalue)
    low, high = scipy_stats.t.interval(0.95, 2, 63, scipy_stats.sem([60, 66, 63]))
    assert (mean, half) == pytest.approx((63, (high - low) / 2))


def test_methods_on_the_same_images_are_paired() -> None:
    test, val = scores(1, 200), scores(2, 100)
    better = ImageResults(np.minimum(test.curve + 0.2, 1), None, test.otsu, test.top1, test.top5)
    fixed = VAL_THRESHOLD.model_copy(update={"threshold_from": "fixed"})
    a, b = (statistics.replicates(s, val, fixed)["gt_known_loc"][None] for s in (better, test))
    assert statistics.ci_half_width(a - b) < np.hypot(statistics.ci_half_width(a), statistics.ci_half_width(b))
    assert statistics.estimate(a - b).probability_of_improvement() > 0.999
    assert statistics.estimate(b - a).probability_of_improvement() < 0.001
    assert statistics.estimate(a - a).probability_of_improvement() == 0.5
    assert statistics.p_value(a - b) < 1e-3
    assert statistics.p_value(a - a) == 1


def test_ten_comparisons_of_nothing_find_nothing_in_19_of_20_studies() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        runs = [rng.normal(0, 2, (3, 1)) + rng.normal(0, 0.3, 200) + rng.normal(0, 0.3) for _ in range(10)]
        corrected = statistics.holm({str(k): statistics.p_value(run) for k, run in enumerate(runs)})
        found.append(min(corrected.values()) < 0.05)
    assert np.mean(found) < 0.08


def test_what_is_detectable_is_found_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 1.5, (1, 1000))
    effect = statistics.estimate(difference).minimum_detectable_effect()
    found = [statistics.p_value(difference - difference.mean() + rng.normal(effect, 1.5)) < 0.05 for _ in range(2000)]
    assert 0.77 < np.mean(found) < 0.83


def test_holm_equals_its_definition() -> None:
    found = statistics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert found == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})
    assert statistics.holm({}) == {}


def test_pixel_histograms_equal_numpys_at_the_borders_of_bins() -> None:
    edges = np.concatenate([np.arange(masks.BINS) / masks.BINS, [2.0]])
    rng = np.random.default_rng(0)
    borders = np.concatenate([edges[:-1], np.nextafter(edges[1:-1], 0), np.nextafter(edges[:-1], 1), [1.0]])
    values = np.clip(np.concatenate([borders, rng.random(60_000), rng.integers(0, 256, 1000) / 255]), 0, 1)
    found = masks.histogram(values, np.ones(values.shape, np.uint8))
    np.testing.assert_array_equal(found[0], np.histogram(values, edges)[0])
    assert not found[1].any()
