"""One box a threshold, at all thresholds of an 8-bit map: of the largest contour, or of all that is above.

Compiled by numba, without the GIL.
"""

import numba
import numpy as np

from eil.evaluation.union_find import LEVELS, Bytes, Floats, Ints, Parents, Rules, box_of, by_value, find, overlap


@numba.njit(nogil=True, cache=True)
def best_of_one(image: Bytes, boxes: Floats, rules: Rules, largest: bool) -> Floats:
    """IoU of one box at each level: that of the ``largest`` contour, or else that of all pixels above, (255,)."""
    frames = frame_of_largest(image) if largest else frame_of_union(image)
    height, width = image.shape
    curve = np.empty(LEVELS)
    for level in range(LEVELS):
        x0, y0, x1, y1 = frames[level, 0], frames[level, 1], frames[level, 2], frames[level, 3]
        box = rules.empty if x1 < 0 else box_of(x0, y0, x1, y1, height, width, rules)
        curve[level] = overlap(box, boxes, rules)
    return curve


@numba.njit(nogil=True, cache=True)
def frame_of_union(image: Bytes) -> Ints:
    """Columns and rows that hold all pixels above each level, (255, 4) as x0, y0, x1, y1; -1 if there are none."""
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
    return last[1:]  # above level t are the values from t + 1 on


@numba.njit(nogil=True, cache=True)
def frame_of_largest(image: Bytes) -> Ints:
    """Frame of the contour with the largest area at each level; of equals, the one that OpenCV lists first.

    No contour can have a larger area than one that nothing encloses. With all that is enclosed filled, each
    such contour bounds a component without holes, and its area, that of the polygon through the centres of its
    outermost pixels, is the count of 2x2 quads: 1 for each that is full, 1/2 for each with three pixels.

    Args:
        image: (H, W) uint8.

    Returns:
        (255, 4), first and last column and row as x0, y0, x1, y1; -1 where nothing is above.
    """
    height, width = image.shape
    stride = width + 2
    found = np.full((LEVELS, 4), -1, np.int64)
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
        if root == pixel:  # nothing is around it yet
            roots[alive] = pixel
            alive += 1
        following = filled[order[k + 1] // width, order[k + 1] % width] if k + 1 < order.size else 0
        if following < value:  # every pixel of this value is in: levels following .. value - 1 look like this
            alive = _living(roots, alive, parent)
            winner = _largest(roots, alive, area, first)
            for level in range(following, value):
                found[level] = frame[winner]
    return found


@numba.njit(nogil=True, cache=True, inline="always")  # a call for each pixel costs more than what it does
def _join(parent: Parents, frame: Ints, area: Ints, first: Ints, pixel: int, x: int, y: int, stride: int) -> int:
    """Let a new pixel and the components around it be one: frames and areas add up. Its root, itself if it is alone."""
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
    """The root with the largest area; of equals, the one that begins last, which OpenCV lists first."""
    winner = roots[0]
    for k in range(1, count):
        root = roots[k]
        if area[root] > area[winner] or (area[root] == area[winner] and first[root] > first[winner]):
            winner = root
    return winner


@numba.njit(nogil=True, cache=True)
def fill_holes(image: Bytes) -> Bytes:
    """The lowest value that must be crossed to reach each pixel from the border, 4-connected: (H, W) -> (H, W).

    At every level the foreground of the result is that of ``image`` with its holes filled.
    """
    height, width = image.shape
    filled = np.zeros((height, width), np.uint8)
    seen = np.zeros((height, width), np.bool_)
    # A queue for each value, as linked lists: a pixel enters once.
    head = np.full(256, -1, np.int32)
    after = np.full(height * width, -1, np.int32)
    for y in range(height):
        for x in range(width):
            if y in (0, height - 1) or x in (0, width - 1):
                value, pixel = image[y, x], y * width + x
                filled[y, x], seen[y, x] = value, True
                after[pixel], head[value] = head[value], pixel
    for level in range(256):
        while head[level] >= 0:
            pixel = head[level]
            head[level] = after[pixel]
            y, x = pixel // width, pixel % width
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and not seen[v, u]:
                    value = max(image[v, u], level)
                    filled[v, u], seen[v, u] = value, True
                    neighbour = v * width + u
                    after[neighbour], head[value] = head[value], neighbour
    return filled


@numba.njit(nogil=True, cache=True)
def _new_quads(parent: Parents, pixel: int, stride: int) -> int:
    """Twice the area that a pixel adds: each of its four quads gains 1/2 with its third and its fourth pixel."""
    added = 0
    for corner in (pixel - stride - 1, pixel - stride, pixel - 1, pixel):
        inside = 0
        for at in (corner, corner + 1, corner + stride, corner + stride + 1):
            inside += int(parent[at] >= 0)
        added += int(inside >= 3)
    return added


@numba.njit(nogil=True, cache=True)
def _living(roots: Parents, count: int, parent: Parents) -> int:
    """Keep the roots that no other component has taken in; their number."""
    kept = 0
    for k in range(count):
        if parent[roots[k]] == roots[k]:
            roots[kept] = roots[k]
            kept += 1
    return kept
