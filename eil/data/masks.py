"""Decode mask files: which pixels are the object, for any kind of image.

The rules (also in docs/data.md): in a palette, index 0 is background. One channel, or equal channels, of only 0 and 1
is the object where it is 1; of other values, where it is at least half of the range (128 of 255). An alpha channel that
varies over a constant colour is the mask. Several colours need the setting ``dataset.mask``.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eil.core.files import InputError
from eil.data import IGNORED, Image, image_formats
from eil.data.image_formats import Exif

Bools = npt.NDArray[np.bool_]
Colour = (
    Annotated[int, Field(ge=0, le=65535)]
    | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
    | tuple[
        Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
    ]
)
ASPECT_TOLERANCE: Final = 0.02  # largest relative difference of two aspect ratios that is still rounding
SETTING: Final = "say what they mean by dataset.mask: {object: [...], ignore: [...]}, or save it in black and white"
SHOWN: Final = 6  # values or colours in a message
LABELS: Final = 20  # grey values up to this and 255, with none between, are class numbers, not brightness
_log = logging.getLogger(__name__)
_kinds: dict[Path, tuple[str, Path]] = {}  # folder -> kind of its first mask, and that mask
_warned: set[str] = set()


class MaskColours(BaseModel):
    """Meaning of mask values; each is [r, g, b], "#rrggbb", or a palette index or grey value.

    Attributes:
        object: values of the object; if empty, the rules decide for all values that are not ignored.
        ignore: values that are neither object nor background.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    object: tuple[Colour, ...] = ()
    ignore: tuple[Colour, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "MaskColours":
        if not self.object and not self.ignore:
            raise ValueError("must name colours under object or ignore")
        return self


@dataclass(frozen=True)
class _Values:
    """A mask's own values.

    Attributes:
        values: indices of a palette or grey values, (H, W), or RGB, (H, W, 3).
        palette: colours by index, (256, 3), if there is one.
        alpha: (H, W), if it varies.
    """

    values: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None = None
    alpha: npt.NDArray[np.uint8] | None = None


def load_mask(paths: Sequence[Path | None], colours: MaskColours | None = None, exif: Exif = "ignore") -> Image:
    """Merge the masks of an image's objects and of what to ignore, (H, W): k for the k-th object.

    Where objects overlap, the smallest is on top, so that none is hidden.

    Args:
        paths: of the objects' masks; the last, of the region to ignore, may be None.
        colours: meaning of the masks' values, if the rules do not cover them.
        exif: as for photos; a mask without an orientation tag is not turned.

    Raises:
        InputError: a mask that cannot be decoded, has another shape than the first, or follows none of the rules.
    """
    *objects, ignore = paths
    found: list[Bools] = []
    ignored: list[Bools] = []
    for path in filter(None, objects):
        in_object, left = read(path, colours, exif)
        if found:
            in_object, left = (_resized(each, found[0].shape, path) for each in (in_object, left))
        found.append(in_object)
        ignored.append(left)
    if not found:
        raise InputError("a list of masks without an object's")
    if ignore is not None:
        ignored += [_resized(each, found[0].shape, ignore) for each in read(ignore, colours, exif)]
    return merged(found, ignored)


def merged(objects: Sequence[Bools], ignored: Sequence[Bools]) -> Image:
    """Merge K objects, K x (H, W) -> (H, W): k for the k-th, the smallest on top; IGNORED where only ``ignored``."""
    mask = np.zeros(objects[0].shape, np.uint8)
    for left in ignored:
        mask[left] = IGNORED
    for k, in_object in sorted(enumerate(objects, start=1), key=lambda each: -int(each[1].sum())):
        mask[in_object] = min(k, IGNORED - 1)
    return mask


def read(path: Path, colours: MaskColours | None = None, exif: Exif = "ignore") -> tuple[Bools, Bools]:
    """Where a mask file has the object, and where it is to be ignored, (H, W) each.

    Raises:
        InputError: the file cannot be decoded, or no rule covers its values.
    """
    found = _values(path, exif)
    ignored = np.zeros(found.values.shape[:2], np.bool_)
    if colours is not None:
        ignored = _matching(found, colours.ignore)
    if colours is not None and colours.object:
        return _matching(found, colours.object) & ~ignored, ignored
    values = found.values.copy()
    values[ignored] = 0
    kind, in_object = by_rule(values, found.palette, found.alpha, path)
    _warn_of_mixed(kind, path)
    return in_object & ~ignored, ignored


def by_rule(
    values: npt.NDArray[Any], palette: npt.NDArray[np.uint8] | None, alpha: npt.NDArray[np.uint8] | None, path: Path
) -> tuple[str, Bools]:
    """The kind of a mask ("" if it is blank), and where its object is, (H, W).

    Args:
        values: indices or grey values, (H, W), or RGB, (H, W, 3).
        palette: colours by index, if values are indices.
        alpha: (H, W), if it varies.
        path: of the mask, for messages.

    Raises:
        InputError: no rule covers the values.
    """
    if palette is not None:
        if len(used := np.unique(values)) > 1 and used[0] == 0 and palette[0].min() > palette[used[1:]].max():
            _warn_once(
                f"{path}: index 0 of its palette is the lightest colour, and background by the rule for palettes"
            )
        return ("palette" if values.any() else ""), values > 0
    if alpha is not None:
        return "alpha", _by_alpha(values, alpha, path)
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise InputError(f"{path}: a mask of several colours: {_colours(values)}; {SETTING}")
        values = values[..., 0]
    return _by_grey(values, path)


def require_aspect_ratio(mask: tuple[int, ...], size: tuple[int, int], name: str) -> None:
    """Refuse a mask, (h, w), of another aspect ratio than its photo's (width, height).

    Raises:
        InputError: the aspect ratios differ.
    """
    if abs(mask[1] * size[1] - mask[0] * size[0]) > ASPECT_TOLERANCE * size[0] * mask[0]:
        raise InputError(
            f"{name}: is {size[0]}x{size[1]}, but its mask is {mask[1]}x{mask[0]}: is it another photo's, or of the "
            "photo turned by its EXIF tag (dataset.exif: apply)?"
        )


def _values(path: Path, exif: Exif) -> _Values:
    image = image_formats.decode(path, exif).image
    if image.mode in ("P", "PA"):
        palette = np.zeros((256, 3), np.uint8)
        listed = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        palette[: len(listed)] = listed
        indices = np.asarray(image)
        return _Values(indices if indices.ndim == 2 else indices[..., 0], palette)
    if image.mode in ("1", "L") or image.mode.startswith(("I", "F")):
        return _Values(np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image))
    try:
        pixels = np.asarray(image.convert("RGBA"))
    except ValueError as error:
        raise InputError(f"{path}: cannot be decoded: {error}") from None
    alpha = pixels[..., 3]
    return _Values(pixels[..., :3], alpha=alpha if image.mode not in ("RGB", "CMYK") and np.ptp(alpha) else None)


