"""Arrays from user input: numpy arrays, nested lists or torch tensors. Does not import torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.data import Boxes

Array = npt.NDArray[Any]
ArrayInput = npt.ArrayLike | Sequence[npt.ArrayLike]


def rows(values: ArrayInput) -> list[Any]:
    """The B items of a stacked array or tensor (copied from its device in one transfer), or of a list."""
    whole: Any = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        return list(whole)
    except TypeError as error:
        raise InputError(f"expected a batch, (B, ...), or a list of B: {error}") from None


def array(values: npt.ArrayLike) -> Array:
    """Convert an array, a nested list, or a tensor of any dtype and device to an array of the same values.

    Raises:
        InputError: lists of different lengths.
    """
    if hasattr(values, "detach"):
        tensor: Any = values.detach().cpu()
        # numpy has no bfloat16; float64 holds every value of torch's real dtypes.
        return np.asarray(tensor.numpy() if tensor.is_complex() else tensor.double().numpy())
    if isinstance(values, list | tuple):
        values = [array(each) if hasattr(each, "detach") else each for each in values]
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"not an array of numbers: {error}") from None


def boxes(values: npt.ArrayLike) -> Boxes:
    """True boxes of an image, (K, 4), or (4,) for one.

    Raises:
        InputError: another shape, no box, or corners in the wrong order.
    """
    found = array(values)
    if found.dtype.kind in "fiu":
        corners: Boxes = found.astype(np.float64)
        corners = corners[None] if corners.shape == (4,) else corners
        if corners.ndim == 2 and corners.shape[1] == 4 and len(corners) and not (corners[:, 2:] < corners[:, :2]).any():
            return corners
    raise InputError(f"boxes must be (K, 4) as x0, y0, x1, y1 with x1 >= x0: {found.tolist()}")
