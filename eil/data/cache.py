"""Decoded images, once: every split becomes a folder with images.npy and index.parquet.

The reader's work (decode, check, resize) happens here and nowhere else. What comes after reads arrays: by
memory map, or resident on the device where they fit (:mod:`eil.data.augment`).
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image as PILImage
from tqdm import tqdm

from eil.data import Boxes, Dataset, Image, Split
from eil.files import InputError, read_json, replacing, write_json

cv2.setNumThreads(1)  # the pool below is the parallelism; OpenCV's own threads would multiply it


@dataclass(frozen=True)
class Cached:
    """One split, decoded.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        parts: (N, S, S) uint8 part masks, memory-mapped, or None.
        labels: (N,).
        ids: N names.
        boxes: per image (K, 4), in pixels of the S x S frame, inclusive corners.
    """

    images: Image
    parts: Image | None
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    boxes: tuple[Boxes, ...]


def build(dataset: Dataset, folder: Path, resize: int, crop: int) -> None:
    """Decode and resize a data set into ``folder``, whole or not at all.

    Args:
        dataset: what a reader gave.
        folder: where the cache appears, with one folder a split and dataset.json.
        resize: side of the training images; crops of ``crop`` are taken from them.
        crop: side of val's and test's images, resized directly (aspect ratio not kept, as the field does).

    Raises:
        InputError: an image that cannot be decoded or a box outside its image, by name.
    """
    with replacing(folder) as beside:
        digest = hashlib.sha256()
        for name, split in dataset.splits.items():
            target = beside / name
            target.mkdir(parents=True)
            digest.update(_write_split(name, split, target, resize if name == "train" else crop))
        write_json(
            beside / "dataset.json",
            {
                "name": dataset.name,
                "classes": list(dataset.classes),
                "parts": list(dataset.parts),
                "resize": resize,
                "crop": crop,
                "sha256": digest.hexdigest(),
            },
        )


def open_split(folder: Path, split: str) -> Cached:
    """Open one split of a cache made by :func:`build`.

    Raises:
        InputError: there is no whole cache in ``folder``.
    """
    describe(folder)
    index = pd.read_parquet(folder / split / "index.parquet")
    parts = folder / split / "parts.npy"
    return Cached(
        images=np.load(folder / split / "images.npy", mmap_mode="r"),
        parts=np.load(parts, mmap_mode="r") if parts.exists() else None,
        labels=index["label"].to_numpy(np.int64),
        ids=tuple(index["id"]),
        boxes=tuple(np.asarray(flat, dtype=np.float64).reshape(-1, 4) for flat in index["boxes"]),
    )


def describe(folder: Path) -> dict[str, Any]:
    """What dataset.json says: name, classes, parts, sizes and the content's hash."""
    return read_json(folder / "dataset.json", "eil prepare")


def scale_boxes(boxes: Boxes, width: int, height: int, side: int) -> Boxes:
    """Boxes of a width x height image in a side x side frame: scaled and truncated, as wsolevaluation does."""
    return np.trunc(boxes * side / np.array([width, height] * 2))


def _write_split(name: str, split: Split, target: Path, side: int) -> bytes:
    """Write images.npy, parts.npy and index.parquet; return the hash of the content."""
    count = len(split.ids)
    images = np.lib.format.open_memmap(target / "images.npy", "w+", np.uint8, (count, side, side, 3))
    parts = None
    if split.load_parts is not None:
        parts = np.lib.format.open_memmap(target / "parts.npy", "w+", np.uint8, (count, side, side))
    digest = hashlib.sha256()
    rows = []
    for i, (image, part, size) in enumerate(_decoded(split, side, f"{name}: decoding")):
        images[i] = image
        digest.update(image.tobytes())
        if parts is not None and part is not None:
            parts[i] = part
        boxes = _checked(split.boxes[i], size, split.ids[i])
        flat = scale_boxes(boxes, *size, side).ravel().tolist()
        rows.append({"id": split.ids[i], "label": int(split.labels[i]), "boxes": flat})
    images.flush()
    if parts is not None:
        parts.flush()
    index = pd.DataFrame(rows)
    index.to_parquet(target / "index.parquet")
    digest.update(index.to_csv(index=False).encode())
    return digest.digest()


def _decoded(split: Split, side: int, title: str) -> Iterator[tuple[Image, Image | None, tuple[int, int]]]:
    """Resized image, resized parts and original (width, height) of every image, in order."""

    def one(index: int) -> tuple[Image, Image | None, tuple[int, int]]:
        image = split.load(index)
        height, width = image.shape[:2]
        parts = None
        if split.load_parts is not None:
            # Nearest keeps labels labels.
            parts = cv2.resize(split.load_parts(index), (side, side), interpolation=cv2.INTER_NEAREST)
        small = PILImage.fromarray(image).resize((side, side), PILImage.Resampling.BILINEAR)
        return np.asarray(small), np.asarray(parts) if parts is not None else None, (width, height)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(split.ids), 512):  # in blocks, so that memory stays bounded
            block = range(start, min(start + 512, len(split.ids)))
            yield from tqdm(pool.map(one, block), title, len(block), leave=False, disable=None)


def _checked(boxes: Boxes, size: tuple[int, int], image_id: str) -> Boxes:
    width, height = size
    x0, y0, x1, y1 = boxes.T
    inside = (x0 >= 0) & (y0 >= 0) & (x0 <= x1) & (y0 <= y1) & (x1 < width) & (y1 < height)
    if not inside.all():
        bad = boxes[~inside][0].tolist()
        raise InputError(f"{image_id}: box {bad} does not lie in the {width}x{height} image")
    return boxes
