"""One pass over a split's score maps: each map is resized and normalised once, for everything that needs it.

The pass is made before a threshold is chosen. What depends on the threshold (predicted boxes, part coverage, examples)
reads the 8-bit maps again from a temporary file.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from eil.core.cell_grid import CellGrid
from eil.data import Image
from eil.data.cache import Cached
from eil.evaluation import iou_curves, maps
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.masks import PixelHistogram
from eil.evaluation.protocols import Protocol


class ImageFile:
    """8-bit maps of one size in a temporary file, which is deleted when it is closed or the process ends.

    It is read and written, not memory-mapped: 50,000 maps of 224 x 224 have 2.5 GB, and a mapped file would count as
    the process's memory.

    Args:
        folder: where the file is made; it needs N x S x S bytes of disk.
        side: S.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.side, self._count = side, 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, images: Sequence[Image]) -> None:
        """Add maps, (S, S) each."""
        self._file.seek(0, 2)
        for image in images:
            self._file.write(image.tobytes())
        self._count += len(images)

    def __getitem__(self, index: int) -> Image:
        """The map at a position, (S, S)."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        self._file.seek(index * self.side**2)
        return np.frombuffer(self._file.read(self.side**2), np.uint8).reshape(self.side, self.side)

    def __iter__(self) -> Iterator[Image]:
        return (self[index] for index in range(self._count))


def scan(
    score_maps: maps.ScoreMaps,
    split: Cached,
    side: int,
    protocol: Protocol,
    curves: IouCurves | None = None,
    pixels: PixelHistogram | None = None,
    images: ImageFile | None = None,
    cells: CellGrid | None = None,
) -> None:
    """Resize and normalise each map of a split once and add it to the given accumulators.

    Memory holds :data:`eil.evaluation.iou_curves.CHUNK` 8-bit maps and one float map.

    Args:
        score_maps: (N, h, w).
        split: the images of these maps.
        side: S of the frame.
        protocol: how maps are resized and normalised.
        curves: takes the 8-bit maps with the true boxes.
        pixels: takes the float maps with the masks.
        images: takes the 8-bit maps.
        cells: where the maps' cells look, if the protocol needs it.

    Raises:
        InputError: another number of maps than images, or a map that cannot be used; the message names the image.
    """
    iou_curves.require_matching(score_maps, split.ids)
    if curves is None and pixels is None and images is None:
        return
    for part in iou_curves.chunks(len(split.ids)):
        chunk = []
        prepared = maps.each_prepared(score_maps[part], split.ids[part], side, protocol, cells)
        for i, normalised in enumerate(prepared, part.start):
            if pixels is not None and split.masks is not None:
                pixels.add(normalised, split.masks[i])
            chunk.append(maps.quantised(normalised))
        if curves is not None:
            curves.update_images(chunk, split.boxes[part])
        if images is not None:
            images.append(chunk)
