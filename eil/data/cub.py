"""cub: CUB-200-2011 in its native layout (Wah et al., 2011).

The official test images are ``test``. ``val`` is held out of the official training images, the last few of each
class, or is CUBV2 (Choe et al., CVPR 2020) where it is given; what is left of the training images is ``train``, whose
boxes are never read. Segmentations are masks where their archive was unpacked beside, or in, the data set's folder.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from eil.data import NO_BOX, Boxes, Dataset, Split, photos, wsoleval
from eil.data.photos import Row
from eil.files import InputError

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt")


def read(
    root: Path | None = None,
    *,
    held_out: Annotated[int, Field(ge=1)] = 5,
    cubv2: Path | None = None,
    cubv2_lists: Path | None = None,
) -> Dataset:
    """List the photos under ``root``.

    Args:
        root: the unpacked CUB_200_2011, or the folder in which it lies.
        held_out: training images of each class that become val.
        cubv2: folder of CUBV2's images, which are val instead.
        cubv2_lists: folder of its lists (default: metadata/CUB/val beside ``cubv2``).

    Raises:
        InputError: a missing folder or list, or a line that is not in the layout, by file and line.
    """
    root = root / "CUB_200_2011" if root is not None and (root / "CUB_200_2011").is_dir() else root
    missing = [name for name in LISTS if root is None or not (root / name).is_file()]
    if root is None or missing:
        raise InputError(
            f"cub: no {', '.join(missing)} in {root or 'any folder (no root was given)'}; name the unpacked "
            "CUB_200_2011 by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    classes = list(_by_number(root / "classes.txt", 1).values())
    labels = {number: fields[0] for number, fields in _by_number(root / "image_class_labels.txt", 1).items()}
    training = {number: fields[0] for number, fields in _by_number(root / "train_test_split.txt", 1).items()}
    boxes = _by_number(root / "bounding_boxes.txt", 4)
    rows: dict[str, list[Row]] = {"0": [], "1": []}
    known: dict[str, str] = {}
    for line, (number, (name,)) in enumerate(_by_number(root / "images.txt", 1).items(), start=1):
        path = photos.inside(root / "images", name, f"{root / 'images.txt'}:{line}")
        for table, list_name in ((labels, LISTS[1]), (training, LISTS[2]), (boxes, LISTS[3])):
            if number not in table:
                raise InputError(f"{root / list_name}: has no line for image {number}, {name}")
        if training[number] not in rows:
            raise InputError(f"{root / LISTS[2]}: image {number} is {training[number]}: expected 0 or 1")
        label = _label(labels[number], len(classes), f"{root / LISTS[1]}: image {number}")
        rows[training[number]].append((name, label, path, NO_BOX))
        known[name] = number
    train, val = photos.held_out(rows["1"], held_out if cubv2 is None else 0)
    val, test = (
        [
            (name, label, path, _box(boxes[known[name]], f"{root / LISTS[3]}: image {known[name]}"))
            for name, label, path, _ in part
        ]
        for part in (val, rows["0"])
    )
    return Dataset(
        name="cub",
        classes=tuple(name for (name,) in classes),
        splits={
            "train": photos.split(train),
            "val": _split(root, val) if cubv2 is None else _cubv2(cubv2, cubv2_lists, len(classes)),
            "test": _split(root, test),
        },
    )


def _by_number(path: Path, count: int) -> dict[str, list[str]]:
    """The fields of each line by the number that opens it; the last field may hold spaces."""
    found: dict[str, list[str]] = {}
    for line, text in photos.lines(path):
        number, *fields = text.split(maxsplit=count)
        if len(fields) != count:
            raise InputError(f"{path}:{line}: expected a number and {count} more fields, found {text!r}")
        if number in found:
            raise InputError(f"{path}:{line}: number {number} stands there twice")
        found[number] = fields
    return found


def _label(text: str, classes: int, where: str) -> int:
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= classes):
        raise InputError(f"{where}: class {text}: expected 1 to {classes}")
    return int(text) - 1


def _box(fields: list[str], where: str) -> Boxes:
    """x, y, width, height to corners: x + width as the wsolevaluation lists have it."""
    try:
        x, y, width, height = map(float, fields)
    except ValueError:
        raise InputError(f"{where}: box {' '.join(fields)}: expected x, y, width, height") from None
    if not (width > 0 and height > 0 and np.isfinite([x, y, x + width, y + height]).all()):
        raise InputError(f"{where}: box {' '.join(fields)}: a box without an area")
    return np.array([[x, y, x + width, y + height]])


def _split(root: Path, rows: list[Row]) -> Split:
    """With masks if the archive of segmentations is at hand."""
    for folder in (root / "segmentations", root.parent / "segmentations"):
        if folder.is_dir():
            return photos.split(rows, [((folder / name).with_suffix(".png"), None) for name, _, _, _ in rows])
    return photos.split(rows)


def _cubv2(folder: Path, lists: Path | None, classes: int) -> Split:
    found = wsoleval.lists(lists or folder.parent / "metadata" / "CUB" / "val")
    if found.boxes is None or found.labels.max() >= classes:
        raise InputError(f"{lists or folder.parent / 'metadata' / 'CUB' / 'val'}: not the lists of CUBV2")
    listed = zip(found.ids, found.labels.tolist(), found.boxes, strict=True)
    rows = [(name, label, photos.inside(folder, name, "image_ids.txt"), own) for name, label, own in listed]
    return photos.split(rows, sizes=found.sizes)
