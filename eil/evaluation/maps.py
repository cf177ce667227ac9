"""From low-resolution score maps to the 8-bit maps that thresholds are taken of.

A normaliser is part of a protocol: the same map has other boxes under another. All give values in [0, 1]; a
constant map has no contrast and becomes 0.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from eil.data import Image
from eil.evaluation.protocols import Protocol
from eil.files import InputError

Floats = npt.NDArray[np.float64]
LARGEST: Final = 1e100  # of a score
_INTERPOLATION: Final = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


def prepared(score_map: npt.NDArray[np.floating], side: int, protocol: Protocol) -> Floats:
    """Resize and normalise a map in the protocol's order.

    Args:
        score_map: (h, w).
        side: S of the square frame that boxes are given in.
        protocol: how.

    Returns:
        (S, S) in [0, 1].

    Raises:
        InputError: the map holds NaN or infinity, or is no map.
    """
    if score_map.ndim != 2 or not score_map.size:
        raise InputError(f"a score map has shape {score_map.shape}, expected (height, width)")
    found = score_map.astype(np.float64)
    if not usable(found):
        raise InputError(f"a score map holds NaN or infinity, or a value beyond {LARGEST:g}")
    if protocol.order == "normalise-resize":
        # Cubic interpolation overshoots what was in [0, 1].
        return np.asarray(np.clip(_resized(normalised(found, protocol), side, protocol), 0, 1))
    return normalised(_resized(found, side, protocol), protocol)


def usable(m: Floats) -> bool:
    """Whether all of a map's values are numbers of which differences and cubic interpolation are numbers too."""
    return bool((np.abs(m) <= LARGEST).all())


def to_8_bit(score_map: npt.NDArray[np.floating], side: int, protocol: Protocol) -> Image:
    """:func:`prepared`, as ``floor(255 m)``: (h, w) -> (S, S) uint8."""
    return (prepared(score_map, side, protocol) * 255).astype(np.uint8)


def normalised(m: Floats, protocol: Protocol) -> Floats:
    """A map to [0, 1], (H, W) -> (H, W).

    - min-max: ``(m - min) / (max - min)``.
    - max: ``relu(m) / max`` (what is against the class counts nothing).
    - pas: ``(m - min) / p``, cut at 1, p the percentile of ``m - min`` (percentile as a standard for
      normalisation; Bae et al., ECCV 2020).
    - ivr: ``relu(m - p)`` over its maximum, p the percentile of m (Kim et al., ICCV 2021).

    A percentile q is the element at ``int(size * q)`` of the sorted values, as the authors' code takes it, not
    interpolated.
    """
    low, high = float(m.min()), float(m.max())
    if high <= low:
        return np.zeros_like(m)
    if protocol.normaliser == "min-max":
        return (m - low) / (high - low)
    if protocol.normaliser == "max":
        return np.maximum(m, 0) / high if high > 0 else np.zeros_like(m)
    rank = min(int(m.size * (protocol.percentile or 0)), m.size - 1)
    at = float(np.partition(m.ravel(), rank)[rank])
    if protocol.normaliser == "pas":
        return np.minimum((m - low) / (at - low), 1) if at > low else (m > low).astype(float)
    return np.maximum(m - at, 0) / (high - at) if high > at else np.zeros_like(m)


def otsu(image: Image) -> int:
    """The level that splits an 8-bit map's values into the two classes that differ most (Otsu, 1979)."""
    return min(int(cv2.threshold(image, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]), 254)


def _resized(m: Floats, side: int, protocol: Protocol) -> Floats:
    return np.asarray(cv2.resize(m, (side, side), interpolation=_INTERPOLATION[protocol.interpolation]), np.float64)
