"""The parts of EIL and of evaluation by themselves: erasing, and making 8-bit maps.

`make bench` leaves results/parts-{device}-{date}.md.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.evaluation import maps, protocols
from eil.methods import base
from eil.methods.base import Targets
from eil.methods.eil import EIL
from eil.methods.erasing import erasing_mask

ROUNDS = 15
Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    save("parts", "Erasing and maps by themselves", ("what", "measured"), rows)


def median(act: Callable[[], object]) -> float:
    act()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@pytest.mark.parametrize(("backbone", "size", "batch"), [("vgg_small", 56, 32), ("resnet50", 112, 8)])
def test_erasing_alone(benchmark: BenchmarkFixture, table: Rows, backbone: str, size: int, batch: int) -> None:
    """Attention, mask and product, forward, as a share of EIL's whole training step."""
    torch.set_num_threads(2)
    model = base.build("eil", {}, backbone, 20).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(model, EIL)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        features = model.backbone.forward_stages(images, stop=model.at).relu()

    def erase() -> torch.Tensor:
        return features * erasing_mask(features, 0.7)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model.loss(images, Targets(torch.arange(batch) % 20))["total"].backward()

    alone, whole = median(erase), median(step)
    benchmark.extra_info |= {"share of a step": alone / whole}
    benchmark.pedantic(erase, rounds=ROUNDS)
    what = f"erasing {tuple(features.shape)} on {backbone} at {size} pixels, share of EIL's training step"
    table.append((what, f"{1000 * alone:.2f} ms, {100 * alone / whole:.2f} %"))
    assert alone < 0.1 * whole


@pytest.mark.parametrize("name", ["val-threshold", "wsoleval-v2", "ts-cam"])
def test_maps(benchmark: BenchmarkFixture, table: Rows, name: str) -> None:
    """A 14 x 14 map to 8 bits at 224 x 224, on one thread."""
    protocol = protocols.find(name)
    score_map = np.random.default_rng(0).random((14, 14))
    taken = median(lambda: maps.to_8_bit(score_map, 224, protocol))
    benchmark(maps.to_8_bit, score_map, 224, protocol)
    table.append((f"8-bit map of 224 x 224 from 14 x 14, protocol {name}", f"{1e6 * taken:.0f} us"))
