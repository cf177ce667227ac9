"""From a score map to boxes at every threshold, by the conventions of the wsolevaluation benchmark.

A map is resized (bicubic), then normalised to 0..255. An 8-bit map has 255 thresholds that differ, 0 to 254:
pixels above the threshold are foreground. Every contour gives a box, borders of holes included.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from eil.data import Boxes, Image
from eil.evaluation import components
from eil.files import InputError

LEVELS: Final = components.LEVELS
Floats = npt.NDArray[np.float64]
Contours = Literal["all", "largest"]


def to_8_bit(score_map: npt.NDArray[np.floating], side: int) -> Image:
    """Resize a map (bicubic), then normalise it: ``floor(255 (m - min) / (max - min))``.

    Args:
        score_map: (h, w).
        side: of the square frame that boxes are given in.

    Returns:
        (side, side) uint8; a constant map gives zeros.

    Raises:
        InputError: the map holds NaN or infinity.
    """
    if not np.isfinite(score_map).all():
        raise InputError("a score map holds NaN or infinity")
    resized = cv2.resize(score_map.astype(np.float64), (side, side), interpolation=cv2.INTER_CUBIC)
    low, high = resized.min(), resized.max()
    if high <= low:
        return np.zeros((side, side), np.uint8)
    return ((resized - low) / (high - low) * 255).astype(np.uint8)


def boxes_at(image: Image, level: int) -> tuple[Floats, Floats]:
    """Boxes and areas of all contours of ``image > level``.

    Returns:
        Boxes (K, 4) as x0, y0, x1, y1, where x1 = x + w is clipped to the border as the benchmark does, and
        contour areas (K,); one box (0, 0, 0, 0) of area 0 if nothing is above the level.
    """
    height, width = image.shape
    contours, _ = cv2.findContours((image > level).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4)), np.zeros(1)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)  # x, y, w, h
    boxes[:, 2:] = np.minimum(boxes[:, :2] + boxes[:, 2:], (width - 1, height - 1))
    return boxes, np.array([cv2.contourArea(contour) for contour in contours])


def iou(boxes: Boxes, others: Boxes) -> Floats:
    """Intersection over union with inclusive corners, (K, 4), (L, 4) -> (K, L).

    >>> iou(np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9]])).round(3).tolist()
    [[0.333]]
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)  # (K, L)
    return np.asarray(shared / (_area(boxes)[:, None] + _area(others)[None] - shared))


def iou_curve(image: Image, boxes: Boxes, contours: Contours = "all") -> Floats:
    """Best IoU with any true box at each threshold, equal to what tracing contours at each of them gives.

    Args:
        image: 8-bit map, (H, W).
        boxes: true boxes in the same frame, (K, 4), K > 0.
        contours: the best of "all" contours' boxes, borders of holes included (MaxBoxAccV2), or the box of the
            contour with the "largest" area, the first of equals (MaxBoxAcc).

    Returns:
        (255,).
    """
    curve: Floats = (components.best_of_all if contours == "all" else components.largest)(image, boxes)
    return curve


def iou_curves(images: Sequence[Image], boxes: Sequence[Boxes], contours: Contours, threads: int = 1) -> Floats:
    """:func:`iou_curve` of N images, on several threads at once, (N, 255)."""
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(partial(iou_curve, contours=contours), images, boxes)))


def _area(boxes: Boxes) -> Floats:
    return np.asarray((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1))
