"""Our evaluator against the field's loop: 1,000 thresholds, at each of them all contours traced anew.

    make bench

Each ratio is of two things measured in turn in one process, on the same maps of 224 x 224 pixels.
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.core.provenance import threads
from eil.data import Image
from eil.evaluation import boxes, maps, protocols
from eil.evaluation.score import MaxBoxAcc

SIDE, COUNT = 224, 24
Rows = list[tuple[str, str]]
VAL_THRESHOLD = protocols.find("val-threshold")
TRUE = np.array([[50.0, 40.0, 160.0, 170.0]])


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    save("boxes", "Boxes at every threshold, against the literal loop over 1,000", ("what", "measured"), rows)


def smooth(rng: np.random.Generator) -> np.ndarray:
    """A blob with a little noise at 14 x 14, as a class activation map looks."""
    y, x = np.mgrid[:14, :14]
    top, left = rng.uniform(3, 10, 2)
    return np.exp(-((y - top) ** 2 + (x - left) ** 2) / 12) + 0.15 * rng.random((14, 14))


MAPS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "smooth 14": smooth,
    "rough 14": lambda rng: rng.random((14, 14)),
    "rough 28": lambda rng: rng.random((28, 28)),
}


def literal(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Best IoU over all contours and that of the largest, at 1,000 thresholds."""
    every, largest = [], []
    for tau in np.arange(0, 1, 0.001):
        candidates, areas = boxes.boxes_at(image, int(tau * image.max()))
        overlaps = boxes.iou(candidates, TRUE).max(axis=1)
        every.append(overlaps.max())
        largest.append(overlaps[areas.argmax()])
    return np.array(every), np.array(largest)


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


@pytest.mark.parametrize(("kind", "least"), [("smooth 14", 8), ("rough 14", 8), ("rough 28", 20)])
def test_boxes_against_the_literal_loop(benchmark: BenchmarkFixture, table: Rows, kind: str, least: float) -> None:
    """Median over maps of the loop's time over ours; ours is for one of the two contour rules, as the loop's."""
    rng = np.random.default_rng(0)
    images = [maps.to_8_bit(MAPS[kind](rng), SIDE, VAL_THRESHOLD) for _ in range(COUNT)]
    for contours in ("all", "largest"):
        boxes.iou_curve(images[0], TRUE, contours)  # compiled once
    ratios: dict[str, list[float]] = {"all": [], "largest": []}
    for image in images[:8]:
        theirs = seconds(partial(literal, image))
        for contours, found in ratios.items():
            found.append(theirs / seconds(partial(boxes.iou_curve, image, TRUE, contours)))
    true = [TRUE] * COUNT
    groups = [
        [seconds(partial(boxes.iou_curves, images, true, "all", threads=count)) for count in (1, threads())]
        for _ in range(5)
    ]
    both = statistics.median(one / all_of_them for one, all_of_them in groups)
    benchmark.pedantic(boxes.iou_curve, (images[0], TRUE), rounds=20)
    medians = {contours: statistics.median(found) for contours, found in ratios.items()}
    benchmark.extra_info |= {f"loop / ours, {key}": value for key, value in medians.items()}
    text = f"all contours {medians['all']:.1f} x, the largest {medians['largest']:.1f} x as fast, single thread; "
    table.append((f"{kind} map at {SIDE} pixels", f"{text}{threads()} threads {both:.2f} x one"))
    assert medians["all"] >= least
    assert medians["largest"] >= least


def test_fifty_thousand_maps_in_bounded_memory(benchmark: BenchmarkFixture, table: Rows) -> None:
    """ILSVRC's validation set: maps come in chunks, and what stays is their curves."""
    metric, rng, chunk = MaxBoxAcc("wsoleval-v2", SIDE), np.random.default_rng(0), 500

    def all_of_them() -> None:
        for _ in range(50_000 // chunk):
            metric.update([smooth(rng) for _ in range(chunk)], [TRUE] * chunk)

    all_of_them_took = benchmark.pedantic(lambda: seconds(all_of_them), rounds=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = f"{all_of_them_took:.0f} s on {threads()} threads, peak resident memory {peak:.0f} MiB"
    table.append(("MaxBoxAcc of 50,000 smooth maps, wsoleval-v2", text))
    assert metric.compute()["max_box_acc_v2"] > 0
    assert peak < 2000
