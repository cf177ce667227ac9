"""From an 8-bit map to boxes and to their overlap with the true ones, at every threshold.

An 8-bit map has 255 thresholds that differ, 0 to 254: pixels above the threshold are foreground.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from eil.data import NO_BOX, Boxes, Image
from eil.evaluation import components, largest_box, union_find
from eil.evaluation.protocols import Contours, Protocol
from eil.evaluation.union_find import Rules

Floats = npt.NDArray[np.float64]
BENCHMARK = Rules()


def iou_curve(image: Image, boxes: Boxes, contours: Contours = "all", rules: Rules = BENCHMARK) -> Floats:
    """Best IoU with any true box at each threshold, equal to what tracing contours at each of them gives.

    An image without foreground (that of a map without contrast) has no box, and IoU 0 at every threshold.

    Args:
        image: 8-bit map, (H, W).
        boxes: true boxes in the same frame, (K, 4), K > 0.
        contours: the best of "all" contours' boxes, borders of holes included (MaxBoxAccV2); the box of the
            contour with the "largest" area, the first of equals (MaxBoxAcc); or that around the "union".
        rules: where a box ends, and what an area is.

    Returns:
        (255,).
    """
    if not image.any():
        curve: Floats = np.zeros(union_find.LEVELS)
    elif contours == "all":
        curve = components.best_of_all(image, boxes, rules)
    else:
        curve = largest_box.best_of_one(image, boxes, rules, contours == "largest")
    return curve


def iou_curves(
    images: Sequence[Image], boxes: Sequence[Boxes], contours: Contours, rules: Rules = BENCHMARK, threads: int = 1
) -> Floats:
    """:func:`iou_curve` of N images, on several threads at once, (N, 255)."""
    with ThreadPoolExecutor(threads) as pool:
        curves = pool.map(lambda image, true: iou_curve(image, true, contours, rules), images, boxes)
        return np.stack(list(curves))


def predicted_boxes(image: Image, threshold: int, protocol: Protocol) -> Boxes:
    """What a protocol predicts at a threshold; what is scored, drawn, exported and counted as an error.

    Its best IoU with the true boxes (:func:`overlaps`) is what :func:`iou_curve` has at the threshold.

    Args:
        image: 8-bit map, (S, S).
        threshold: pixels above it are foreground, 0 to 254.
        protocol: whose contours, end of a box, and box where nothing is above the threshold.

    Returns:
        (K, 4) as x0, y0, x1, y1: the box of the largest contour, that round all foreground, or those of all contours,
        of which the best counts. (0, 4) if the map has no contrast.
    """
    if not image.any():
        return NO_BOX
    if protocol.contours != "union":
        boxes, areas = boxes_at(image, threshold, protocol.rules)
        return boxes if protocol.contours == "all" else boxes[[areas.argmax()]]
    rows, columns = np.nonzero(image > threshold)
    if not len(rows):
        return np.array([protocol.rules.empty], dtype=np.float64)
    x0, y0, x1, y1 = int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())
    height, width = image.shape
    return np.array([union_find.box_of(x0, y0, x1, y1, height, width, protocol.rules)], dtype=np.float64)


def overlaps(predicted: Boxes, true: Boxes, rules: Rules = BENCHMARK) -> Floats:
    """Best IoU of each predicted box with any true one by a protocol's rules, (K, 4), (L, 4) -> (K,)."""
    return np.array([union_find.overlap(tuple(box), true, rules) for box in predicted.tolist()], dtype=np.float64)


def counted(predicted: Boxes, true: Boxes, rules: Rules = BENCHMARK) -> Boxes:
    """The one of the predicted boxes that is scored, which has the best IoU: (K, 4), (L, 4) -> (1, 4), of none none."""
    return predicted[[overlaps(predicted, true, rules).argmax()]] if len(predicted) else predicted


def boxes_at(image: Image, level: int, rules: Rules = BENCHMARK) -> tuple[Floats, Floats]:
    """Boxes and areas of all contours of ``image > level``, by OpenCV.

    Returns:
        Boxes (K, 4) as x0, y0, x1, y1, which end as the rules have it (by default at x + w, clipped to the border), and
        contour areas (K,); the rules' one empty box, of area 0, if nothing is above the level.
    """
    height, width = image.shape
    contours, _ = cv2.findContours((image > level).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.array([rules.empty], dtype=np.float64), np.zeros(1)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)  # x, y, w, h
    boxes[:, 2:] += boxes[:, :2] - 1 + rules.beyond
    if rules.clipped:
        boxes[:, 2:] = np.minimum(boxes[:, 2:], (width - 1, height - 1))
    return boxes, np.array([cv2.contourArea(contour) for contour in contours])


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
