"""What a study reads of its data: decoded photos (:mod:`eil.data.photo_cache`), boxes and masks, as arrays.

Boxes and masks lie apart from photos (:mod:`eil.data.annotation_cache`): corrected ones are prepared again without
decoding a photo. What comes after reads arrays: by memory map, or resident on the device where they fit
(:mod:`eil.data.augment`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from eil.data import Boxes, Dataset, Image, annotation_cache, photo_cache
from eil.data.geometry import Frame
from eil.data.photo_cache import describe

__all__ = ["Cached", "Fingerprints", "build", "describe", "fingerprints", "open_split", "outdated"]


@dataclass(frozen=True)
class Cached:
    """One split, decoded.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        large: likewise at the training images' side, where ten crops are to be classified.
        masks: (N, S, S) uint8, memory-mapped, or None; see :class:`eil.data.Split`.
        labels: (N,).
        ids: N names.
        boxes: per image (K, 4), in pixels of the S x S frame, inclusive corners.
        sizes: width and height of each photo as decoded, (N, 2).
    """

    images: Image
    masks: Image | None
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    sizes: npt.NDArray[np.int64]
    large: Image | None = None


class Fingerprints(NamedTuple):
    """Hashes of the content of a prepared data set: of its photos with their labels, and of its boxes and masks."""

    photos: str
    annotations: str


def build(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Prepare photos and annotations; what is current stays.

    Args:
        dataset: what a reader gave.
        folder: where the cache appears.
        frame: sides and geometry.

    Raises:
        InputError: what :func:`photo_cache.build` and :func:`annotation_cache.build` raise.
    """
    photo_cache.build(dataset, folder, frame)
    annotation_cache.build(dataset, folder, frame)


def outdated(dataset: Dataset, folder: Path, frame: Frame) -> str:
    """What of the data set changed since it was prepared: "photos", "annotations", or "" for nothing."""
    if not photo_cache.is_current(dataset, folder, frame):
        return "photos"
    return "" if annotation_cache.is_current(dataset, folder) else "annotations"


def fingerprints(folder: Path) -> Fingerprints:
    """Fingerprints of what is prepared in ``folder``.

    Raises:
        InputError: nothing is, or only in part.
    """
    return Fingerprints(describe(folder)["photos_sha256"], annotation_cache.describe(folder)["annotations_sha256"])


def open_split(folder: Path, split: str) -> Cached:
    """Open one split of a cache made by :func:`build`.

    Raises:
        InputError: there is no whole cache in ``folder``.
    """
    describe(folder)
    index = pd.read_parquet(folder / split / "index.parquet")
    large = folder / split / "large.npy"
    boxes, masks = annotation_cache.open_split(folder, split)
    return Cached(
        images=np.load(folder / split / "images.npy", mmap_mode="r"),
        masks=masks,
        large=np.load(large, mmap_mode="r") if large.exists() else None,
        labels=index["label"].to_numpy(np.int64),
        ids=tuple(index["id"]),
        boxes=boxes,
        sizes=index[["width", "height"]].to_numpy(np.int64),
    )
