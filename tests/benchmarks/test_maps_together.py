"""The maps of eight extractors of one network: in one pass, and each alone.

`make bench` leaves results/maps-together-{device}-{date}.md. Seconds are CPU time, which other processes change little.
Weights are random.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.study.study import parse
from eil.training import localize, train, train_step

MAPS = ["nwc", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "bagcams", "pc1"]
BIRDS = {"classes": 10, "train_per_class": 1, "val_per_class": 2, "test_per_class": 4}
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    header = ("network", "images it sees, alone", "in one pass", "CPU s, alone", "in one pass", "ratio")
    images = BIRDS["classes"] * (BIRDS["val_per_class"] + BIRDS["test_per_class"])
    save("maps-together", f"Maps of {len(MAPS)} extractors for {images} images of val and test", header, rows)


@pytest.mark.parametrize(("backbone", "side"), [("resnet_small", 64), ("efficientnet_lite0", 224)])
def test_localizing_together(
    benchmark: BenchmarkFixture,
    table: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    side: int,
) -> None:
    data, (own, *extractors) = tmp_path / "data", runs(backbone, side)
    cache.build(birds.read(**BIRDS), data, Frame(resize=side, crop=side))
    model = train_step.build(own, data)
    train.save_weights(tmp_path / own.name / "weights.safetensors", model, own, cache.fingerprints(data).photos)
    passes = counted(monkeypatch)

    def alone() -> None:
        for run in extractors:
            localize.localize(run, data, tmp_path / run.name)

    def together() -> None:
        localize.localize_extractors(
            extractors, data, tmp_path / own.name, {run.name: tmp_path / run.name for run in extractors}
        )

    benchmark.pedantic(together, rounds=1)  # it fills caches for the others
    measured = []
    for act in (alone, together):
        passes.clear()
        seconds = cpu_seconds(act)
        measured.append((sum(passes), seconds))
    (all_passes, singly), (shared_passes, jointly) = measured
    ratio = singly / jointly
    seen = [str(all_passes), str(shared_passes)]
    table.append((f"{backbone}, {side} pixels", *seen, f"{singly:.1f}", f"{jointly:.1f}", f"{ratio:.1f}"))
    benchmark.extra_info |= {"alone / in one": ratio}
    assert all_passes == len(MAPS) * shared_passes
    assert ratio > 2


def runs(backbone: str, side: int) -> list[Run]:
    """A run of CAM, then its extractors."""
    content = {
        "name": "together",
        "dataset": {"name": "birds"} | BIRDS,
        "backbones": [backbone],
        "methods": {"cam": {}},
        "controls": [],
        "maps": MAPS,
        "seeds": 1,
        "recipe": {"resize": side, "crop": side, "batch_size": 20},
    }
    return parse(content, "together").runs()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each pass of a network that is built from now on."""
    passes, build = list[int](), train_step.build

    def built(*arguments: Any) -> Any:
        model = build(*arguments)
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))

        def count(_: Any, inputs: tuple[torch.Tensor], __: Any) -> None:
            if not inputs[0].requires_grad:  # where cells look is measured by gradients of the image
                passes.append(len(inputs[0]))

        first.register_forward_hook(count)
        return model

    monkeypatch.setattr(train_step, "build", built)
    return passes


def cpu_seconds(act: Callable[[], None]) -> float:
    """Seconds of processors, of all threads."""
    start = time.process_time()
    act()
    return time.process_time() - start
