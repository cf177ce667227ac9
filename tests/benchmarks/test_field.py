"""EIL's training, data included, against the same written as the field writes it.

The field's loop decodes every photo anew by PIL in a DataLoader of two workers, keeps channels first, sends the
unerased and the erased stream through the tail one after the other, and asks for the loss in every step. Ours is the
project's own path.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from eil import data, step
from eil.backbones import IMAGENET_MEAN, IMAGENET_STD
from eil.data import cache
from eil.data.geometry import Frame
from eil.erasing import EIL
from eil.run import Run
from eil.study import parse
from eil.timing import Contender

PHOTOS, SIZE, BATCH, STEPS, ROUNDS = 96, (500, 375), 16, 4, 5  # CUB's photos are of about this size
GAMMA = 0.7
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", PHOTOS // 2), ("test", 1)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                small = rng.integers(0, 256, (SIZE[1] // 15, SIZE[0] // 15, 3), dtype=np.uint8)
                photo = PILImage.fromarray(small).resize(SIZE, PILImage.Resampling.BICUBIC)
                photo.save(root / split / name / f"{k:03d}.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    header = ("Backbone", "pixels", "batch", "the field's time / ours")
    note = f"median of {ROUNDS} interleaved groups of {STEPS} iterations, photos of {SIZE[0]}x{SIZE[1]}, data included"
    save("field-fp32", "EIL's training against the field's loop", header, rows, note)


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision's tutorials make of a folder."""

    def __init__(self, root: Path, resize: int, crop: int) -> None:
        self.paths = sorted((root / "train").glob("*/*.jpg"))
        self.transform = transforms.Compose(
            [
                transforms.Resize((resize, resize)),
                transforms.RandomCrop(crop),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        return self.transform(PILImage.open(path).convert("RGB")), int(path.parent.name == "b")


def fields(run: Run, root: Path) -> Callable[[], None]:
    """The field's loop on the same network; each call takes a few steps."""
    model = step.build(run, root / "cache").train()
    assert isinstance(model, EIL)
    at = model.at[0] if isinstance(model.at, tuple) else model.at
    photos = Photos(root, run.recipe.resize, run.recipe.crop)
    loader = DataLoader(photos, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4, nesterov=True)

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = endless()
    losses: list[float] = []

    def act() -> None:
        for _ in range(STEPS):
            images, labels = next(batches)
            features = model.backbone.run(images, stop=at)
            mean = features.mean(dim=1, keepdim=True).detach()
            mask = (mean < GAMMA * mean.amax(dim=(2, 3), keepdim=True)).float()
            unerased = model.head(model.backbone.run(features, start=at))
            erased = model.head(model.backbone.run(features * mask, start=at))
            loss = F.cross_entropy(unerased, labels) + F.cross_entropy(erased, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())

    return act


@pytest.mark.parametrize(("backbone", "least"), [("vgg_small", 1.2), ("resnet50", 1.1)])
def test_eil_against_the_fields_loop(
    benchmark: BenchmarkFixture, table: Rows, photos: Path, backbone: str, least: float
) -> None:
    """Median ratio of interleaved groups of steps at 112 pixels, end to end."""
    torch.set_num_threads(2)
    content = {
        "name": "field",
        "dataset": {"name": "folder", "held_out": 1},
        "backbones": [backbone],
        "methods": {"eil": {"gamma": GAMMA}},
        "recipe": {"batch_size": BATCH, "resize": 128, "crop": 112},
    }
    run = parse(content, "field").runs()[0]
    if not (photos / "cache").exists():
        cache.build(data.read("folder", photos, {"held_out": 1}), photos / "cache", Frame(128, 112))
    ours, theirs = Contender(run, photos / "cache"), fields(run, photos)

    def seconds(act: Callable[[], None]) -> float:
        started = time.perf_counter()
        act()
        return time.perf_counter() - started

    def four() -> None:
        for _ in range(STEPS):
            ours.iterate()

    four(), theirs()
    ratios = [seconds(theirs) / seconds(four) for _ in range(ROUNDS)]
    ratio = statistics.median(ratios)
    benchmark.extra_info |= {"field / ours": ratio}
    benchmark.pedantic(four, rounds=2)
    table.append((backbone, "112", str(BATCH), f"{ratio:.2f}"))
    assert ratio >= least
