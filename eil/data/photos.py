"""Photos and lists as they come: decoding whatever calls itself a JPEG, and lines of text with their numbers."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from eil.data import IGNORED, NO_BOX, Boxes, Image, Split
from eil.files import InputError
from eil.plain import shown

Row = tuple[str, int, Path, Boxes]  # id, label, where the photo lies, true boxes
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
TAGGED_ORIENTATION = 0x0112
LONGEST_LINE = 10_000
LONGEST_PART, LONGEST_PATH = 255, 2000  # bytes of a path below a root; most systems' limits are 255 and 4,096


def load(path: Path) -> Image:
    """Decode a photo, whatever its suffix says, to (H, W, 3) RGB.

    Grey, palette and CMYK photos become RGB, 16 bits a channel become 8, transparency is left out. A rotation that
    EXIF asks for is not carried out, as the field does: boxes were drawn on the pixels as they are stored.

    Raises:
        InputError: the file is missing, empty, truncated or not an image.
    """
    try:
        data = path.read_bytes()
        if not data:
            raise InputError(f"{path}: is empty")
        with PILImage.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # 16 bits: PIL's own conversion would clip them
                return np.repeat((np.asarray(image) // 256).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    # PIL raises SyntaxError on some broken headers, ValueError on some broken chunks.
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be decoded: {error}") from None


def is_turned(path: Path) -> bool:
    """Whether EXIF asks for a rotation, which :func:`load` does not carry out."""
    try:
        with PILImage.open(path) as image:
            return bool(image.getexif().get(TAGGED_ORIENTATION, 1) != 1)
    except Exception:  # EXIF comes broken in half a dozen ways, beside pixels that are sound
        return False


def load_mask(paths: Sequence[Path | None]) -> Image:
    """Masks of an image's objects, and last of what to ignore, in one: (H, W), k for the k-th object.

    Where objects overlap the smallest is on top, so that none is lost.

    Args:
        paths: of the objects' masks, white on black; the last, of the region to ignore, may be None.
    """
    *objects, ignore = paths
    shape: tuple[int, ...] | None = None
    found: list[tuple[int, npt.NDArray[np.bool_]]] = []
    for k, path in enumerate(filter(None, objects), start=1):
        white = _white(path, shape)
        shape = white.shape
        found.append((min(k, IGNORED - 1), white))
    if shape is None:
        raise InputError("a list of masks without an object's")
    mask = np.zeros(shape, np.uint8)
    for k, white in sorted(found, key=lambda each: -int(each[1].sum())):
        mask[white] = k
    if ignore is not None:
        mask[_white(ignore, mask.shape) & (mask == 0)] = IGNORED
    return mask


def _white(path: Path, shape: tuple[int, ...] | None) -> npt.NDArray[np.bool_]:
    """Where a mask is white, (H, W), resized to another one's shape if that differs."""
    grey = load(path)[..., 0]
    if shape is not None and grey.shape != shape:
        grey = np.asarray(PILImage.fromarray(grey).resize((shape[1], shape[0]), PILImage.Resampling.NEAREST))
    return grey > 127


def split(
    rows: Sequence[Row],
    masks: Sequence[Sequence[Path | None]] | None = None,
    sizes: npt.NDArray[np.int64] | None = None,
    box_sources: Sequence[Sequence[str]] | None = None,
) -> Split:
    """Photos as a split; ``masks`` are what :func:`load_mask` takes for each of them, if there are any."""
    return Split(
        ids=[name for name, _, _, _ in rows],
        labels=np.array([label for _, label, _, _ in rows], dtype=np.int64),
        boxes=[boxes for _, _, _, boxes in rows],
        sources=[path for _, _, path, _ in rows],
        load=load,
        sizes=sizes,
        masks=masks,
        load_mask=load_mask if masks is not None else None,
        box_sources=box_sources,
    )


def in_class_folders(root: Path) -> dict[str, list[Path]]:
    """Photos by the name of the folder that they lie in, all in the order of their names.

    Raises:
        InputError: no folders, a folder without photos, or a photo's name that leads to no file (a loop of links, say).
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {folder.name: [path for path in sorted(folder.iterdir()) if is_photo(path)] for folder in folders}
    if not found:
        raise InputError(f"{root}: expected a folder for each class, with its photos")
    for name, paths in found.items():
        if not paths:
            raise InputError(f"{root / name}: no photos ({', '.join(sorted(SUFFIXES))})")
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: leads to no file")
    return found


def is_photo(path: Path) -> bool:
    """Whether a name is a photo's, by its suffix; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def inside(root: Path, name: str, where: str) -> Path:
    """The file that a list names, below ``root``.

    Raises:
        InputError: a name that would lead out of it; ``where`` says which list and line.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise InputError(f"{where}: {shown(name)}: expected a path below {root}")
    if len(name.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in parts):
        raise InputError(f"{where}: {shown(name)}: longer than a path can be")
    return root / name


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line.

    Raises:
        InputError: no such file, or a line that is not UTF-8, empty or far too long, by its number.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(data.splitlines(), start=1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}:{number}: a line of {len(line):,} bytes, which no list has")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8: {error.reason}") from None
        if not text:
            raise InputError(f"{path}:{number}: an empty line")
        yield number, text


def box(texts: Sequence[str], where: str) -> Boxes:
    """One box of four corners, x0, y0, x1, y1, (1, 4).

    Raises:
        InputError: no four numbers, or corners in the wrong order; ``where`` says in which file and line.
    """
    try:
        x0, y0, x1, y1 = map(float, texts)
    except ValueError:
        raise InputError(f"{where}: box {' '.join(texts)}: expected four numbers x0, y0, x1, y1") from None
    if not (-np.inf < x0 <= x1 < np.inf and -np.inf < y0 <= y1 < np.inf):  # beyond the photo they are clipped
        raise InputError(f"{where}: box {' '.join(texts)}: expected x0 <= x1 and y0 <= y1")
    return np.array([[x0, y0, x1, y1]])


def held_out(rows: Sequence[Row], count: int) -> tuple[list[Row], list[Row]]:
    """Train and val: of each class the last ``count`` become val; what stays in train loses its boxes."""
    left = Counter(label for _, label, _, _ in rows)
    train: list[Row] = []
    val: list[Row] = []
    for row in rows:
        name, label, path, _ = row
        if left[label] <= count:
            val.append(row)
        else:
            train.append((name, label, path, NO_BOX))
        left[label] -= 1
    return train, val
