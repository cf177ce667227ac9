"""The prepared data set of a study, as arrays: decoded photos (:mod:`eil.data.photo_cache`), boxes and masks.

Boxes and masks are cached separately (:mod:`eil.data.annotation_cache`), so corrected ones are prepared again without
decoding photos. Later steps read the arrays through memory maps, or copy them to the device if they fit
(:mod:`eil.data.augment`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eil.data import Boxes, Dataset, Image, annotation_cache, photo_cache
from eil.data.geometry import Frame
from eil.data.photo_cache import describe

__all__ = ["Cached", "Fingerprints", "build", "describe", "fingerprints", "open_split", "outdated"]


@dataclass(frozen=True)
class Cached:
    """One split, decoded.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        large: the same at the training images' side, if ten crops are classified.
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
    """Prepare photos and annotations, unless they are current.

    Args:
        dataset: from a reader.
        folder: of the cache.
        frame: sides and geometry.

    Raises:
        InputError: as :func:`photo_cache.build` and :func:`annotation_cache.build`.
    """
    photo_cache.build(dataset, folder, frame)
    annotation_cache.build(dataset, folder, frame)


def outdated(dataset: Dataset, folder: Path, frame: Frame) -> str:
    """What changed since the data set was prepared: "photos", "annotations", or "" for nothing."""
    if not photo_cache.is_current(dataset, folder, frame):
        return "photos"
    return "" if annotation_cache.is_current(dataset, folder) else "annotations"


def fingerprints(folder: Path) -> Fingerprints:
    """Fingerprints of the prepared data set in ``folder``.

    Raises:
        InputError: there is none, or it is incomplete.
    """
    return Fingerprints(describe(folder)["photos_sha256"], annotation_cache.describe(folder)["annotations_sha256"])


def open_split(folder: Path, split: str) -> Cached:
    """Open one split of a cache made by :func:`build`.

    Raises:
        InputError: there is no complete cache in ``folder``.
    """
    import pandas as pd

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