def _by_alpha(values: npt.NDArray[Any], alpha: npt.NDArray[np.uint8], path: Path) -> Bools:
    """Where alpha is at least 128; transparent pixels may have any colour that does not contradict alpha."""
    visible = alpha >= 128
    shown = values[visible]
    varied = bool(len(shown)) and bool((shown != shown[0]).any())
    soft = (values == values[..., :1]).all() and ((values[..., 0] >= 128) == visible).all()  # edges equal in both
    if varied and not soft:
        raise InputError(f"{path}: both its alpha and its visible colours vary: {_colours(shown)}; {SETTING}")
    hidden = values[alpha == 0]
    if len(shown) and len(hidden) and hidden.min() > shown[0].max():
        raise InputError(
            f"{path}: its visible part is darker than its transparent one, so that alpha and brightness contradict "
            f"each other; {SETTING}"
        )
    return visible


def _by_grey(values: npt.NDArray[Any], path: Path) -> tuple[str, Bools]:
    present = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    if not np.isfinite(present).all() or present[0] < 0 or present[-1] > 65535:
        raise InputError(f"{path}: a mask with values from {present[0]} to {present[-1]}: expected 0 to 255 or 65535")
    if np.isin(present, (0, 1)).all():
        return ("0/1" if present.any() else ""), values > 0
    half = 0.5 if present[-1] <= 1 else 128 if present[-1] <= 255 else 32768
    few = ", ".join(f"{value:g}" for value in present[:SHOWN]) + (", …" if len(present) > SHOWN else "")
    if present[-1] < half:
        raise InputError(f"{path}: a mask of the grey values {few}, of which none is at least {half}; {SETTING}")
    between = present[(present > 0) & (present < IGNORED)]
    if present[-1] == IGNORED and len(between) and between[-1] <= LABELS:
        raise InputError(f"{path}: a mask of the grey values {few}: classes, or brightness? {SETTING}")
    return ("grey" if half == 128 else "grey floats" if half < 1 else "grey of 16 bits"), values >= half


def _matching(found: _Values, colours: Sequence[Any]) -> Bools:
    """Where a mask has one of these colours, (H, W)."""
    hit = np.zeros(found.values.shape[:2], np.bool_)
    for colour in colours:
        if isinstance(colour, int):
            equal = found.values == colour
            hit |= equal if equal.ndim == 2 else equal.all(axis=2)
            continue
        rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)] if isinstance(colour, str) else list(colour)
        pixels = found.values if found.palette is None else found.palette[found.values]
        hit |= (np.broadcast_to(pixels if pixels.ndim == 3 else pixels[..., None], (*hit.shape, 3)) == rgb).all(axis=2)
    return hit


def _colours(pixels: npt.NDArray[Any]) -> str:
    """The most frequent colours, (..., 3), as text."""
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    first = colours[np.argsort(-counts, kind="stable")[:SHOWN]].tolist()
    return ", ".join(map(str, first)) + (f" and {len(colours) - SHOWN} more" if len(colours) > SHOWN else "")


def _resized(mask: Bools, shape: tuple[int, ...], path: Path) -> Bools:
    """A mask resized to (height, width)."""
    if mask.shape == shape:
        return mask
    require_aspect_ratio(mask.shape, (shape[1], shape[0]), f"{path}: the first mask")
    return np.asarray(PILImage.fromarray(mask).resize((shape[1], shape[0]), PILImage.Resampling.NEAREST))


def _warn_of_mixed(kind: str, path: Path) -> None:
    """Warn of masks of several kinds in one folder."""
    first, example = _kinds.setdefault(path.parent, (kind, path)) if kind else (kind, path)
    if first != kind:
        _warn_once(
            f"{path.parent}: masks of several kinds: {example.name} is {first}, {path.name} {kind} (docs/data.md)"
        )


def _warn_once(text: str) -> None:
    """Log a warning once, and at most :data:`SHOWN` warnings in all."""
    if text not in _warned and len(_warned) < SHOWN:
        _warned.add(text)
        _log.warning(text)
