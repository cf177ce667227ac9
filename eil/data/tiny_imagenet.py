"""tiny_imagenet: Tiny-ImageNet-200 or a subset of it, in its native layout.

The official validation set is ``test``; the last 50 training images of each class, by the number in the
file's name, are ``val`` (their boxes choose thresholds); the rest is ``train``, whose boxes are never read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from eil.data import NO_BOX, Boxes, Dataset, photos
from eil.data.photos import Row
from eil.files import InputError

SIDE = 64
VAL_PER_CLASS = 50


def read(root: Path | None = None) -> Dataset:
    """List the photos under ``root`` (the folder that holds wnids.txt).

    Raises:
        InputError: a missing folder or file, a line that is not in the layout, or a box outside its photo.
    """
    if root is None or not (root / "wnids.txt").is_file():
        raise InputError(
            f"tiny_imagenet: no wnids.txt in {root or 'any folder (no root was given)'}; name the unzipped "
            "tiny-imagenet-200 folder by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    wnids = [wnid for _, (wnid,) in _fields(root / "wnids.txt", 1)]
    names = {wnid: name for _, (wnid, name) in _fields(root / "words.txt", 2)}
    train: list[Row] = []
    val: list[Row] = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / photos.inside(Path(), wnid, f"{root / 'wnids.txt'}:{label + 1}") / "images"
        files = sorted(folder.glob("*.JPEG"), key=_number)
        if len(files) <= VAL_PER_CLASS:
            raise InputError(f"{folder}: {len(files)} *.JPEG, more than {VAL_PER_CLASS} expected")
        boxes = _boxes(folder.parent / f"{wnid}_boxes.txt")
        train += [_row(root, path, label, NO_BOX) for path in files[:-VAL_PER_CLASS]]
        val += [_row(root, path, label, _known(boxes, path)) for path in files[-VAL_PER_CLASS:]]
    return Dataset(
        name="tiny_imagenet",
        classes=tuple(names.get(wnid, wnid).split(",")[0] for wnid in wnids),
        splits={"train": photos.split(train), "val": photos.split(val), "test": photos.split(_test(root, wnids))},
    )


def _test(root: Path, wnids: list[str]) -> list[Row]:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    listing = root / "val" / "val_annotations.txt"
    return [
        _row(root, photos.inside(root / "val" / "images", file, where), labels[wnid], _box(listing, number, corners))
        for number, (file, wnid, *corners) in _fields(listing, 6)
        if wnid in labels and (where := f"{listing}:{number}")
    ]


def _row(root: Path, path: Path, label: int, boxes: Boxes) -> Row:
    return path.relative_to(root).as_posix(), label, path, boxes


def _fields(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    """Number and tab-separated fields of each line."""
    for number, line in photos.lines(path):
        parts = line.split("\t")
        if len(parts) != count:
            raise InputError(f"{path}:{number}: {len(parts)} tab-separated fields, expected {count}")
        yield number, parts


def _boxes(path: Path) -> dict[str, Boxes]:
    return {file: _box(path, number, corners) for number, (file, *corners) in _fields(path, 5)}


def _box(path: Path, line: int, corners: list[str]) -> Boxes:
    found = photos.box(corners, f"{path}:{line}")
    if found.max() >= SIDE:
        raise InputError(f"{path}:{line}: box {' '.join(corners)} does not lie in a {SIDE}x{SIDE} photo")
    return found


def _known(boxes: dict[str, Boxes], path: Path) -> Boxes:
    if path.name not in boxes:
        raise InputError(f"{path}: has no box in {path.parent.parent.name}_boxes.txt")
    return boxes[path.name]


def _number(path: Path) -> int:
    match = re.fullmatch(r".+_(\d+)", path.stem)
    if match is None:
        raise InputError(f"{path}: expected a name like n01443537_17.JPEG")
    return int(match[1])
