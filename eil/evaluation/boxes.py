"""From an 8-bit map to boxes and to their overlap with the true ones, at every threshold.

An 8-bit map has 255 thresholds that differ, 0 to 254: pixels above the threshold are foreground.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from eil.data import Boxes, Image
from eil.evaluation import components, largest
from eil.evaluation.pixels import Rules
from eil.evaluation.protocols import Contours

Floats = npt.NDArray[np.float64]
BENCHMARK = Rules()


def iou_curve(image: Image, boxes: Boxes, contours: Contours = "all", rules: Rules = BENCHMARK) -> Floats:
    """Best IoU with any true box at each threshold, equal to what tracing contours at each of them gives.

    Args:
        image: 8-bit map, (H, W).
        boxes: true boxes in the same frame, (K, 4), K > 0.
        contours: the best of "all" contours' boxes, borders of holes included (MaxBoxAccV2); the box of the
            contour with the "largest" area, the first of equals (MaxBoxAcc); or that around the "union".
        rules: where a box ends, and what an area is.

    Returns:
        (255,).
    """
    if contours == "all":
        curve: Floats = components.best_of_all(image, boxes, rules)
    else:
        curve = largest.best_of_one(image, boxes, rules, contours == "largest")
    return curve


def iou_curves(
    images: Sequence[Image], boxes: Sequence[Boxes], contours: Contours, rules: Rules = BENCHMARK, threads: int = 1
) -> Floats:
    """:func:`iou_curve` of N images, on several threads at once, (N, 255)."""
    with ThreadPoolExecutor(threads) as pool:
        curves = pool.map(lambda image, true: iou_curve(image, true, contours, rules), images, boxes)
        return np.stack(list(curves))


def boxes_at(image: Image, level: int) -> tuple[Floats, Floats]:
    """Boxes and areas of all contours of ``image > level``, by OpenCV.

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


def largest_box(image: Image, level: int) -> Floats:
    """Box of the contour with the largest area at a level, (4,)."""
    boxes, areas = boxes_at(image, level)
    box: Floats = boxes[areas.argmax()]
    return box


def iou(boxes: Boxes, others: Boxes) -> Floats:
    """Intersection over union with inclusive corners, (K, 4), (L, 4) -> (K, L).

    >>> iou(np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9]])).round(3).tolist()
    [[0.333]]
    """
    shared = intersection(boxes, others)
    return np.asarray(shared / (area(boxes)[:, None] + area(others)[None] - shared))


def intersection(boxes: Boxes, others: Boxes) -> Floats:
    """Shared pixels, (K, 4), (L, 4) -> (K, L)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low + 1, 0, None).prod(axis=2))


def area(boxes: Boxes) -> Floats:
    """Pixels of each box, (K, 4) -> (K,)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1))
