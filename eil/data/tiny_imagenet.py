"""tiny_imagenet: Tiny-ImageNet-200 or a subset of it, in its native layout.

The official validation set is ``test``; the last 50 training images of each class, by the number in the
file's name, are ``val`` (their boxes choose thresholds); the rest is ``train``, whose boxes are never read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from pydantic import Field

from eil.data import Boxes, Dataset, Image, Split
from eil.files import InputError

SIDE = 64
VAL_PER_CLASS = 50


def read(
    root: Path | None = None,
    *,
    classes: Annotated[int, Field(ge=2)] | None = None,
    train_per_class: Annotated[int, Field(ge=1)] | None = None,
    val_per_class: Annotated[int, Field(ge=1, le=VAL_PER_CLASS)] = VAL_PER_CLASS,
) -> Dataset:
    """List the photos under ``root`` (the folder that holds wnids.txt).

    Args:
        root: the data set's folder.
        classes: keep the first so many of wnids.txt (default: all).
        train_per_class: keep the first so many training photos of each class (default: all but val's).
        val_per_class: keep the first so many of each class's 50 val photos.

    Raises:
        InputError: a missing folder or file, a line that is not in the layout, or a box outside its photo.
    """
    if root is None or not (root / "wnids.txt").is_file():
        raise InputError(
            f"tiny_imagenet: no wnids.txt in {root or 'any folder (no root was given)'}; name the unzipped "
            "tiny-imagenet-200 folder by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    wnids = [wnid for _, (wnid,) in _lines(root / "wnids.txt", 1)][:classes]
    if classes is not None and len(wnids) < classes:
        raise InputError(f"{root / 'wnids.txt'}: dataset.classes = {classes}, but only {len(wnids)} are listed")
    names = {wnid: name for _, (wnid, name) in _lines(root / "words.txt", 2)}
    train: list[tuple[Path, int, Boxes]] = []
    val: list[tuple[Path, int, Boxes]] = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        files = sorted(folder.glob("*.JPEG"), key=_number)
        if len(files) <= VAL_PER_CLASS:
            raise InputError(f"{folder}: {len(files)} *.JPEG, more than {VAL_PER_CLASS} expected")
        boxes = _boxes(folder.parent / f"{wnid}_boxes.txt")
        train += [(path, label, np.empty((0, 4))) for path in files[:-VAL_PER_CLASS][:train_per_class]]
        val += [(path, label, _known(boxes, path)) for path in files[-VAL_PER_CLASS:][:val_per_class]]
    return Dataset(
        name="tiny_imagenet",
        classes=tuple(names.get(wnid, wnid).split(",")[0] for wnid in wnids),
        splits={
            "train": _split(root, train),
            "val": _split(root, val),
            "test": _split(root, _test(root, wnids)),
        },
    )


def _test(root: Path, wnids: list[str]) -> list[tuple[Path, int, Boxes]]:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    listing = root / "val" / "val_annotations.txt"
    return [
        (root / "val" / "images" / file, labels[wnid], _box(listing, number, corners))
        for number, (file, wnid, *corners) in _lines(listing, 6)
        if wnid in labels
    ]


def _split(root: Path, rows: list[tuple[Path, int, Boxes]]) -> Split:
    paths = [path for path, _, _ in rows]
    return Split(
        ids=[path.relative_to(root).as_posix() for path in paths],
        labels=np.array([label for _, label, _ in rows], dtype=np.int64),
        boxes=[boxes for _, _, boxes in rows],
        load=lambda index: load_image(paths[index]),
    )


def load_image(path: Path) -> Image:
    """Decode a photo to (H, W, 3) RGB.

    Raises:
        InputError: the file is missing, truncated or not an image.
    """
    try:
        with PILImage.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # PIL raises SyntaxError on some broken headers
        raise InputError(f"{path}: cannot be decoded: {error}") from None


def _lines(path: Path, fields: int) -> Iterator[tuple[int, list[str]]]:
    """Number and tab-separated fields of each line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split("\t")
        if len(parts) != fields:
            raise InputError(f"{path}:{number}: {len(parts)} tab-separated fields, expected {fields}")
        yield number, parts


def _boxes(path: Path) -> dict[str, Boxes]:
    return {file: _box(path, number, corners) for number, (file, *corners) in _lines(path, 5)}


def _box(path: Path, line: int, corners: list[str]) -> Boxes:
    if not all(corner.isdigit() for corner in corners):
        raise InputError(f"{path}:{line}: box {' '.join(corners)}: four whole numbers expected")
    x0, y0, x1, y1 = map(int, corners)
    if not (x0 <= x1 < SIDE and y0 <= y1 < SIDE):
        raise InputError(f"{path}:{line}: box {x0} {y0} {x1} {y1} does not lie in a {SIDE}x{SIDE} photo")
    return np.array([[x0, y0, x1, y1]], dtype=np.float64)


def _known(boxes: dict[str, Boxes], path: Path) -> npt.NDArray[np.float64]:
    if path.name not in boxes:
        raise InputError(f"{path}: has no box in {path.parent.parent.name}_boxes.txt")
    return boxes[path.name]


def _number(path: Path) -> int:
    match = re.fullmatch(r".+_(\d+)", path.stem)
    if match is None:
        raise InputError(f"{path}: expected a name like n01443537_17.JPEG")
    return int(match[1])
