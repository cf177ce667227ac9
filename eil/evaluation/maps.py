"""From low-resolution score maps to 8-bit maps, on which thresholds act.

The normaliser is part of a protocol, because it changes the boxes. All normalisers give values in [0, 1]. A map without
contrast becomes 0 (:func:`has_contrast`); min-max would amplify its rounding noise to the full range.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from eil.core.cell_grid import CellGrid
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
_SHARPNESS: Final = -0.75  # of cubic interpolation: OpenCV's and torch's (Keys' a)


def prepared(
    score_map: npt.NDArray[np.floating], side: int, protocol: Protocol, cells: CellGrid | None = None
) -> Floats:
    """Resize and normalise a map in the protocol's order.

    Args:
        score_map: (h, w).
        side: S of the square frame that boxes are given in.
        protocol: gives order, interpolation, alignment and normaliser.
        cells: where the map's cells look; of use only for the alignment "receptive_field".

    Returns:
        (S, S) in [0, 1]; 0 everywhere if the map has no contrast before or after it is resized.

    Raises:
        InputError: the map holds NaN, infinity or complex numbers, or is not two-dimensional; the protocol needs
            ``cells``, and there are none.
    """
    require_cells(protocol, cells)
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
        return normalised(_resized(found, side, protocol, cells), protocol)
    resized = _resized(normalised(found, protocol), side, protocol, cells)
    # Cubic interpolation overshoots the range [0, 1].
    return np.asarray(np.clip(resized, 0, 1)) if has_contrast(resized) else np.zeros((side, side))


def require_cells(protocol: Protocol, cells: CellGrid | None, where: str = "") -> None:
    """Refuse to draw maps by a protocol that needs to know where their cells look, if nobody does.

    Args:
        protocol: how maps are drawn.
        cells: of the maps.
        where: their file, for the message.

    Raises:
        InputError: the alignment is "receptive_field", and there are no cells.
    """
    if protocol.alignment == "receptive_field" and cells is None:
        raise InputError(
            f"{where}{': ' if where else ''}the protocol's alignment is receptive_field, and these maps do not say "
            "where their cells' receptive fields are; localize the run again, or use a protocol with the alignment grid"
        )


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


def each_prepared(
    score_maps: ScoreMaps, ids: Sequence[str], side: int, protocol: Protocol, cells: CellGrid | None = None
) -> Iterator[Floats]:
    """:func:`prepared` of each map, one at a time; errors name the image."""
    for score_map, name in zip(score_maps, ids, strict=True):
        try:
            found = prepared(score_map, side, protocol, cells)
        except InputError as error:
            raise InputError(f"image {name}: {error}") from None
        yield found


def quantised(m: Floats) -> Image:
    """A map in [0, 1] as ``floor(255 m)``, (S, S) -> (S, S) uint8."""
    return (m * 255).astype(np.uint8)


def to_8_bit(
    score_map: npt.NDArray[np.floating], side: int, protocol: Protocol, cells: CellGrid | None = None
) -> Image:
    """:func:`prepared` and :func:`quantised`, (h, w) -> (S, S) uint8."""
    return quantised(prepared(score_map, side, protocol, cells))


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
    bound = float(np.partition(m.ravel(), rank)[rank])
    if protocol.normaliser == "pas":
        return np.minimum((m - low) / (bound - low), 1) if bound - low > least else (m - low > least).astype(float)
    return np.maximum(m - bound, 0) / (high - bound) if high - bound > least else np.zeros_like(m)


def otsu(image: Image) -> int:
    """Otsu's threshold of an 8-bit map: it maximises the variance between the two classes (Otsu, 1979)."""
    return min(int(cv2.threshold(image, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]), 254)


def interpolation_weights(
    cells: int, side: int, origin: float, stride: float, kind: Literal["cubic", "linear"]
) -> Floats:
    """Weights of a line's cells at each of S pixels, (S, cells); cell n is at pixel ``origin + stride * n``.

    Beyond the first and the last cell their values go on, as at the borders in OpenCV. With the cells in the middle of
    equal shares it is ``cv2.resize``.

    >>> interpolation_weights(2, 4, 1, 2, "linear").tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    position = (np.arange(side) - origin) / stride  # (S,)
    before = np.floor(position).astype(np.int64)
    taps = np.array([-1, 0, 1, 2] if kind == "cubic" else [0, 1])
    distance = np.abs(position[:, None] - before[:, None] - taps)  # (S, taps)
    a, d = _SHARPNESS, distance
    near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((d - 5) * d + 8) * d * a - 4 * a
    values = np.where(d <= 1, near, far) if kind == "cubic" else 1 - d
    weights = np.zeros((side, cells))
    np.add.at(weights, (np.arange(side)[:, None], np.clip(before[:, None] + taps, 0, cells - 1)), values)
    return weights


_cached_weights = functools.lru_cache(maxsize=16)(interpolation_weights)


def _resized(m: Floats, side: int, protocol: Protocol, cells: CellGrid | None) -> Floats:
    if protocol.alignment == "receptive_field" and cells and not cells.matches_resizing(m.shape, side):
        rows, columns = (
            _cached_weights(count, side, origin, stride, protocol.interpolation)
            for count, origin, stride in zip(m.shape, cells.origin, cells.stride, strict=True)
        )
        return np.asarray(rows @ m @ columns.T)
    return np.asarray(cv2.resize(m, (side, side), interpolation=_INTERPOLATION[protocol.interpolation]), np.float64)
