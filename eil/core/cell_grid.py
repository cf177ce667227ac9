"""Where the cells of a score map look: data that localization measures and evaluation draws maps by."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError

_KEYS = ("cell_origin", "cell_stride")


class CellGrid(NamedTuple):
    """Cell (i, j) looks at pixel ``origin + stride * (i, j)``; the centre of the first pixel is at 0.

    Attributes:
        origin: row and column of cell (0, 0), in pixels of the network's input.
        stride: rows and columns between neighbouring cells.
    """

    origin: tuple[float, float]
    stride: tuple[float, float]

    @classmethod
    def half_pixel(cls, shape: tuple[int, int], side: int) -> "CellGrid":
        """Where resizing draws the cells of a map of ``shape`` (h, w): each in the middle of its share of S pixels.

        >>> CellGrid.half_pixel((14, 14), 224)
        CellGrid(origin=(7.5, 7.5), stride=(16.0, 16.0))
        """
        rows, columns = (side / cells for cells in shape)
        return cls(((rows - 1) / 2, (columns - 1) / 2), (rows, columns))

    def matches_resizing(self, shape: tuple[int, int], side: int) -> bool:
        """Whether no cell of a map of ``shape`` (h, w) looks elsewhere than where resizing to S pixels draws it."""
        drawn = self.half_pixel(shape, side)
        return all(
            math.isclose(here, there, abs_tol=1e-6)
            for pair, other in zip(self, drawn, strict=True)
            for here, there in zip(pair, other, strict=True)
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """``cell_origin`` (2,) and ``cell_stride`` (2,), as maps.npz has them."""
        return {key: np.array(pair, np.float64) for key, pair in zip(_KEYS, self, strict=True)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], where: str) -> "CellGrid | None":
        """The grid in the arrays of a maps.npz; None if they have none.

        Args:
            arrays: of the file.
            where: its name, for the message.

        Raises:
            InputError: not two finite numbers each, or a stride that is not above 0.
        """
        pairs = [arrays[key] for key in _KEYS if key in arrays]
        if not pairs:
            return None
        sound = len(pairs) == 2 and all(p.shape == (2,) and p.dtype.kind == "f" and np.isfinite(p).all() for p in pairs)
        if not sound or not (pairs[1] > 0).all():
            raise InputError(
                f"{where}: its {' and '.join(_KEYS)} must be two finite numbers each, strides above 0; delete the file "
                "and localize again"
            )
        (y, x), (rows, columns) = (pair.tolist() for pair in pairs)
        return cls((y, x), (rows, columns))
