"""EIL's training, data included, against the same written as the field writes it (field.py)."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import field
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.profiling.timing import TimedRun

PHOTOS, BATCH, STEPS, ROUNDS = 96, 16, 8, 5
SETTLED = 2  # seconds after which the field's workers have filled their queues and sleep
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    field.make_photos(root, PHOTOS)
    return root


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    header = ("Backbone", "pixels", "batch", "precision of ours", "the field's time / ours")
    size = "x".join(map(str, field.SIZE))
    note = f"median of {ROUNDS} interleaved groups of {STEPS} iterations, photos of {size}, data included"
    save("field", "EIL's training against the field's loop in fp32", header, rows, note)


@pytest.mark.parametrize(
    ("backbone", "precision", "least"),
    [("vgg_small", "fp32", 1.05), ("vgg_small", "bf16", 1.2), ("resnet50", "fp32", 1.05), ("resnet50", "bf16", 1.2)],
)
def test_eil_against_the_fields_loop(
    benchmark: BenchmarkFixture, table: Rows, photos: Path, backbone: str, precision: str, least: float
) -> None:
    """Median ratio of interleaved groups of steps at 112 pixels, end to end."""
    torch.set_num_threads(2)
    run = field.run_of(backbone, {"batch_size": BATCH, "resize": 128, "crop": 112, "precision": precision})
    folder = field.cached(photos, 128, 112)
    ours, theirs = TimedRun(run, folder), field.loop(run, photos, folder, STEPS)

    def seconds(act: Callable[[], None]) -> float:
        started = time.perf_counter()
        act()
        return time.perf_counter() - started

    def some() -> None:
        for _ in range(STEPS):
            ours.iterate()

    some(), theirs()
    ratios = []
    for _ in range(ROUNDS):
        field_seconds = seconds(theirs)
        time.sleep(SETTLED)  # else they decode the field's next batches on our time
        ratios.append(field_seconds / seconds(some))
    ratio = statistics.median(ratios)
    benchmark.extra_info |= {"field / ours": ratio}
    benchmark.pedantic(some, rounds=2)
    table.append((backbone, "112", str(BATCH), precision, f"{ratio:.2f}"))
    assert ratio >= least
