"""tiny_imagenet: Tiny-ImageNet-200 or a subset of it, in its native layout.

The official validation set is ``test``; the last 50 training images of each class, by the number in the
file's name, are ``val`` (their boxes choose thresholds); the rest is ``train``, whose boxes are never read.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from eil.core.files import InputError
from eil.core.safe_yaml import shown
from eil.data import NO_BOX, Boxes, Dataset, Split, photos
from eil.data.photos import Row

Located = tuple[Row, str]  # with where its box was read
SIDE = 64
VAL_PER_CLASS = 50


def read(root: Path | None = None) -> Dataset:
    """List the photos under ``root`` (the folder that holds wnids.txt).

    Raises:
        InputError: a missing folder or file, a line that is not in the layout, or a class that no list has.
    """
    if root is None or not (root / "wnids.txt").is_file():
        raise InputError(
            f"tiny_imagenet: no wnids.txt in {root or 'any folder (no root was given)'}; name the unzipped "
            "tiny-imagenet-200 folder by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    wnids = _wnids(root / "wnids.txt")
    names = {wnid: name for _, (wnid, name) in _fields(root / "words.txt", 2)}
    train: list[Row] = []
    val: list[Located] = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        files = sorted(folder.glob("*.JPEG"), key=_number)
        if len(files) <= VAL_PER_CLASS:
            raise InputError(f"{folder}: {len(files)} *.JPEG, more than {VAL_PER_CLASS} expected")
        boxes = _boxes(folder.parent / f"{wnid}_boxes.txt")
        train += [_row(root, path, label, NO_BOX) for path in files[:-VAL_PER_CLASS]]
        located = [(path, *_known(boxes, path)) for path in files[-VAL_PER_CLASS:]]
        val += [(_row(root, path, label, box), where) for path, box, where in located]
    test, others = _test(root, wnids, names.keys())
    listing = root / "val" / "val_annotations.txt"
    return Dataset(
        name="tiny_imagenet",
        classes=tuple(names.get(wnid, wnid).split(",")[0] for wnid in wnids),
        splits={"train": photos.split(train), "val": _split(val), "test": _split(test)},
        class_ids=tuple(wnids),
        val_is_held_out=True,
        remarks=(f"{others} photos of {listing} are of classes that wnids.txt does not have: left out",)
        if others
        else (),
    )


def _wnids(path: Path) -> list[str]:
    """The classes' WordNet ids, which are names of folders."""
    found: dict[str, int] = {}
    for line, (wnid,) in _fields(path, 1):
        photos.path_below(Path(), wnid, f"{path}:{line}")
        if wnid in found:
            raise InputError(f"{path}:{line}: {wnid} stands in line {found[wnid]} too")
        found[wnid] = line
    return list(found)


def _test(root: Path, wnids: list[str], named: Collection[str]) -> tuple[list[Located], int]:
    """Photos of the official validation set, and how many others are of classes that words.txt alone has."""
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    listing = root / "val" / "val_annotations.txt"
    found, others = [], 0
    for line, (file, wnid, *corners) in _fields(listing, 6):
        where = f"{listing}:{line}"
        if wnid not in labels and wnid not in named:
            raise InputError(f"{where}: class {shown(wnid)} is neither in wnids.txt nor in words.txt")
        if wnid in labels:
            path = photos.path_below(root / "val" / "images", file, where)
            found.append((_row(root, path, labels[wnid], photos.box(corners, where)), where))
        else:
            others += 1
    return found, others


def _split(located: list[Located]) -> Split:
    size = np.full((len(located), 2), SIDE)
    return photos.split([row for row, _ in located], sizes=size, box_sources=[[where] for _, where in located])


def _row(root: Path, path: Path, label: int, boxes: Boxes) -> Row:
    return path.relative_to(root).as_posix(), label, path, boxes


def _fields(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    """Number and tab-separated fields of each line."""
    for number, line in photos.lines(path):
        parts = line.split("\t")
        if len(parts) != count:
            raise InputError(f"{path}:{number}: {len(parts)} tab-separated fields, expected {count}")
        yield number, parts


def _boxes(path: Path) -> dict[str, tuple[Boxes, str]]:
    """Each file's box, and where it was read."""
    return {
        file: (photos.box(corners, where), where)
        for line, (file, *corners) in _fields(path, 5)
        if (where := f"{path}:{line}")
    }


def _known(boxes: dict[str, tuple[Boxes, str]], path: Path) -> tuple[Boxes, str]:
    if path.name not in boxes:
        raise InputError(f"{path}: has no box in {path.parent.parent.name}_boxes.txt")
    return boxes[path.name]


def _number(path: Path) -> int:
    match = re.fullmatch(r".+_(\d+)", path.stem)
    if match is None:
        raise InputError(f"{path}: expected a name like n01443537_17.JPEG")
    return int(match[1])
