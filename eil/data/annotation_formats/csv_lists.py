"""CSV lists: boxes.csv, and a list of classes and splits for photos that are not in class folders."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from eil.core.files import InputError
from eil.data import NO_BOX, Boxes, masks, names, photos
from eil.data.annotation_formats.objects import Truth
from eil.data.photos import Row

CORNERS: Final = ["x0", "y0", "x1", "y1"]
SPLITS: Final = ("train", "val", "test")


def labels(root: Path, name: str) -> tuple[list[str], dict[str, list[Row]], tuple[str, ...]]:
    """Classes, photos of each split and remarks, from a CSV with the columns path, class and split.

    Args:
        root: below which the photos lie.
        name: of the list, below root.

    Raises:
        InputError: no such file or column; a malformed line; a photo that is missing or listed twice; no photos of
            train or test.
    """
    path = photos.path_below(root, name, "dataset.labels")
    listed: dict[str, tuple[str, str, Path]] = {}
    for where, fields in _table(path, ["path", "class", "split"]):
        photo = photos.path_below(root, fields["path"], where)
        key = names.nfc(fields["path"])
        if not photo.is_file():
            raise InputError(f"{where}: no photo {fields['path']}")
        if fields["split"] not in SPLITS:
            raise InputError(f"{where}: split = {fields['split']}: expected train, val or test")
        if not fields["class"]:
            raise InputError(f"{where}: a photo without a class")
        if key in listed:
            raise InputError(f"{where}: {key} is listed twice")
        listed[key] = (fields["split"], names.nfc(fields["class"]), photo)
    classes = sorted({label for _, label, _ in listed.values()})
    rows: dict[str, list[Row]] = {}
    for key, (split, label, photo) in sorted(listed.items()):
        rows.setdefault(split, []).append((key, classes.index(label), photo, NO_BOX))
    if missing := [split for split in ("train", "test") if split not in rows]:
        raise InputError(f"{path}: lists no photo of {missing[0]}")
    return classes, rows, _unlisted(root, path, {photo for _, _, photo in listed.values()})


def boxes(root: Path, known: Collection[str]) -> Truth:
    """True boxes and masks from boxes.csv.

    Lines are ``path,x0,y0,x1,y1``, or ``path,x0,y0,x1,y1,mask`` if the header says so; then the corners or the mask may
    be empty.

    Args:
        root: below which the photos and the file lie.
        known: photos that are known to exist.

    Raises:
        InputError: a malformed line, or a photo or mask that does not exist; the message has file and line.
    """
    path = root / "boxes.csv"
    with_masks = False
    found: dict[str, list[Boxes]] = {}
    files: dict[str, list[Path | None]] = {}
    box_sources: dict[str, list[str]] = {}
    for number, line in photos.lines(path):
        fields = next(csv.reader([line]))
        header = [field.strip() for field in fields]
        if number == 1 and (header[-4:] == CORNERS or header[-5:] == [*CORNERS, "mask"]):
            with_masks = header[-1] == "mask"
            continue
        if number == 1 and header[0] == "path":
            raise InputError(f"{path}:1: columns {', '.join(header)}: expected path, x0, y0, x1, y1 and perhaps mask")
        count = 5 if with_masks else 4
        name, where = ",".join(fields[:-count]).strip(), f"{path}:{number}"  # names may hold commas
        rest = header[-count:]
        if not name:
            raise InputError(f"{where}: expected path, x0, y0, x1, y1{', mask' * with_masks}: found {line}")
        if names.nfc(name) not in known and not photos.path_below(root, name, where).is_file():
            raise InputError(f"{where}: no photo {name}")
        mask = _mask(root, rest[4], where) if with_masks and rest[4] else None
        if any(rest[:4]) or mask is None:
            found.setdefault(names.nfc(name), []).append(photos.box(rest[:4], where))
            box_sources.setdefault(names.nfc(name), []).append(where)
        files.setdefault(names.nfc(name), []).append(mask)
    return Truth(
        str(path),
        {name: np.concatenate(boxes) for name, boxes in found.items()},
        _complete(found, files, path) if with_masks else {},
        load_mask=masks.load_mask,
        box_sources=box_sources,
    )


def _mask(root: Path, name: str, where: str) -> Path:
    path = photos.path_below(root, name, where)
    if not path.is_file():
        raise InputError(f"{where}: no mask {name}")
    return path


def _complete(
    found: dict[str, list[Boxes]], files: dict[str, list[Path | None]], path: Path
) -> dict[str, list[Path | None]]:
    """The argument of load_mask for each photo with masks; every line of such a photo must have one."""
    masked: dict[str, list[Path | None]] = {}
    for name, mask_files in files.items():
        if any(mask_files) and not all(mask_files):
            raise InputError(f"{path}: {name}: a mask for some of its lines, and none for others")
        if len(found.get(name, mask_files)) != len(mask_files):
            raise InputError(f"{path}: {name}: corners for some of its lines, and none for others")
        if any(mask_files):
            masked[name] = [*dict.fromkeys(mask_files), None]  # one mask may cover several boxes; no region is ignored
    return masked


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """``file:line`` and the values of these columns of each line below the header."""
    header: list[str] = []
    for number, line in photos.lines(path):
        fields = [field.strip() for field in next(csv.reader([line]))]
        if number == 1:
            header = fields
            if missing := [column for column in columns if header.count(column) != 1]:
                raise InputError(f"{path}:1: no column {missing[0]}: expected a header with {', '.join(columns)}")
            continue
        if len(fields) != len(header):
            raise InputError(f"{path}:{number}: {len(fields)} fields, but the header has {len(header)}")
        yield f"{path}:{number}", dict(zip(header, fields, strict=True))


def _unlisted(root: Path, path: Path, listed: set[Path]) -> tuple[str, ...]:
    """A remark about photos below root that are not listed; files in masks/ are not photos."""
    known = {each.relative_to(root).as_posix() for each in listed}
    others = [
        each
        for each in names.files(root)
        if photos.is_photo(Path(each)) and each not in known and not each.startswith("masks/")
    ]
    return (f"left out: {len(others)} photos that {path.name} does not list: {names.first_few(others)}",) * bool(others)
