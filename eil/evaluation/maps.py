"""From low-resolution score maps to 8-bit maps, on which thresholds act.

The normaliser is part of a protocol, because it changes the boxes. All normalisers give values in [0, 1]. A map without
contrast becomes 0 (:func:`has_contrast`); min-max would amplify its rounding noise to the full range.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.data import Image
from eil.evaluation.protocols import Protocol

Floats = npt.NDArray[np.float64]
ScoreMaps = npt.NDArray[np.floating] | Sequence[npt.NDArray[np.floating]]  # (B, h, w), or B maps of any sizes
LARGEST: Final = 1e100  # absolute score that is accepted
# Resizing a constant float32 map gives rounding noise of up to 23 epsilons of its value in torch's bicubic mode, and up
# to 5 in OpenCV (measured on 3,000 sizes and values each). Networks compute in float32 or less, so float64 maps get the
# same tolerance.
TOLERANCE: Final = 32 * float(np.finfo(np.float32).eps)  # 3.8e-6 of the map's largest magnitude
_INTERPOLATION: Final = {"cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}


def prepared(score_map: npt.NDArray[np.floating], side: int, protocol: Protocol) -> Floats:
    """Resize and normalise a map in the protocol's order.

    Args:
        score_map: (h, w).
        side: S of the square frame that boxes are given in.
        protocol: gives order, interpolation and normaliser.

    Returns:
        (S, S) in [0, 1]; 0 everywhere if the map has no contrast before or after it is resized.

    Raises:
        InputError: the map holds NaN, infinity or complex numbers, or is not two-dimensional.
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
    # Cubic interpolation overshoots the range [0, 1].
    return np.asarray(np.clip(resized, 0, 1)) if has_contrast(resized) else np.zeros((side, side))


def usable(m: Floats) -> bool:
    """Whether all values are finite and small enough that interpolation stays finite."""
    return bool(m.min() >= -LARGEST and m.max() <= LARGEST)  # min and max of an array with NaN are NaN


def has_contrast(m: Floats) -> bool:
    """Whether a map varies by more than rounding: max - min > :data:`TOLERANCE` * max |m|.

    >>> has_contrast(np.array([[0.1, 0.1 + 1e-8]])), has_contrast(1000 + np.array([[0, 0.01]]))
    (False, True)
    """
    low, high = float(m.min()), float(m.max())
    return high - low > TOLERANCE * max(abs(low), abs(high))


def each_prepared(score_maps: ScoreMaps, ids: Sequence[str], side: int, protocol: Protocol) -> Iterator[Floats]:
    """:func:`prepared` of each map, one at a time; errors name the image."""
    for score_map, name in zip(score_maps, ids, strict=True):
        try:
            found = prepared(score_map, side, protocol)
        except InputError as error:
            raise InputError(f"image {name}: {error}") from None
        yield found


def quantised(m: Floats) -> Image:
    """A map in [0, 1] as ``floor(255 m)``, (S, S) -> (S, S) uint8."""
    return (m * 255).astype(np.uint8)


def to_8_bit(score_map: npt.NDArray[np.floating], side: int, protocol: Protocol) -> Image:
    """:func:`prepared` and :func:`quantised`, (h, w) -> (S, S) uint8."""
    return quantised(prepared(score_map, side, protocol))


def normalised(m: Floats, protocol: Protocol) -> Floats:
    """A map to [0, 1], (H, W) -> (H, W).

    - min-max: ``(m - min) / (max - min)``.
    - max: ``relu(m) / max``.
    - pas: ``(m - min) / p``, clipped at 1, p the percentile of ``m - min`` (percentile as a standard for
      normalisation; Bae et al., ECCV 2020).
    - ivr: ``relu(m - p)`` over its maximum, p the percentile of m (Kim et al., ICCV 2021).

    A percentile q is the element at ``int(size * q)`` of the sorted values, not interpolated, as in the authors' code.
    A divisor below the tolerance counts as 0, and the map becomes 0.
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
    """Otsu's threshold of an 8-bit map: it maximises the variance between the two classes (Otsu, 1979)."""
    return min(int(cv2.threshold(image, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]), 254)


def _resized(m: Floats, side: int, protocol: Protocol) -> Floats:
    return np.asarray(cv2.resize(m, (side, side), interpolation=_INTERPOLATION[protocol.interpolation]), np.float64)
