"""A data set in a few lines, for docs/extending.md."""

from pathlib import Path

import numpy as np

from eil.data import Dataset, Image, Split

EMBEDDED = True  # there is no folder of it: the images are drawn


def draw(number: int) -> Image:
    """A bright square, red in images of even number, green in the others, on dark noise."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8)
    top, left = 4 + 7 * number % 20, 4 + 11 * number % 20
    image[top : top + 20, left : left + 20, number % 2] = 255
    return image


def read(root: Path | None = None, *, size: int = 40) -> Dataset:
    """Two classes; boxes are [x0, y0, x1, y1], inclusive, of val and test alone."""

    def split(name: str, start: int, count: int) -> Split:
        numbers = range(start, start + count)
        boxes = [
            np.array([[4 + 11 * n % 20, 4 + 7 * n % 20, 23 + 11 * n % 20, 23 + 7 * n % 20]], float) for n in numbers
        ]
        none = [np.empty((0, 4))] * count
        ids = [f"{name}/{n:04d}" for n in numbers]
        return Split(ids, np.array([n % 2 for n in numbers]), none if name == "train" else boxes, numbers, draw)

    splits = {"train": split("train", 0, size), "val": split("val", size, 10), "test": split("test", size + 10, 10)}
    return Dataset("squares", ("red", "green"), splits)
