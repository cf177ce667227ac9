"""Connected components of an 8-bit map at all its thresholds at once, compiled by numba, without the GIL.

As the threshold falls, foreground components (8-connected) grow and merge; as it rises, so do those of the
background (4-connected), of which those that do not touch the border are holes. One pass of union-find over
the pixels in the order of their values meets every component at every threshold, where a loop over
thresholds traces all contours anew. A component that a step leaves as it was costs nothing in that step.
"""

import numba
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Parents = npt.NDArray[np.int32]
Frames = npt.NDArray[np.int16]
LEVELS = 255


@numba.njit(nogil=True, cache=True)
def best_of_all(image: Bytes, boxes: Floats) -> Floats:
    """Best IoU of any contour's box, borders of holes included, at each level.

    Args:
        image: (H, W) uint8; a pixel is foreground at level t if it is above t.
        boxes: true boxes, (K, 4) as x0, y0, x1, y1, inclusive.

    Returns:
        (255,).
    """
    best = np.zeros(LEVELS)
    best[image.max() :] = overlap(0, 0, 0, 0, boxes)  # nothing is above
    order = by_value(image)
    _sweep(image, boxes, order[::-1], best, False)
    _sweep(image, boxes, order, best, True)
    return best


@numba.njit(nogil=True, cache=True)
def _sweep(image: Bytes, boxes: Floats, order: Ints, best: Floats, holes: bool) -> None:
    """Union-find over pixels in ``order``; raises ``best`` to the IoU of every component while it lives."""
    height, width = image.shape
    stride = width + 2  # a border of pixels that belong to nothing spares the check of every neighbour
    parent = np.full((height + 2) * stride, -1, np.int32)
    frame = np.empty((parent.size, 4), np.int16)  # x0, y0, x1, y1 of a root's pixels
    since = np.empty(parent.size, np.int16)  # the value with which a root took its present frame
    offsets = np.array([-1, 1, -stride, stride, -stride - 1, -stride + 1, stride - 1, stride + 1])
    for position in order:
        y, x = position // width, position % width
        value = int(image[y, x])
        if value == 0 and not holes:
            break  # never above a threshold
        root = (y + 1) * stride + x + 1
        pixel = root
        parent[root], since[root] = root, value
        frame[root, 0], frame[root, 1], frame[root, 2], frame[root, 3] = x, y, x, y
        for k in range(4 if holes else 8):
            neighbour = pixel + offsets[k]
            if parent[neighbour] >= 0:
                other = find(parent, neighbour)
                if other != root:
                    _merge(parent, frame, since, root, other, value, boxes, best, holes, height, width)
                    root = other
    for root in range(parent.size):
        if parent[root] == root:
            _settle(frame[root], since[root], LEVELS if holes else 0, boxes, best, holes, height, width)


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
) -> None:
    """Let ``other`` take ``root`` in; what each was before is scored over the levels at which it was that."""
    x0, y0 = min(frame[root, 0], frame[other, 0]), min(frame[root, 1], frame[other, 1])
    x1, y1 = max(frame[root, 2], frame[other, 2]), max(frame[root, 3], frame[other, 3])
    for old in (root, other):
        if frame[old, 0] != x0 or frame[old, 1] != y0 or frame[old, 2] != x1 or frame[old, 3] != y1:
            if since[old] != value:
                _settle(frame[old], since[old], value, boxes, best, holes, height, width)
            since[old] = value
    # Of two frames that are the same, the older one has lived longer.
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
) -> None:
    """Score a frame over the levels at which it stood.

    Foreground with values down to ``since`` stands at levels ``until`` .. ``since - 1``, a hole with values up
    to ``since`` at ``since`` .. ``until - 1``.
    """
    x0, y0, x1, y1 = frame[0], frame[1], frame[2], frame[3]
    if holes:
        if x0 == 0 or y0 == 0 or x1 == width - 1 or y1 == height - 1:
            return
        low, high = since, min(until, LEVELS)
        x0, y0, x1, y1 = x0 - 1, y0 - 1, x1 + 1, y1 + 1  # the contour runs on the pixels around
    else:
        low, high = until, since
    if low >= high:
        return
    iou = overlap(x0, y0, min(x1 + 1, width - 1), min(y1 + 1, height - 1), boxes)
    for level in range(low, high):
        best[level] = max(best[level], iou)


