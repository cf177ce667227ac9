"""Find photos: class folders, lists of paths, and numbered lines of text files.

:mod:`eil.data.image_formats` decodes photos, :mod:`eil.data.masks` decodes masks.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.core.safe_yaml import shown
from eil.data import NO_BOX, Boxes, Dataset, Image, Split, names
from eil.data.fingerprint import FilePaths
from eil.data.image_formats import TAGGED_ORIENTATION, Exif, is_turned, load
from eil.data.masks import MaskColours, load_mask

__all__ = ["TAGGED_ORIENTATION", "is_turned", "load", "load_mask"]  # re-exported for readers of photos

Row = tuple[str, int, Path | str, Boxes]  # id, label, path of the photo, true boxes
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif"}
)
DRIVES = os.name == "nt"  # whether a path may lead to a drive: C:photo.jpg
LONGEST_LINE = 10_000
LONGEST_PART, LONGEST_PATH = 255, 2000  # bytes of a path below a root; most systems' limits are 255 and 4,096


def with_annotation_settings(dataset: Dataset, *, exif: Exif = "ignore", mask: MaskColours | None = None) -> Dataset:
    """Apply the settings ``exif`` and ``mask``, which all layouts of photos share.

    Args:
        dataset: as its reader gives it.
        exif: "apply" turns photos by their orientation tag, for boxes that were drawn on turned photos.
        mask: meaning of the masks' colours, if the rules of :mod:`eil.data.masks` do not cover them.

    Raises:
        InputError: a data set without photos, or without mask files.
    """
    splits = dict(dataset.splits)
    with_files = [name for name, split in splits.items() if split.load_mask is load_mask]
    if mask is not None and not with_files:
        raise InputError(f"dataset.mask: {dataset.name} has no mask files")
    if exif == "apply":
        if any(split.load is not load for split in splits.values()):
            raise InputError(f"dataset.exif = apply: {dataset.name} has no photo files")
        turned = functools.partial(load, exif=exif)
        splits = {name: replace(split, load=turned) for name, split in splits.items()}
    if mask is not None or exif == "apply":
        meant = functools.partial(load_mask, colours=mask, exif=exif)
        splits |= {name: replace(splits[name], load_mask=meant) for name in with_files}
    return replace(dataset, splits=splits)


def split(
    rows: Sequence[Row],
    masks: Sequence[Any] | None = None,
    sizes: npt.NDArray[np.int64] | None = None,
    load_mask: Callable[[Any], Image] = load_mask,
    box_sources: Sequence[Sequence[str]] | None = None,
) -> Split:
    """A split of photos; ``masks`` has the argument of ``load_mask`` for each of them."""
    return Split(
        ids=[name for name, _, _, _ in rows],
        labels=np.array([label for _, label, _, _ in rows], dtype=np.int64),
        boxes=[boxes for _, _, _, boxes in rows],
        sources=FilePaths([os.fspath(path) for _, _, path, _ in rows]),
        load=load,
        sizes=sizes,
        masks=masks,
        load_mask=load_mask if masks is not None else None,
        box_sources=box_sources,
    )


def in_class_folders(root: Path) -> dict[str, list[Path]]:
    """Photos by class folder, sorted by name; see :func:`names_in_class_folders`."""
    return {
        name: [folder / file_name for file_name in found]
        for name, (folder, found) in names_in_class_folders(root).items()
    }


def names_in_class_folders(root: Path) -> dict[str, tuple[Path, list[str]]]:
    """Each class folder and the names of its photos, sorted by name.

    Raises:
        InputError: no folders, a folder without photos, or a broken link.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    folders = sorted((path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")), key=_order)
    found = {names.nfc(folder.name): (folder, _in_folder(folder)) for folder in folders}
    names.require_distinct([folder.name for folder in folders], str(root))
    if not found:
        raise InputError(f"{root}: expected a folder for each class, with its photos")
    for name, (_, file_names) in found.items():
        if not file_names:
            raise InputError(f"{root / name}: no photos ({', '.join(sorted(SUFFIXES))})")
    return found


def _in_folder(folder: Path) -> list[str]:
    """Names of the photos of one folder."""
    with os.scandir(folder) as entries:
        found = [(entry.name, _is_file(entry)) for entry in entries if is_photo_name(entry.name)]
    names.require_distinct([name for name, _ in found], str(folder))
    for name, is_file in found:
        if not is_file:
            raise InputError(f"{folder / name}: not a file, or a broken link")
    return sorted((name for name, _ in found), key=names.nfc)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads back to itself
        return False


def _order(path: Path) -> str:
    """Sort key that does not depend on the Unicode normal form that a disk uses."""
    return names.nfc(path.name)


def is_photo(path: Path) -> bool:
    """Whether a name is a photo's, by its suffix; hidden files are not."""
    return is_photo_name(path.name)


def is_photo_name(name: str) -> bool:
    """:func:`is_photo` of a name."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in SUFFIXES and not name.startswith(".")


def path_below(root: Path, name: str, where: str) -> Path:
    """Path below ``root`` of a file that a list names, in whichever Unicode normal form.

    Raises:
        InputError: a name that leads out of ``root``; ``where`` is the list and line for the message.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or (DRIVES and ":" in name):
        raise InputError(f"{where}: {shown(name)}: expected a path below {root}")
    if len(name.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in parts):
        raise InputError(f"{where}: {shown(name)}: longer than a path can be")
    if name.isascii():
        return root / name
    path = root
    for part in parts:
        path = (
            path / part if os.path.lexists(path / part) else path / names.names_on_disk(path).get(names.nfc(part), part)
        )
    return path


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line.

    Raises:
        InputError: no such file, or a line that is not UTF-8, empty or too long; the message has its number.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(data.splitlines(), start=1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}:{number}: a line of {len(line):,} bytes, the limit is {LONGEST_LINE:,}")
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
        InputError: not four numbers, or corners in the wrong order; ``where`` is file and line for the message.
    """
    try:
        x0, y0, x1, y1 = map(float, texts)
    except ValueError:
        raise InputError(f"{where}: box {' '.join(texts)}: expected four numbers x0, y0, x1, y1") from None
    if not (-np.inf < x0 <= x1 < np.inf and -np.inf < y0 <= y1 < np.inf):  # boxes beyond the photo are clipped later
        raise InputError(f"{where}: box {' '.join(texts)}: expected x0 <= x1 and y0 <= y1")
    return np.array([[x0, y0, x1, y1]])


def split_off_val(rows: Sequence[Row], count: int) -> tuple[list[Row], list[Row]]:
    """Split off val: the last ``count`` photos of each class. The remaining training photos lose their boxes."""
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
