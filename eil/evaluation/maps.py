"""From low-resolution score maps to the 8-bit maps that thresholds are taken of.

A normaliser is part of a protocol: the same map has other boxes under another. All give values in [0, 1]. A map
without contrast becomes 0 (:func:`has_contrast`): min-max would blow its rounding noise up to a full map.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.data import Image
from eil.evaluation.protocols import Protocol

Floats = npt.NDArray[np.float64]
LARGEST: Final = 1e100  # of a score
# A constant float32 map that is resized varies by rounding: by up to 23 epsilons of its value in torch's bicubic mode,
# 5 in OpenCV (3,000 sizes and values each). Networks compute in float32 or less, so float64 maps are held to the same.
TOLERANCE: Final = 32 * float(np.finfo(np.float32).eps)  # 3.8e-6 of the map's largest magnitude
_INTERPOLATION: Final = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


def prepared(score_map: npt.NDArray[np.floating], side: int, protocol: Protocol) -> Floats:
    """Resize and normalise a map in the protocol's order.

    Args:
        score_map: (h, w).
        side: S of the square frame that boxes are given in.
        protocol: how.

    Returns:
        (S, S) in [0, 1], 0 everywhere if the map has no contrast before or after it is resized.

    Raises:
        InputError: the map holds NaN, infinity or complex numbers, or is no map.
    """
    if score_map.ndim != 2 or not score_map.size:
        raise InputError(f"a score map has shape {score_map.shape}, expected (height, width)")
    if score_map.dtype.kind not in "fiub":
        raise InputError(f"a score map holds {score_map.dtype}, expected real numbers")
    found = score_map.astype(np.float64, copy=False)
    if not usable(found):
        raise InputError(f"a score map holds NaN or infinity, or a value beyond {LARGEST:g}")
    if not has_contrast(found):
        return np.zeros((side, side))
    if protocol.order == "resize-normalise":
        return normalised(_resized(found, side, protocol), protocol)
    resized = _resized(normalised(found, protocol), side, protocol)
    # Cubic interpolation overshoots what was in [0, 1].
    return np.asarray(np.clip(resized, 0, 1)) if has_contrast(resized) else np.zeros((side, side))


def usable(m: Floats) -> bool:
    """Whether all of a map's values are numbers of which differences and cubic interpolation are numbers too."""
    return bool(m.min() >= -LARGEST and m.max() <= LARGEST)  # of what holds NaN, both are NaN


def has_contrast(m: Floats) -> bool:
    """Whether a map varies by more than rounding: max - min > :data:`TOLERANCE` * max |m|.

    >>> has_contrast(np.array([[0.1, 0.1 + 1e-8]])), has_contrast(1000 + np.array([[0, 0.01]]))
    (False, True)
    """
    low, high = float(m.min()), float(m.max())
    return high - low > TOLERANCE * max(abs(low), abs(high))


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
    interpolated. A divisor that is no more than rounding counts as 0, and what it would divide becomes 0.
    """
    if not has_contrast(m):
        return np.zeros_like(m)
    low, high = float(m.min()), float(m.max())
    least = TOLERANCE * max(abs(low), abs(high))
    if protocol.normaliser == "min-max":
        return (m - low) / (high - low)
    if protocol.normaliser == "max":
        return np.maximum(m, 0) / high if high > least else np.zeros_like(m)
    rank = min(int(m.size * (protocol.percentile or 0)), m.size - 1)
    at = float(np.partition(m.ravel(), rank)[rank])
    if protocol.normaliser == "pas":
        return np.minimum((m - low) / (at - low), 1) if at - low > least else (m - low > least).astype(float)
    return np.maximum(m - at, 0) / (high - at) if high - at > least else np.zeros_like(m)


def otsu(image: Image) -> int:
    """The level that splits an 8-bit map's values into the two classes that differ most (Otsu, 1979)."""
    return min(int(cv2.threshold(image, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]), 254)


def _resized(m: Floats, side: int, protocol: Protocol) -> Floats:
    return np.asarray(cv2.resize(m, (side, side), interpolation=_INTERPOLATION[protocol.interpolation]), np.float64)
