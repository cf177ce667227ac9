"""What each choice that was made for speed is worth: EIL's iteration with it, over the same without.

`make bench` leaves results/choices-{device}-{date}.md; results/reference/speed.md says what was kept, and why.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import field
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.profiling.timing import TimedRun

ROUNDS = 10
# What differs: the recipe with and without it, EIL's settings with and without it.
CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "both streams in one batch": ({}, {}, {"streams": "joint"}, {"streams": "sequential"}),
    "channels last": ({"channels_last": True}, {"channels_last": False}, {}, {}),
    "bf16": ({"precision": "bf16"}, {"precision": "fp32"}, {}, {}),
    "torch.compile": ({"compile": True}, {"compile": False}, {}, {}),
}
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    field.make_photos(root, 64)
    return root


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    header = ("Choice", "Backbone", "pixels", "batch", "time with / without")
    save("choices", "What choices for speed are worth", header, rows, f"median of {ROUNDS} interleaved iterations")


@pytest.mark.parametrize(("backbone", "batch"), [("vgg_small", 16), ("resnet50", 8)])
@pytest.mark.parametrize("choice", CHOICES)
def test_choice(benchmark: BenchmarkFixture, table: Rows, photos: Path, choice: str, backbone: str, batch: int) -> None:
    torch.set_num_threads(2)
    with_recipe, without_recipe, with_settings, without_settings = CHOICES[choice]
    base = {"batch_size": batch, "resize": 128, "crop": 112}
    chosen, other = (
        TimedRun(field.run_of(backbone, base | recipe, {"eil": settings}), field.cached(photos, 128, 112))
        for recipe, settings in ((with_recipe, with_settings), (without_recipe, without_settings))
    )
    for _ in range(ROUNDS + 3):  # the first are for warming up, and compiling
        chosen.iterate()
        other.iterate()
    times = [contender.watch.seconds()["total"][3:] for contender in (chosen, other)]
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    benchmark.extra_info |= {"with / without": ratio}
    benchmark.pedantic(chosen.iterate, rounds=3)
    table.append((choice, backbone, "112", str(batch), f"{ratio:.2f}"))
    assert ratio < 2


@pytest.mark.parametrize(("backbone", "batch"), [("vgg_small", 16), ("efficientnet_lite0", 16), ("resnet50", 8)])
def test_unfilled_memory(benchmark: BenchmarkFixture, table: Rows, photos: Path, backbone: str, batch: int) -> None:
    """PyTorch's default fills each new tensor with NaN while its operations are deterministic."""
    torch.set_num_threads(2)
    recipe = {"batch_size": batch, "resize": 128, "crop": 112, "deterministic": True}
    contender = TimedRun(field.run_of(backbone, recipe, {"eil": {}}), field.cached(photos, 128, 112))
    for k in range(2 * (ROUNDS + 3)):
        torch.utils.deterministic.fill_uninitialized_memory = bool(k % 2)  # type: ignore[attr-defined]
        contender.iterate()
    seconds = contender.watch.seconds()["total"][6:]
    ratio = statistics.median(a / b for a, b in zip(seconds[::2], seconds[1::2], strict=True))
    benchmark.extra_info |= {"with / without": ratio}
    benchmark.pedantic(contender.iterate, rounds=3)
    table.append(("new tensors not filled with NaN", backbone, "112", str(batch), f"{ratio:.2f}"))
    assert ratio < 1.1
