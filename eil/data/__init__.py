"""Data sets: one file per layout, each a function ``read(root, **settings) -> Dataset``.

A reader lists images, labels, boxes and masks and decodes nothing; :mod:`eil.data.cache` decodes each
image once. Only val and test carry boxes: training on image labels alone is the point of WSOL.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.files import InputError

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """One split of a data set, undecoded.

    Attributes:
        ids: one name per image, unique.
        labels: class of each image, (N,).
        boxes: per image, (K, 4) as x0, y0, x1, y1 in its own pixels, inclusive corners; K = 0 in train.
        load: index -> image, (H, W, 3) RGB.
        load_parts: index -> part mask, (H, W), 0 where there is no object, k for ``Dataset.parts[k - 1]``.
    """

    ids: Sequence[str]
    labels: npt.NDArray[np.int64]
    boxes: Sequence[Boxes]
    load: Callable[[int], Image]
    load_parts: Callable[[int], Image] | None = None


@dataclass(frozen=True)
class Dataset:
    """A named data set: its classes, its splits (train, val, test) and the names of its part masks."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    parts: tuple[str, ...] = ()


def readers() -> dict[str, Callable[..., Dataset]]:
    """The known layouts, by the name that a study file uses."""
    from eil.data import birds, tiny_imagenet

    return {"birds": birds.read, "tiny_imagenet": tiny_imagenet.read}


def read(name: str, root: Path | None, settings: Mapping[str, Any]) -> Dataset:
    """Read a data set and check what every layout must fulfil.

    Raises:
        InputError: a class without images in a split, or a box outside its image.
    """
    dataset = readers()[name](root, **settings)
    for split_name, split in dataset.splits.items():
        counts = np.bincount(split.labels, minlength=len(dataset.classes))
        if (counts == 0).any():
            empty = [dataset.classes[i] for i in np.flatnonzero(counts == 0)[:5]]
            raise InputError(f"data set {name}: split {split_name} has no image of class {', '.join(empty)}")
    return dataset
