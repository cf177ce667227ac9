"""EIL's training as the field writes it, and photos for it: what the project's own path is held against.

The field's loop decodes every photo anew by PIL in a DataLoader of workers, keeps channels first and full precision,
sends the unerased and the erased stream through the tail one after the other, and asks for the loss in every step.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from eil import data
from eil.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.methods.eil import EIL
from eil.study.study import parse
from eil.training import train_step

SIZE = (500, 375)  # CUB's photos are of about this size
GAMMA = 0.7


def make_photos(root: Path, count: int) -> None:
    """Two classes of blurred noise, ``count`` training photos in all, and their cache's place."""
    rng = np.random.default_rng(0)
    for split, each in (("train", count // 2), ("test", 1)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for k in range(each):
                small = rng.integers(0, 256, (SIZE[1] // 15, SIZE[0] // 15, 3), dtype=np.uint8)
                photo = PILImage.fromarray(small).resize(SIZE, PILImage.Resampling.BICUBIC)
                photo.save(root / split / name / f"{k:05d}.jpg", quality=90)


def run_of(backbone: str, recipe: dict[str, Any], methods: Any = None) -> Run:
    """EIL on a backbone, to be trained on the photos."""
    content = {
        "name": "field",
        "dataset": {"name": "folder", "held_out": 1},
        "backbones": [backbone],
        "methods": methods or {"eil": {"gamma": GAMMA}},
        "recipe": recipe,
    }
    return parse(content, "field").runs()[0]


def cached(root: Path, resize: int, crop: int) -> Path:
    """The photos decoded for our own path, once."""
    folder = root / f"cache-{crop}"
    if not folder.exists():
        cache.build(data.read("folder", root, {"held_out": 1}), folder, Frame(resize, crop))
    return folder


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


def loop(run: Run, root: Path, folder: Path, steps: int, workers: int = 2) -> Callable[[], None]:
    """The field's loop on the same network; each call takes some steps.

    Args:
        run: from :func:`run_of`.
        root: of the photos.
        folder: their cache, which tells the number of classes.
        steps: of a call.
        workers: of the DataLoader.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = train_step.build(run, folder).train().to(device)
    assert isinstance(model, EIL)
    photos = Photos(root, run.recipe.resize, run.recipe.crop)
    settings: dict[str, Any] = {"num_workers": workers, "persistent_workers": True, "pin_memory": device.type == "cuda"}
    loader = DataLoader(photos, run.recipe.batch_size, shuffle=True, drop_last=True, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4, nesterov=True)
    losses: list[float] = []

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def act() -> None:
        for _ in range(steps):
            images, labels = (each.to(device) for each in next(batches))
            features = model.backbone.forward_stages(images, stop=model.at)
            mean = features.mean(dim=1, keepdim=True).detach()
            mask = (mean < GAMMA * mean.amax(dim=(2, 3), keepdim=True)).float()
            unerased = model.head(model.backbone.forward_stages(features, start=model.at))
            erased = model.head(model.backbone.forward_stages(features * mask, start=model.at))
            loss = F.cross_entropy(unerased, labels) + F.cross_entropy(erased, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())

    return act
