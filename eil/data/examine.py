"""One image of a data set, decoded and checked: what both the cache and `eil data check` do with each."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eil.data import IGNORED, Boxes, Image, Split
from eil.data.clipping import Overhang, clip
from eil.files import InputError

SAME_SHAPE = 0.02  # relative difference of two aspect ratios that rounding explains


@dataclass(frozen=True)
class Examined:
    """One image, checked.

    Attributes:
        image: (H, W, 3).
        mask: (h, w), or None.
        boxes: (K, 4) in the image's pixels.
        content: SHA-256 of its file, or of its pixels where it has none.
        fingerprint: SHA-256 of its name, label, boxes and content.
        overhang: of the boxes that reach beyond the image, before they were clipped to it.
    """

    image: Image
    mask: Image | None
    boxes: Boxes
    content: str
    fingerprint: str
    overhang: Overhang


def examine(split: Split, index: int, scored: bool) -> Examined:
    """Decode an image and check it; boxes that reach beyond it are clipped.

    Args:
        split: of a data set.
        index: of the image in it.
        scored: whether the image is of val or test.

    Raises:
        InputError: an image that cannot be decoded or is another one than its boxes were drawn on, a box of which
            nothing lies in the image, or a mask without an object.
    """
    image, mask, name = split.image(index), split.mask(index), split.ids[index]
    size = (image.shape[1], image.shape[0])
    boxes = split.boxes[index]
    if scored and mask is not None and not len(boxes):
        boxes = around(mask)
        if not len(boxes):
            raise InputError(f"{name}: its mask shows no object")
        boxes = np.floor(boxes * np.array(size * 2) / np.array([mask.shape[1], mask.shape[0]] * 2))
    boxes = _at_size(boxes, size, split.sizes, index, name)
    listed = split.box_sources[index] if split.box_sources is not None else ()
    boxes, overhang = clip(boxes, size, [f"{where}: {name}" for where in listed] or name)
    source = split.sources[index]
    content = hashlib.sha256(source.read_bytes() if isinstance(source, Path) else image.tobytes()).hexdigest()
    whole = f"{name},{split.labels[index]},{boxes.tolist()},{content}"
    return Examined(image, mask, boxes, content, hashlib.sha256(whole.encode()).hexdigest(), overhang)


def _at_size(boxes: Boxes, size: tuple[int, int], sizes: npt.NDArray[np.int64] | None, index: int, name: str) -> Boxes:
    """Boxes scaled from the size at which they were drawn, if that is known and another."""
    if sizes is None or (drawn := tuple(map(int, sizes[index]))) == size:
        return boxes
    if abs(drawn[0] * size[1] - drawn[1] * size[0]) > SAME_SHAPE * size[0] * drawn[1]:
        swapped = ", or are width and height swapped in the list of sizes?" if drawn == size[::-1] else "?"
        raise InputError(
            f"{name}: is {size[0]}x{size[1]}, but its boxes were drawn at {drawn[0]}x{drawn[1]}: is it another photo"
            + swapped
        )
    return boxes * np.array(size * 2) / np.array(drawn * 2)


def around(mask: Image) -> Boxes:
    """A box round what is to be seen of each object of a mask, (K, 4)."""
    found = []
    for value in np.setdiff1d(np.unique(mask), [0, IGNORED]):
        ys, xs = np.nonzero(mask == value)
        found.append([xs.min(), ys.min(), xs.max(), ys.max()])
    return np.array(found, dtype=np.float64).reshape(-1, 4)
