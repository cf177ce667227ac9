"""From an 8-bit map to boxes, and to their IoU with the true ones, at every threshold.

An 8-bit map has 255 distinct thresholds, 0 to 254: pixels above the threshold are foreground.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from eil.data import NO_BOX, Boxes, Image
from eil.evaluation import components, largest_box, union_find
from eil.evaluation.box_conventions import N_THRESHOLDS, BoxConvention
from eil.evaluation.protocols import Contours, Protocol

Floats = npt.NDArray[np.float64]
BENCHMARK = BoxConvention()


def iou_curve(image: Image, boxes: Boxes, contours: Contours = "all", convention: BoxConvention = BENCHMARK) -> Floats:
    """IoU of the predicted box with the best true box at each threshold; equals tracing contours at each of them.

    A map without foreground (one without contrast) has no box, and IoU 0 at every threshold.

    Args:
        image: 8-bit map, (H, W).
        boxes: true boxes in the same frame, (K, 4), K > 0.
        contours: the predicted box is the best of "all" contours' boxes, borders of holes included (MaxBoxAccV2); the
            box of the contour with the "largest" area, the first one in a tie (MaxBoxAcc); or the box around the
            "union" of all foreground.
        convention: where a box ends, and how its area is measured.

    Returns:
        (255,).
    """
    if not image.any():
        curve: Floats = np.zeros(N_THRESHOLDS)
    elif contours == "all":
        curve = components.best_iou_of_contours(image, boxes, convention)
    else:
        curve = largest_box.iou_of_one_box(image, boxes, convention, contours == "largest")
    return curve


def iou_curves(
    images: Sequence[Image],
    boxes: Sequence[Boxes],
    contours: Contours,
    convention: BoxConvention = BENCHMARK,
    threads: int = 1,
) -> Floats:
    """:func:`iou_curve` of N images, on several threads, (N, 255)."""
    with ThreadPoolExecutor(threads) as pool:
        curves = pool.map(lambda image, true: iou_curve(image, true, contours, convention), images, boxes)
        return np.stack(list(curves))


def predicted_boxes(image: Image, threshold: int, protocol: Protocol) -> Boxes:
    """The boxes that a protocol predicts at a threshold. Scores, figures, exports and error types all use them.

    Their best IoU with the true boxes (:func:`best_ious`) equals :func:`iou_curve` at the threshold.

    Args:
        image: 8-bit map, (S, S).
        threshold: pixels above it are foreground, 0 to 254.
        protocol: gives the contours, the end of a box, and the box if no pixel is above the threshold.

    Returns:
        (K, 4) as x0, y0, x1, y1: the box of the largest contour, the box around all foreground, or the boxes of all
        contours, of which the best is scored. (0, 4) if the map has no contrast.
    """
    if not image.any():
        return NO_BOX
    convention = protocol.box_convention
    if protocol.contours != "union":
        boxes, areas = boxes_at(image, threshold, convention)
        return boxes if protocol.contours == "all" else boxes[[areas.argmax()]]
    rows, columns = np.nonzero(image > threshold)
    if not len(rows):
        return np.array([convention.empty], dtype=np.float64)
    x0, y0, x1, y1 = int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())
    height, width = image.shape
    return np.array([union_find.box_of(x0, y0, x1, y1, height, width, convention)], dtype=np.float64)


def best_ious(predicted: Boxes, true: Boxes, convention: BoxConvention = BENCHMARK) -> Floats:
    """Best IoU of each predicted box with any true box, (K, 4), (L, 4) -> (K,)."""
    return np.array([union_find.best_iou(tuple(box), true, convention) for box in predicted.tolist()], np.float64)


def scored_box(predicted: Boxes, true: Boxes, convention: BoxConvention = BENCHMARK) -> Boxes:
    """The predicted box that is scored: the one with the best IoU, (K, 4), (L, 4) -> (1, 4), or (0, 4) if K = 0."""
    return predicted[[best_ious(predicted, true, convention).argmax()]] if len(predicted) else predicted


def boxes_at(image: Image, threshold: int, convention: BoxConvention = BENCHMARK) -> tuple[Floats, Floats]:
    """Boxes and areas of all contours of ``image > threshold``, by OpenCV.

    Returns:
        Boxes (K, 4) as x0, y0, x1, y1, which end where the convention says (by default at x + w, clipped to the
        border), and contour areas (K,). If no pixel is above the threshold: the convention's empty box, of area 0.
    """
    height, width = image.shape
    contours, _ = cv2.findContours((image > threshold).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.array([convention.empty], dtype=np.float64), np.zeros(1)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], dtype=np.float64)  # x, y, w, h
    boxes[:, 2:] += boxes[:, :2] - 1 + convention.beyond
    if convention.clipped:
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
