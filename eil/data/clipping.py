"""Clip boxes that reach beyond their photo, and count them.

30 of CUB-200-2011's 11,788 boxes reach up to 32 pixels beyond their photo; the lists of the wsolevaluation benchmark
hold them clipped to the last pixel. Readers, ``eil score``, ``MaxBoxAcc`` and exports all use :func:`clip`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError

Boxes = npt.NDArray[np.float64]
TOLERATED_SHARE = 0.01  # of boxes beyond their photo, if sizes come from a list that may have them swapped
TOLERATED_OVERHANG = 0.5  # of a box's width or height, for the same check


@dataclass(frozen=True)
class Overhang:
    """How many boxes reach beyond their photo, and how far.

    Attributes:
        boxes: number of boxes.
        beyond: how many of them reach beyond.
        pixels: the worst overhang.
        share: the worst overhang as a share of its box's own width or height.
        where: the box with the worst overhang, for messages.
    """

    boxes: int = 0
    beyond: int = 0
    pixels: float = 0.0
    share: float = 0.0
    where: str = ""

    def __add__(self, other: "Overhang") -> "Overhang":
        """The sum of both."""
        worst = self if self.pixels >= other.pixels else other
        return Overhang(
            self.boxes + other.boxes,
            self.beyond + other.beyond,
            worst.pixels,
            max(self.share, other.share),
            worst.where,
        )

    @property
    def remark(self) -> str:
        """One line about what was clipped; "" if nothing was."""
        if not self.beyond:
            return ""
        verbs = ("reaches", "was") if self.beyond == 1 else ("reach", "were")
        pixels = "1 pixel" if self.pixels == 1 else f"{self.pixels:g} pixels"
        doubt = " (more than half of a box: are x and y swapped?)" if self.share > TOLERATED_OVERHANG else ""
        return (
            f"{self.beyond} of {self.boxes} boxes {verbs[0]} beyond the photo and {verbs[1]} clipped to it, the worst "
            f"by {pixels}{doubt}: {self.where}"
        )

    def require_plausible(self) -> None:
        """Refuse boxes that suggest swapped sizes; a single box beyond its photo is always accepted.

        Raises:
            InputError: a box overhangs by more than half of itself, or more than 1 % of all boxes (and more than one)
                reach beyond their photo.
        """
        many = self.beyond > max(1, TOLERATED_SHARE * self.boxes)
        if many or self.share > TOLERATED_OVERHANG:
            raise InputError(
                f"{self.beyond} of {self.boxes} boxes reach beyond their photo, the worst by {self.pixels:g} pixels "
                f"({self.where}): are width and height swapped in the image sizes, or x and y in the boxes?"
            )


def clip(boxes: Boxes, size: tuple[int, int], where: str | Sequence[str]) -> tuple[Boxes, Overhang]:
    """Clip boxes to their photo.

    A box that ends at the pixel just beyond the last one (x + width, or counted from 1) follows another convention: it
    is clipped without being counted.

    Args:
        boxes: (K, 4) as x0, y0, x1, y1, inclusive corners in pixels of the photo.
        size: width and height of the photo.
        where: file and line, or the image's id, for messages; one for all boxes, or one for each.

    Returns:
        The boxes within 0 .. width - 1 and 0 .. height - 1, (K, 4), and what was clipped.

    Raises:
        InputError: corners that are not finite or in the wrong order, or a box outside the photo.
    """
    if not len(boxes):
        return boxes, Overhang()
    wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, :2] <= boxes[:, 2:]).all(axis=1))  # (K,)
    if np.any(wrong):
        k = int(np.argmax(wrong))
        raise InputError(f"{_of_box(where, k)}: box {boxes[k].tolist()}: expected x0 <= x1 and y0 <= y1")
    end = np.array(size, dtype=np.float64)
    outside = (boxes[:, :2] > end - 1).any(axis=1) | (boxes[:, 2:] < 0).any(axis=1)  # (K,)
    if np.any(outside):
        k = int(np.argmax(outside))
        photo = f"{size[0]}x{size[1]} photo"
        raise InputError(
            f"{_of_box(where, k)}: box {boxes[k].tolist()} lies outside the {photo}: nothing of it is left"
        )
    over = np.maximum(np.maximum(-boxes[:, :2], boxes[:, 2:] - end), 0)  # (K, 2): pixels beyond, in x and in y
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    beyond = int((over > 0).any(axis=1).sum())
    worst = _of_box(where, int(over.max(axis=1).argmax())) if beyond else ""
    found = Overhang(len(boxes), beyond, float(over.max()), float((over / sides).max()), worst)
    return np.clip(boxes, 0, np.concatenate([end, end]) - 1), found


def _of_box(where: str | Sequence[str], index: int) -> str:
    return where if isinstance(where, str) else where[index]
