"""Compiled functions that :mod:`components` and :mod:`largest_box` share: sorting, union-find, boxes and IoU."""

import numba
import numpy as np
import numpy.typing as npt

from eil.evaluation import jit_cache
from eil.evaluation.box_conventions import BoxConvention

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Parents = npt.NDArray[np.int32]

jit_cache.ensure()  # before any function is compiled: every module that has one imports this one


@numba.njit(nogil=True, cache=True)
def box_of(
    x0: int, y0: int, x1: int, y1: int, height: int, width: int, convention: BoxConvention
) -> tuple[int, int, int, int]:
    """The box around pixels with these first and last columns and rows."""
    x1, y1 = x1 + convention.beyond, y1 + convention.beyond
    if convention.clipped:
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return (x0, y0, x1, y1)


@numba.njit(nogil=True, cache=True)
def best_iou(box: tuple[int, int, int, int], boxes: Floats, convention: BoxConvention) -> float:
    """Best IoU of a box with any of the true boxes, (K, 4)."""
    best = 0.0
    x0, y0, x1, y1 = float(box[0]), float(box[1]), float(box[2]), float(box[3])
    one = convention.inclusive
    area = (x1 - x0 + one) * (y1 - y0 + one)
    for k in range(boxes.shape[0]):
        wide = min(x1, boxes[k, 2]) - max(x0, boxes[k, 0]) + one
        high = min(y1, boxes[k, 3]) - max(y0, boxes[k, 1]) + one
        if wide > 0 and high > 0:
            other = (boxes[k, 2] - boxes[k, 0] + one) * (boxes[k, 3] - boxes[k, 1] + one)
            best = max(best, wide * high / (area + other - wide * high))
    return best


@numba.njit(nogil=True, cache=True)
def by_value(image: Bytes) -> Ints:
    """Positions of the pixels sorted by value, lowest first (a counting sort), (H, W) -> (H * W,)."""
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
    """The root of a pixel's component, -1 if the pixel is in none (union-find with path halving)."""
    if parent[pixel] < 0:
        return -1
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel
