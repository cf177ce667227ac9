"""What a training step and inference cost, against what their floating-point operations say.

    make bench

A ratio is of two things measured in turn in one process. Leaves results/step-fp32-{device}-{date}.md and .csv,
which name the machine and the versions.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.core import registry
from eil.core.files import write_text
from eil.core.provenance import device_name
from eil.core.settings import IncompatibleSetting
from eil.methods import base
from eil.methods.base import Method, Targets
from eil.profiling import cost
from eil.report.table import Table

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = [("vgg_small", 56, 32), ("resnet_small", 56, 32), ("efficientnet_lite0", 128, 16), ("resnet50", 112, 8)]
METHODS = registry.available(registry.METHODS)
ROUNDS = 15
BASE = "cam"
Row = tuple[str, str, str, int, int, float, float, float, float]


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """Rows, written as a table in the end."""
    rows: list[Row] = []
    yield rows
    header = ["what", "method", "backbone", "pixels", "batch"]
    lines = [[*map(str, row[:5]), f"{row[5]:.3f}", f"{row[6]:.3f}", f"{row[5] / row[6]:.3f}"] for row in sorted(rows)]
    path = save(
        "step-fp32",
        "Cost of a training step and of inference, relative to CAM",
        [*header, "time / CAM's", "operations / CAM's", "measured / predicted"],
        lines,
        f"median ratio of {ROUNDS} interleaved pairs in one process, beside the ratio of the floating-point operations "
        "that torch counts; a step is augmentation, loss and gradients; methods with their defaults",
    )
    # What a plan computes hours from (eil plan).
    device = f"{device_name()}, 2 threads" if DEVICE.type == "cpu" else device_name()
    rates = [
        [*map(str, row[:5]), f"{1000 * row[7]:.3f}", f"{row[8] / row[7] / 1e9:.2f}", device, "fp32"]
        for row in sorted(rows)
    ]
    columns = [*header, "ms", "GFLOP/s", "device", "precision"]
    write_text(path.with_suffix(".csv"), Table("", columns, rates).csv())


def build(name: str, backbone: str, size: int, batch: int) -> tuple[Method, torch.Tensor, Targets]:
    try:
        model = base.build(name, {}, backbone, 20).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    except IncompatibleSetting as reason:
        pytest.skip(str(reason))
    images = torch.randn(batch, 3, size, size, device=DEVICE).contiguous(memory_format=torch.channels_last)
    return model, images, Targets(torch.arange(batch, device=DEVICE) % 20)


def step(model: Method, images: torch.Tensor, targets: Targets) -> None:
    model.zero_grad(set_to_none=True)
    model.loss(*model.augment(images, targets))["total"].backward()


def infer(model: Method, images: torch.Tensor, targets: Targets) -> None:
    with torch.inference_mode():
        model.maps(images, targets.labels)


def timed(act: Callable[..., None], *arguments: object) -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act(*arguments)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@pytest.mark.parametrize(("backbone", "size", "batch"), CASES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("act", [step, infer], ids=["training step", "inference"])
def test_cost_relative_to_cam(
    benchmark: BenchmarkFixture,
    table: list[Row],
    act: Callable[..., None],
    name: str,
    backbone: str,
    size: int,
    batch: int,
) -> None:
    """Median ratio of interleaved pairs, over the ratio of the operations counted."""
    ours, base = build(name, backbone, size, batch), build(BASE, backbone, size, batch)
    for model, *_ in (ours, base):
        model.train(act is step)
    operations = cost.operations(lambda: act(*ours))
    counted = operations / cost.operations(lambda: act(*base))
    for _ in range(3):
        act(*ours), act(*base)
    pairs = [(timed(act, *ours), timed(act, *base)) for _ in range(ROUNDS)]
    measured = statistics.median(a / b for a, b in pairs)
    benchmark.extra_info |= {"time / CAM": measured, "operations / CAM": counted}
    benchmark.pedantic(act, ours, rounds=5)
    label = "training step" if act is step else "inference"
    seconds = statistics.median(a for a, _ in pairs)
    table.append((label, name, backbone, size, batch, measured, counted, seconds, operations))
    # Operations leave out what is not a product: hiding, pasting, resizing. Such work must stay small.
    assert measured / counted < 1.25
