"""One box per threshold, at all thresholds of an 8-bit map: of the largest contour, or around all foreground.

Compiled by numba, without the GIL.
"""

import numba
import numpy as np

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


@numba.njit(nogil=True, cache=True)
def iou_of_one_box(image: Bytes, boxes: Floats, convention: BoxConvention, largest: bool) -> Floats:
    """IoU of one box at each threshold: that of the ``largest`` contour, or else that around all foreground, (255,)."""
    frames = frame_of_largest(image) if largest else frame_of_union(image)
    height, width = image.shape
    curve = np.empty(N_THRESHOLDS)
    for threshold in range(N_THRESHOLDS):
        x0, y0, x1, y1 = frames[threshold, 0], frames[threshold, 1], frames[threshold, 2], frames[threshold, 3]
        box = convention.empty if x1 < 0 else box_of(x0, y0, x1, y1, height, width, convention)
        curve[threshold] = best_iou(box, boxes, convention)
    return curve


@numba.njit(nogil=True, cache=True)
def frame_of_union(image: Bytes) -> Ints:
    """First and last column and row of the foreground at each threshold, (255, 4) as x0, y0, x1, y1; -1 if empty."""
    height, width = image.shape
    last = np.full((256, 4), -1, np.int64)
    for y in range(height):
        for x in range(width):
            value = image[y, x]
            if last[value, 2] < 0:
                last[value] = (x, y, x, y)
            last[value, 0], last[value, 2] = min(last[value, 0], x), max(last[value, 2], x)
            last[value, 3] = y
    for value in range(254, 0, -1):
        if last[value, 2] < 0:
            last[value] = last[value + 1]
        elif last[value + 1, 2] >= 0:
            for k in range(2):
                last[value, k] = min(last[value, k], last[value + 1, k])
                last[value, k + 2] = max(last[value, k + 2], last[value + 1, k + 2])
    return last[1:]  # foreground at threshold t has values of t + 1 or more


@numba.njit(nogil=True, cache=True)
def frame_of_largest(image: Bytes) -> Ints:
    """Frame of the contour with the largest area at each threshold; in a tie, the one that OpenCV lists first.

    The largest contour is an outermost one. After holes are filled, each outermost contour bounds a component without
    holes. Its area (of the polygon through the centres of its border pixels) is a count of 2x2 quads: 1 for each full
    quad, 1/2 for each quad with three pixels.

    Args:
        image: (H, W) uint8.

    Returns:
        (255, 4), first and last column and row as x0, y0, x1, y1; -1 if there is no foreground.
    """
    height, width = image.shape
    stride = width + 2
    found = np.full((N_THRESHOLDS, 4), -1, np.int64)
    filled = fill_holes(image)
    order = by_value(filled)[::-1]
    parent = np.full((height + 2) * stride, -1, np.int32)
    frame = np.empty((parent.size, 4), np.int64)
    area = np.zeros(parent.size, np.int64)  # twice the contour's area
    first = np.empty(parent.size, np.int64)  # a component's first pixel, row by row
    roots = np.empty(order.size, np.int32)
    alive = 0
    for k in range(order.size):
        y, x = order[k] // width, order[k] % width
        value = filled[y, x]
        if value == 0:
            break
        pixel = (y + 1) * stride + x + 1
        root = _join(parent, frame, area, first, pixel, x, y, stride)
        if root == pixel:  # a new component
            roots[alive] = pixel
            alive += 1
        following = filled[order[k + 1] // width, order[k + 1] % width] if k + 1 < order.size else 0
        if following < value:  # all pixels of this value are added: the foreground at thresholds following .. value - 1
            alive = _living(roots, alive, parent)
            winner = _largest(roots, alive, area, first)
            for threshold in range(following, value):
                found[threshold] = frame[winner]
    return found


@numba.njit(nogil=True, cache=True, inline="always")  # a call for each pixel costs more than what it does
def _join(parent: Parents, frame: Ints, area: Ints, first: Ints, pixel: int, x: int, y: int, stride: int) -> int:
    """Merge a new pixel with the components around it, their frames and areas; returns the root."""
    parent[pixel] = pixel
    added = _new_quads(parent, pixel, stride)
    root = pixel
    for dy in (-stride, 0, stride):
        for dx in (-1, 0, 1):
            other = find(parent, pixel + dy + dx)
            if other < 0 or other == root:
                continue
            if root == pixel:
                frame[other, 0], frame[other, 1] = min(x, frame[other, 0]), min(y, frame[other, 1])
                frame[other, 2], frame[other, 3] = max(x, frame[other, 2]), max(y, frame[other, 3])
                first[other] = min(first[other], pixel)
            else:
                area[other] += area[root]
                first[other] = min(first[other], first[root])
                for k in range(2):
                    frame[other, k] = min(frame[other, k], frame[root, k])
                    frame[other, k + 2] = max(frame[other, k + 2], frame[root, k + 2])
            parent[root] = other
            root = other
    if root == pixel:
        first[root] = pixel
        frame[root, 0], frame[root, 1], frame[root, 2], frame[root, 3] = x, y, x, y
    area[root] += added
    return root


@numba.njit(nogil=True, cache=True)
def _largest(roots: Parents, count: int, area: Ints, first: Ints) -> int:
    """The root with the largest area; in a tie, the one whose first pixel comes last, which OpenCV lists first."""
    winner = roots[0]
    for k in range(1, count):
        root = roots[k]
        if area[root] > area[winner] or (area[root] == area[winner] and first[root] > first[winner]):
            winner = root
    return winner


@numba.njit(nogil=True, cache=True)
def fill_holes(image: Bytes) -> Bytes:
    """Fill the holes of the foreground at all thresholds at once, (H, W) -> (H, W).

    Each pixel gets the smallest maximum of ``image`` along a 4-connected path to the border, so that the result's
    foreground at every threshold is that of ``image`` with its holes filled.
    """
    height, width = image.shape
    filled = np.zeros((height, width), np.uint8)
    seen = np.zeros((height, width), np.bool_)
    # A queue for each value, as linked lists; every pixel is queued once.
    head = np.full(256, -1, np.int32)
    after = np.full(height * width, -1, np.int32)
    for y in range(height):
        for x in range(width):
            if y in (0, height - 1) or x in (0, width - 1):
                value, pixel = image[y, x], y * width + x
                filled[y, x], seen[y, x] = value, True
                after[pixel], head[value] = head[value], pixel
    for grey in range(256):
        while head[grey] >= 0:
            pixel = head[grey]
            head[grey] = after[pixel]
            y, x = pixel // width, pixel % width
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and not seen[v, u]:
                    value = max(image[v, u], grey)
                    filled[v, u], seen[v, u] = value, True
                    neighbour = v * width + u
                    after[neighbour], head[value] = head[value], neighbour
    return filled


@numba.njit(nogil=True, cache=True)
def _new_quads(parent: Parents, pixel: int, stride: int) -> int:
    """Twice the area that a pixel adds: its third and its fourth pixel each add 1/2 to a quad."""
    added = 0
    for corner in (pixel - stride - 1, pixel - stride, pixel - 1, pixel):
        inside = 0
        for index in (corner, corner + 1, corner + stride, corner + stride + 1):
            inside += int(parent[index] >= 0)
        added += int(inside >= 3)
    return added


@numba.njit(nogil=True, cache=True)
def _living(roots: Parents, count: int, parent: Parents) -> int:
    """Keep the roots that were not merged into another component; returns their number."""
    kept = 0
    for k in range(count):
        if parent[roots[k]] == roots[k]:
            roots[kept] = roots[k]
            kept += 1
    return kept