@numba.njit(nogil=True, cache=True)
def largest(image: Bytes, boxes: Floats) -> Floats:
    """IoU of the box of :func:`box_of_largest` at each level, (255,)."""
    found = box_of_largest(image)
    curve = np.empty(LEVELS)
    for level in range(LEVELS):
        curve[level] = overlap(found[level, 0], found[level, 1], found[level, 2], found[level, 3], boxes)
    return curve


@numba.njit(nogil=True, cache=True)
def box_of_largest(image: Bytes) -> Ints:
    """Box of the contour with the largest area at each level; of equals, the one that OpenCV lists first.

    No contour can have a larger area than one that nothing encloses. With all that is enclosed filled, each
    such contour bounds a component without holes, and its area, that of the polygon through the centres of its
    outermost pixels, is the count of 2x2 quads: 1 for each that is full, 1/2 for each with three pixels.

    Args:
        image: (H, W) uint8.

    Returns:
        (255, 4) as x0, y0, x1, y1, where x1 = x + w is clipped to the border; zeros where nothing is above.
    """
    height, width = image.shape
    stride = width + 2
    found = np.zeros((LEVELS, 4), np.int64)
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
        root = (y + 1) * stride + x + 1
        parent[root], first[root], roots[alive] = root, root, root
        frame[root, 0], frame[root, 1], frame[root, 2], frame[root, 3] = x, y, x, y
        area[root] = _new_quads(parent, root, stride)
        alive += 1
        _join(parent, frame, area, first, root, stride)
        following = filled[order[k + 1] // width, order[k + 1] % width] if k + 1 < order.size else 0
        if following < value:  # every pixel of this value is in: levels following .. value - 1 look like this
            alive = _living(roots, alive, parent)
            winner = _largest(roots, alive, area, first)
            for level in range(following, value):
                found[level, 0], found[level, 1] = frame[winner, 0], frame[winner, 1]
                found[level, 2] = min(frame[winner, 2] + 1, width - 1)
                found[level, 3] = min(frame[winner, 3] + 1, height - 1)
    return found


@numba.njit(nogil=True, cache=True)
def _join(parent: Parents, frame: Ints, area: Ints, first: Ints, pixel: int, stride: int) -> None:
    """Merge a new pixel with the components around it: frames and areas add up."""
    root = pixel
    for dy in (-stride, 0, stride):
        for dx in (-1, 0, 1):
            other = find(parent, pixel + dy + dx)
            if other >= 0 and other != root:
                parent[root] = other
                area[other] += area[root]
                first[other] = min(first[other], first[root])
                for k in range(2):
                    frame[other, k] = min(frame[other, k], frame[root, k])
                    frame[other, k + 2] = max(frame[other, k + 2], frame[root, k + 2])
                root = other


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
def overlap(x0: int, y0: int, x1: int, y1: int, boxes: Floats) -> float:
    """Best IoU of a box with true ones, inclusive corners."""
    best = 0.0
    own = float((x1 - x0 + 1) * (y1 - y0 + 1))
    for k in range(boxes.shape[0]):
        wide = min(float(x1), boxes[k, 2]) - max(float(x0), boxes[k, 0]) + 1
        high = min(float(y1), boxes[k, 3]) - max(float(y0), boxes[k, 1]) + 1
        if wide > 0 and high > 0:
            other = (boxes[k, 2] - boxes[k, 0] + 1) * (boxes[k, 3] - boxes[k, 1] + 1)
            best = max(best, wide * high / (own + other - wide * high))
    return best


@numba.njit(nogil=True, cache=True)
def by_value(image: Bytes) -> Ints:
    """Positions of the pixels, lowest value first (a counting sort)."""
    flat = image.reshape(-1)
    starts = np.zeros(257, np.int64)
    for value in flat:
        starts[value + 1] += 1
    starts = np.cumsum(starts)
    order = np.empty(flat.size, np.int64)
    for pixel in range(flat.size):
        value = flat[pixel]
        order[starts[value]] = pixel
        starts[value] += 1
    return order


@numba.njit(nogil=True, cache=True)
def find(parent: Parents, pixel: int) -> int:
    """The root of a pixel's component, -1 if the pixel is in none; paths are halved on the way."""
    if parent[pixel] < 0:
        return -1
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


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
