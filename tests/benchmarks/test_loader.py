"""How fast the cache feeds a network, and how much memory it takes, whatever the data set's size.

`make bench` leaves results/data-{processor}-{date}.md. With EIL_DATA naming Tiny-ImageNet, its photos are cached and
trained on too.
"""

import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil import data
from eil.data import NO_BOX, Dataset, Image, Split, cache
from eil.data.augment import Batches
from eil.data.geometry import Frame
from eil.methods import base
from eil.methods.base import Targets

MANY, SIDE = 200_000, 16
ROUNDS = 5
Rows = list[tuple[str, str]]
FASTEST = "vgg_small"  # of the backbones, on a CPU


def drawn(number: int) -> Image:
    """A small image that is a function of its number."""
    return (
        (np.arange(SIDE * SIDE * 3, dtype=np.uint64) * (2 * number + 1) >> np.uint64(3))
        .astype(np.uint8)
        .reshape(SIDE, SIDE, 3)
    )


def split(count: int) -> Split:
    return Split([f"{i:07d}" for i in range(count)], np.arange(count) % 2, [NO_BOX] * count, range(count), drawn)


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    save("data", "The cache and the loader", ("what", "measured"), rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "small"
    dataset = Dataset("noise", ("a", "b"), {"train": split(2000), "val": split(2), "test": split(2)})
    cache.build(dataset, folder, Frame(72, 64))
    return folder


def test_loader_against_the_fastest_network(benchmark: BenchmarkFixture, table: Rows, whole: Path) -> None:
    """Images a second of the loader alone over those of a training step, medians of epochs and of as many steps."""
    torch.set_num_threads(2)
    batches = Batches(cache.open_split(whole, "train"), 32, 64, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    model = base.build("cam", {}, FASTEST, 20)

    def epoch(number: int, train: bool) -> float:
        start = time.perf_counter()
        steps = 0
        for batch in batches.training(0, number, flip=True):
            if train:
                model.zero_grad(set_to_none=True)
                model.loss(batch.images, Targets(batch.labels))["total"].backward()
            steps += 1
            if train and steps == 20:
                break
        return 32 * steps / (time.perf_counter() - start)

    epoch(0, train=True)
    pairs = [(epoch(k, train=False), epoch(k, train=True)) for k in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    delivered = statistics.median(a for a, _ in pairs)
    benchmark.extra_info |= {"loader / network": ratio, "images/s": delivered}
    benchmark.pedantic(epoch, (0, False), rounds=3)
    table.append((f"loader over a training step of CAM on {FASTEST}, images/s", f"{delivered:.0f}, {ratio:.1f} x"))
    assert ratio >= 10


def test_memory_does_not_follow_the_number_of_images(benchmark: BenchmarkFixture, table: Rows, tmp_path: Path) -> None:
    """Peak memory of our own (not the page cache) for making a cache and reading an epoch of it."""
    peaks = {}
    for count in (MANY // 10, MANY):
        dataset = Dataset("noise", ("a", "b"), {"train": split(count), "val": split(2), "test": split(2)})
        with measured() as seen:
            started = time.perf_counter()
            cache.build(dataset, tmp_path / str(count), Frame(32, 28))
            made = time.perf_counter() - started
            batches = Batches(
                cache.open_split(tmp_path / str(count), "train"), 64, 28, (0.5,) * 3, (0.5,) * 3, torch.device("cpu")
            )
            for _ in batches.training(0, 0, flip=True):
                pass
        peaks[count] = seen.peak
        text = f"cached in {made:.0f} s; {seen.peak / 2**20:.0f} MiB more than before at the peak, page cache apart"
        table.append((f"{count} images of {SIDE} pixels, cached and read for an epoch", text))
    benchmark.extra_info |= {f"MiB at {count}": peak / 2**20 for count, peak in peaks.items()}
    benchmark.pedantic(lambda: None, rounds=1)
    pixels = MANY * 32 * 32 * 3
    assert peaks[MANY] < 0.5 * pixels  # names, labels and boxes grow, two kilobytes an image; pixels stay on the disk


@pytest.mark.skipif(not os.environ.get("EIL_DATA"), reason="needs EIL_DATA, a folder of Tiny-ImageNet")
def test_tiny_imagenet(
    benchmark: BenchmarkFixture, table: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All photos decoded once, then an epoch of CAM, and one of the loader alone."""
    torch.set_num_threads(2)
    dataset = data.read("tiny_imagenet", Path(os.environ["EIL_DATA"]), {})
    count = sum(len(split.ids) for split in dataset.splits.values())
    started = time.perf_counter()
    cache.build(dataset, tmp_path / "tiny", Frame(72, 64))
    made = time.perf_counter() - started
    what = f"{len(dataset.classes)} classes of Tiny-ImageNet, {count} photos"
    table.append((f"cache of {what}", f"{made:.1f} s, {count / made:.0f} photos/s, {cache.cores()} processes"))
    monkeypatch.setattr("eil.data.photos.load", None)  # from here on nobody decodes
    batches = Batches(cache.open_split(tmp_path / "tiny", "train"), 32, 64, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    model = base.build("cam", {}, FASTEST, len(dataset.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses: list[torch.Tensor] = []
    for train in (False, True):
        started = time.perf_counter()
        for batch in batches.training(0, 0, flip=True):
            if train:
                loss = model.loss(batch.images, Targets(batch.labels))["total"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
        took = time.perf_counter() - started
        name = f"CAM on {FASTEST}" if train else "the loader alone"
        table.append((f"epoch of its {len(batches.labels)} training photos, {name}", f"{took:.1f} s"))
    assert torch.stack(losses[-100:]).mean() < torch.stack(losses[:100]).mean()
    benchmark.pedantic(lambda: None, rounds=1)


class measured:  # noqa: N801 - reads as a word
    """Peak of this process's anonymous memory in a block, less what it had before, in bytes."""

    def __enter__(self) -> "measured":
        self.before, self.peak, self.ended = anonymous(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, anonymous() - self.before)


def anonymous() -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
