"""Decode photos of any format to 8-bit RGB; refuse values of ambiguous range.

Pixels are read as they are stored; with ``exif: apply`` they are turned by the orientation tag. See
:mod:`eil.data.photos` for lists of photos and :mod:`eil.data.masks` for masks.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageOps
from PIL.Image import Transpose

from eil.core.files import InputError
from eil.data import Image

Exif = Literal["ignore", "apply"]
TAGGED_ORIENTATION: Final = 0x0112
BITS_PER_SAMPLE, PHOTOMETRIC, LARGEST_SAMPLE = 258, 262, 281  # tags of TIFF
AMBIGUOUS: Final = 2**14 - 1  # maximum of 14 bits: a dark 16-bit photo, or a photo of 10, 12 or 14 bits
DECLARED: Final = frozenset({"PPM", "JPEG2000"})  # Pillow scales their samples to 16 bits
# The inverse of the turn of each orientation.
UNDONE: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Decoded:
    """An image in its stored mode, and how its values are to be read.

    Attributes:
        image: loaded, as stored or turned.
        full: the largest possible value of samples with more than 8 bits, if the file declares it.
        reduced: whether Pillow kept the upper 8 of 16 bits a channel.
        white_is_zero: whether samples with more than 8 bits are inverted.
    """

    image: PILImage.Image
    full: int | None
    reduced: bool
    white_is_zero: bool


def load(path: Path, exif: Exif = "ignore") -> Image:
    """Decode a photo to (H, W, 3) RGB; the format is detected from the content, not the suffix.

    Grey, palette and CMYK photos become RGB, transparency is dropped. Samples with more than 8 bits are scaled to 8
    bits if their range is unambiguous.

    Args:
        path: of the photo.
        exif: "ignore" keeps the pixels as stored, as the annotations of CUB, ILSVRC and OpenImages expect; "apply"
            turns them by the orientation tag.

    Raises:
        InputError: the file is missing, empty, truncated, not an image, or its values have an ambiguous range.
    """
    found = decode(path, exif)
    if found.image.mode.startswith(("I", "F")):
        grey = to_8_bit(np.asarray(found.image), found.full, str(path))
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        pixels = np.asarray(found.image.convert("RGB"))
    except ValueError as error:  # a colour space that Pillow cannot convert
        raise InputError(f"{path}: cannot be decoded: {error}") from None
    if found.reduced and pixels.max(initial=0) <= AMBIGUOUS // 256:
        raise InputError(_ambiguous(str(path), "16 bits a channel", 0, int(pixels.max(initial=0)) * 256 + 255))
    return pixels


def decode(path: Path, exif: Exif = "ignore") -> Decoded:
    """Decode an image of any kind in its own mode.

    Raises:
        InputError: the file is missing, empty, truncated or not an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be decoded: {error}") from None
    if not data:
        raise InputError(f"{path}: is empty")
    try:
        with PILImage.open(io.BytesIO(data)) as image:
            tags: Any = getattr(image, "tag_v2", {})
            full = _full(image.format or "", tags)
            reduced = any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith("I")
            inverted = tags.get(PHOTOMETRIC) == 0 and image.mode.startswith(("I", "F"))
            found = Decoded(_oriented(image, exif), full, reduced, inverted)
    except Exception as error:  # Pillow raises many unrelated exceptions for broken files
        raise InputError(f"{path}: cannot be decoded: {error or type(error).__name__}") from None
    if found.white_is_zero:
        raise InputError(f"{path}: {found.image.mode} samples in which 0 is white: save it as an 8-bit PNG")
    return found


def is_turned(path: Path) -> bool:
    """Whether a photo has an orientation tag other than 1; :func:`load` ignores it by default."""
    try:
        with PILImage.open(path) as image:
            return _orientation(image) != 1
    except Exception:  # broken files are reported when they are decoded
        return False


def to_8_bit(values: npt.NDArray[Any], full: int | None, where: str) -> npt.NDArray[np.uint8]:
    """Scale grey values of more than 8 bits to 8 bits, (H, W) -> (H, W).

    Args:
        values: floats, or whole numbers of 16 or 32 bits.
        full: the largest possible value, if the file declares it.
        where: names the file in messages.

    Raises:
        InputError: values that are not finite or negative, or whose range is ambiguous.
    """
    if not np.isfinite(values).all():
        raise InputError(f"{where}: a photo with values that are not finite")
    least, most = values.min(initial=0).item(), values.max(initial=0).item()
    if most == least == 0:
        return np.zeros(values.shape, np.uint8)
    floats = values.dtype.kind == "f"
    if floats and least >= 0 and most <= 1:
        return np.rint(values * 255).astype(np.uint8)
    whole = not floats or bool((values == np.rint(values)).all())
    kind = "floats" if floats else f"{8 * values.dtype.itemsize}-bit whole numbers"
    if full is None and whole and values.dtype.itemsize > 2 and 1 < most <= 255:
        full = 255
    if full is None and not floats and AMBIGUOUS < most <= 65535:
        full = 65535
    if full is None or least < 0 or most > full:
        raise InputError(_ambiguous(where, kind, least, most))
    return (values.astype(np.int64) * 256 // (full + 1)).astype(np.uint8)


def _ambiguous(where: str, kind: str, least: float, most: float) -> str:
    return (
        f"{where}: {kind} from {least:.10g} to {most:.10g}: which value is white cannot be told (a dark photo, or one "
        "of fewer bits than its file has room for); save it with 8 bits, or with the file's whole range"
    )


def _full(kind: str, tags: Any) -> int | None:
    """The largest possible value of samples with more than 8 bits, if the file declares it."""
    if kind in DECLARED:
        return 65535
    bits, largest = tags.get(BITS_PER_SAMPLE), tags.get(LARGEST_SAMPLE)
    if largest:  # the largest sample in the file; its number of bits is taken as the photo's
        return 2 ** int(np.max(largest)).bit_length() - 1
    return 2 ** int(bits[0]) - 1 if bits and 8 < bits[0] < 16 else None


def _oriented(image: PILImage.Image, exif: Exif) -> PILImage.Image:
    """Load an image with or without its turn. Pillow turns a TIFF while loading it, and drops its tag."""
    before = _orientation(image)
    image.load()
    turned = before != 1 and _orientation(image) == 1
    if exif == "apply":
        return image.copy() if turned else ImageOps.exif_transpose(image)
    return image.transpose(UNDONE[before]) if turned else image.copy()


def _orientation(image: PILImage.Image) -> int:
    """1 to 8; 1 if there is no tag, or none that can be read."""
    try:
        found = image.getexif().get(TAGGED_ORIENTATION, 1)
    except Exception:  # broken EXIF data does not make the pixels unusable
        return 1
    return found if found in UNDONE else 1
