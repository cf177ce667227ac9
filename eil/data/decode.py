"""Decode and check one image of a data set; the cache and `eil data check` both use it."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.data import IGNORED, Boxes, Image, Split, fingerprint
from eil.data.clipping import Overhang, clip
from eil.data.masks import ASPECT_TOLERANCE, require_aspect_ratio


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        image: (H, W, 3).
        content: SHA-256 of its file, or of its pixels if it has no file.
    """

    image: Image
    content: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class Annotation:
    """Boxes and mask of an image.

    Attributes:
        boxes: (K, 4) in the photo's pixels, clipped to it.
        mask: (h, w), or None.
        content: SHA-256 of the mask's files, or of its pixels if it has no file; "" without a mask.
        overhang: what of the boxes was clipped.
    """

    boxes: Boxes
    mask: Image | None
    content: str
    overhang: Overhang


def photo(split: Split, index: int) -> Photo:
    """Decode a photo.

    Raises:
        InputError: it cannot be decoded.
    """
    image, source = split.image(index), split.sources[index]
    has_file = any(True for _ in fingerprint.files_of(source))
    content = fingerprint.content_of(source) if has_file else hashlib.sha256(image.tobytes()).hexdigest()
    return Photo(image, content)


def annotation(split: Split, index: int, size: tuple[int, int], scored: bool) -> Annotation:
    """Boxes and mask of an image, checked.

    Args:
        split: of a data set.
        index: of the image in it.
        size: width and height of the photo as decoded.
        scored: whether the image is in val or test, where boxes are made from the mask if there are none.

    Raises:
        InputError: boxes drawn on another photo, a box outside the photo, or a mask without an object.
    """
    name, boxes, mask = split.ids[index], split.boxes[index], split.mask(index)
    content = ""
    if mask is not None and split.masks is not None:
        source = split.masks[index]
        has_file = any(True for _ in fingerprint.files_of(source))
        content = fingerprint.content_of(source) if has_file else hashlib.sha256(mask.tobytes()).hexdigest()
    if scored and mask is not None:
        require_aspect_ratio(mask.shape, size, name)
        if not ((mask > 0) & (mask != IGNORED)).any():
            raise InputError(f"{name}: its mask shows no object")
    if scored and mask is not None and not len(boxes):
        boxes = boxes_of_mask(mask)
        boxes = np.floor(boxes * np.array(size * 2) / np.array([mask.shape[1], mask.shape[0]] * 2))
    listed = split.box_sources[index] if split.box_sources is not None else ()
    where = [f"{each}: {name}" for each in listed] or name
    boxes, overhang = clip(_at_size(boxes, size, split.sizes, index, name), size, where)
    return Annotation(boxes, mask, content, overhang)


def _at_size(boxes: Boxes, size: tuple[int, int], sizes: npt.NDArray[np.int64] | None, index: int, name: str) -> Boxes:
    """Boxes scaled from the size at which they were drawn, if that is known and different."""
    if sizes is None or (drawn := tuple(map(int, sizes[index]))) == size:
        return boxes
    if abs(drawn[0] * size[1] - drawn[1] * size[0]) > ASPECT_TOLERANCE * size[0] * drawn[1]:
        swapped = ", or are width and height swapped in the list of sizes?" if drawn == size[::-1] else "?"
        raise InputError(
            f"{name}: is {size[0]}x{size[1]}, but its boxes were drawn at {drawn[0]}x{drawn[1]}: is it another photo"
            + swapped
        )
    return boxes * np.array(size * 2) / np.array(drawn * 2)


def boxes_of_mask(mask: Image) -> Boxes:
    """A box around the visible pixels of each object of a mask, (H, W) -> (K, 4)."""
    found = []
    for value in np.setdiff1d(np.unique(mask), [0, IGNORED]):
        ys, xs = np.nonzero(mask == value)
        found.append([xs.min(), ys.min(), xs.max(), ys.max()])
    return np.array(found, dtype=np.float64).reshape(-1, 4)
