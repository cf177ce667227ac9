"""Connected components of an 8-bit map at all its thresholds at once, compiled by numba, without the GIL.

As the threshold falls, foreground components (8-connected) grow and merge; as it rises, so do those of the
background (4-connected), of which those that do not touch the border are holes. One pass of union-find over
the pixels, sorted by value, finds every component at every threshold; a loop over thresholds would trace all contours
again at each. A component that does not change from one threshold to the next costs nothing.
"""

import numba
import numpy as np
import numpy.typing as npt

from eil.evaluation.box_conventions import N_THRESHOLDS, BoxConvention
from eil.evaluation.union_find import (
    Bytes,
    Floats,
    Ints,
    Parents,
    best_iou,
    box_of,
    by_value,
    find,
)

Frames = npt.NDArray[np.int16]


@numba.njit(nogil=True, cache=True)
def best_iou_of_contours(image: Bytes, boxes: Floats, convention: BoxConvention) -> Floats:
    """Best IoU of any contour's box, borders of holes included, at each threshold.

    Args:
        image: (H, W) uint8; a pixel is foreground at threshold t if its value is above t.
        boxes: true boxes, (K, 4) as x0, y0, x1, y1.
        convention: where a box ends, and how its area is measured.

    Returns:
        (255,).
    """
    best = np.zeros(N_THRESHOLDS)
    best[image.max() :] = best_iou(convention.empty, boxes, convention)  # nothing is above
    order = by_value(image)
    _sweep(image, boxes, order[::-1], best, False, convention)
    _sweep(image, boxes, order, best, True, convention)
    return best


@numba.njit(nogil=True, cache=True)
def _sweep(image: Bytes, boxes: Floats, order: Ints, best: Floats, holes: bool, convention: BoxConvention) -> None:
    """Union-find over pixels in ``order``; raises ``best`` to the IoU of every component at its thresholds."""
    height, width = image.shape
    stride = width + 2  # a border of background pixels saves a check for every neighbour
    parent = np.full((height + 2) * stride, -1, np.int32)
    frame = np.empty((parent.size, 4), np.int16)  # x0, y0, x1, y1 of a root's pixels
    since = np.empty(parent.size, np.int16)  # the pixel value at which a root got its present frame
    offsets = np.array([-1, 1, -stride, stride, -stride - 1, -stride + 1, stride - 1, stride + 1])
    for position in order:
        y, x = position // width, position % width
        value = int(image[y, x])
        if value == 0 and not holes:
            break  # never above a threshold
        pixel = (y + 1) * stride + x + 1
        root = -1
        for k in range(4 if holes else 8):
            other = find(parent, pixel + offsets[k])
            if other < 0 or other == root:
                continue
            if root < 0:
                root = other
                parent[pixel] = root
                _join(frame, since, root, x, y, value, boxes, best, holes, height, width, convention)
            else:
                _merge(parent, frame, since, root, other, value, boxes, best, holes, height, width, convention)
                root = other
        if root < 0:
            parent[pixel], since[pixel] = pixel, value
            frame[pixel, 0], frame[pixel, 1], frame[pixel, 2], frame[pixel, 3] = x, y, x, y
    for root in range(parent.size):
        if parent[root] == root:
            _settle(
                frame[root], since[root], N_THRESHOLDS if holes else 0, boxes, best, holes, height, width, convention
            )


@numba.njit(nogil=True, cache=True, inline="always")  # a call for each pixel would take half of the time
def _join(
    frame: Frames,
    since: Frames,
    root: int,
    x: int,
    y: int,
    value: int,
    boxes: Floats,
    best: Floats,
    holes: bool,
    height: int,
    width: int,
    convention: BoxConvention,
) -> None:
    """Add one pixel to ``root``; most pixels lie within its frame, which then does not change."""
    x0, y0, x1, y1 = frame[root, 0], frame[root, 1], frame[root, 2], frame[root, 3]
    if x0 <= x <= x1 and y0 <= y <= y1:
        return
    if since[root] != value:
        _settle(frame[root], since[root], value, boxes, best, holes, height, width, convention)
    since[root] = value
    frame[root, 0], frame[root, 1], frame[root, 2], frame[root, 3] = min(x, x0), min(y, y0), max(x, x1), max(y, y1)


@numba.njit(nogil=True, cache=True)
def _merge(
    parent: Parents,
    frame: Frames,
    since: Frames,
    root: int,
    other: int,
    value: int,
    boxes: Floats,
    best: Floats,
    holes: bool,
    height: int,
    width: int,
    convention: BoxConvention,
) -> None:
    """Merge ``root`` into ``other``; score the old frame of each over the thresholds at which it existed."""
    x0, y0 = min(frame[root, 0], frame[other, 0]), min(frame[root, 1], frame[other, 1])
    x1, y1 = max(frame[root, 2], frame[other, 2]), max(frame[root, 3], frame[other, 3])
    for old in (root, other):
        if frame[old, 0] != x0 or frame[old, 1] != y0 or frame[old, 2] != x1 or frame[old, 3] != y1:
            if since[old] != value:
                _settle(frame[old], since[old], value, boxes, best, holes, height, width, convention)
            since[old] = value
    # Of two equal frames, the one that existed first counts.
    since[other] = min(since[root], since[other]) if holes else max(since[root], since[other])
    parent[root] = other
    frame[other, 0], frame[other, 1], frame[other, 2], frame[other, 3] = x0, y0, x1, y1


@numba.njit(nogil=True, cache=True)
def _settle(
    frame: Frames,
    since: int,
    until: int,
    boxes: Floats,
    best: Floats,
    holes: bool,
    height: int,
    width: int,
    convention: BoxConvention,
) -> None:
    """Score a frame over the thresholds at which it existed.

    Foreground with values down to ``since`` exists at thresholds ``until`` .. ``since - 1``, a hole with values up
    to ``since`` at thresholds ``since`` .. ``until - 1``.
    """
    x0, y0, x1, y1 = frame[0], frame[1], frame[2], frame[3]
    if holes:
        if x0 == 0 or y0 == 0 or x1 == width - 1 or y1 == height - 1:
            return
        low, high = since, min(until, N_THRESHOLDS)
        x0, y0, x1, y1 = x0 - 1, y0 - 1, x1 + 1, y1 + 1  # the contour runs on the pixels around
    else:
        low, high = until, since
    if low >= high:
        return
    iou = best_iou(box_of(x0, y0, x1, y1, height, width, convention), boxes, convention)
    for threshold in range(low, high):
        best[threshold] = max(best[threshold], iou)
