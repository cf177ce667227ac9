"""cub: CUB-200-2011 in its native layout (Wah et al., 2011), or some of its classes in the same layout.

The official test images are ``test``. ``val`` is held out of the official training images, the last few of each
class, or is CUBV2 (Choe et al., CVPR 2020) where it is given; what is left of the training images is ``train``, whose
boxes are never read. Segmentations are masks where their archive was unpacked beside, or in, the data set's folder.
Ids are looked up: those of classes in classes.txt, those of images in images.txt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from eil.core.files import InputError
from eil.data import NO_BOX, Boxes, Dataset, Split, photos
from eil.data.photos import Row
from eil.data.readers import wsoleval

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt")


@dataclass(frozen=True)
class Entry:
    """A line of a list: the fields after its id, and ``FILE:LINE`` for messages."""

    fields: list[str]
    where: str


Entries = dict[str, Entry]  # by id


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
        cubv2: folder of CUBV2's images, which are val instead; those of other classes are left out.
        cubv2_lists: folder of its lists (default: metadata/CUB/val beside ``cubv2``).

    Raises:
        InputError: a missing folder or list, a line that is not in the layout, or an id that its list does not have, by
            file and line.
    """
    root = root / "CUB_200_2011" if root is not None and (root / "CUB_200_2011").is_dir() else root
    missing = [name for name in LISTS if root is None or not (root / name).is_file()]
    if root is None or missing:
        raise InputError(
            f"cub: no {', '.join(missing)} in {root or 'any folder (no root was given)'}; name the unpacked "
            "CUB_200_2011 by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    classes = {number: entry.fields[0] for number, entry in _by_id(root / "classes.txt", 1).items()}
    official, boxes = _official(root, list(classes))
    train, held = photos.split_off_val(official["1"], held_out if cubv2 is None else 0)
    splits = {
        "train": photos.split(train),
        "val": _split(root, held, boxes),
        "test": _split(root, official["0"], boxes),
    }
    remarks: tuple[str, ...] = ()
    if cubv2 is not None:
        splits["val"], remarks = _cubv2(cubv2, cubv2_lists or cubv2.parent / "metadata" / "CUB" / "val", classes)
    return Dataset(
        name="cub",
        classes=tuple(classes.values()),
        splits=splits,
        class_ids=tuple(classes),
        val_is_held_out=cubv2 is None,
        remarks=remarks,
    )


def _official(root: Path, classes: list[str]) -> tuple[dict[str, list[Row]], Entries]:
    """Photos without boxes, "1" of the official training split and "0" of the test split; and boxes by photo."""
    images = _by_id(root / "images.txt", 1)
    paths = {n: photos.path_below(root / "images", image.fields[0], image.where) for n, image in images.items()}
    labels, training, boxes = (
        _of_images(root / name, count, images)
        for name, count in (("image_class_labels.txt", 1), ("train_test_split.txt", 1), ("bounding_boxes.txt", 4))
    )
    label_of = {number: label for label, number in enumerate(classes)}
    rows: dict[str, list[Row]] = {"0": [], "1": []}
    for number, image in images.items():
        (class_id,), (official,) = labels[number].fields, training[number].fields
        if official not in rows:
            raise InputError(f"{training[number].where}: image {number} is {official}: expected 0 or 1")
        if class_id not in label_of:
            raise InputError(f"{labels[number].where}: class {class_id} is not in {root / 'classes.txt'}")
        rows[official].append((image.fields[0], label_of[class_id], paths[number], NO_BOX))
    return rows, {image.fields[0]: boxes[number] for number, image in images.items()}


def _by_id(path: Path, count: int) -> Entries:
    """The lines of a list by the id that opens each; the last field may hold spaces."""
    found: Entries = {}
    for line, text in photos.lines(path):
        number, *fields = text.split(maxsplit=count)
        if len(fields) != count:
            raise InputError(f"{path}:{line}: expected a number and {count} more fields, found {text!r}")
        if number in found:
            raise InputError(f"{path}:{line}: number {number} is listed twice")
        found[number] = Entry(fields, f"{path}:{line}")
    return found


def _of_images(path: Path, count: int, images: Entries) -> Entries:
    """The lines of a list that has one for each image."""
    found = _by_id(path, count)
    for number, entry in found.items():
        if number not in images:
            raise InputError(f"{entry.where}: image {number} is not in {path.with_name('images.txt')}")
    for number, image in images.items():
        if number not in found:
            raise InputError(f"{path}: has no line for image {number}, {image.fields[0]} ({image.where})")
    return found


def _box(entry: Entry) -> Boxes:
    """x, y, width, height to corners: x + width as the wsolevaluation lists have it; they may lie beyond the photo."""
    text = " ".join(entry.fields)
    try:
        x, y, width, height = map(float, entry.fields)
    except ValueError:
        raise InputError(f"{entry.where}: box {text}: expected x, y, width, height") from None
    if not (width > 0 and height > 0 and np.isfinite([x, y, x + width, y + height]).all()):
        raise InputError(f"{entry.where}: box {text}: a box without an area")
    return np.array([[x, y, x + width, y + height]])


def _split(root: Path, rows: Sequence[Row], boxes: Mapping[str, Entry]) -> Split:
    """With boxes, and with masks if the archive of segmentations is at hand."""
    located = [(name, label, path, _box(boxes[name])) for name, label, path, _ in rows]
    where = [[boxes[name].where] for name, _, _, _ in rows]
    for folder in (root / "segmentations", root.parent / "segmentations"):
        if folder.is_dir():
            masks = [((folder / name).with_suffix(".png"), None) for name, _, _, _ in rows]
            return photos.split(located, masks, box_sources=where)
    return photos.split(located, box_sources=where)


def _cubv2(folder: Path, lists: Path, classes: Mapping[str, str]) -> tuple[Split, tuple[str, ...]]:
    """CUBV2's images of these classes (id -> name), and how many others were left out.

    The lists number all 200 classes from 0, so that a class is known by its folder; its number is checked.
    """
    found = wsoleval.lists(lists)
    if found.boxes is None:
        raise InputError(f"{lists / 'localization.txt'}: has masks: not the lists of CUBV2")
    label_of = {name: label for label, name in enumerate(classes.values())}
    number_of = {name: int(number) - 1 for number, name in classes.items() if number.isdecimal()}
    rows, kept = [], []
    for k, (name, number) in enumerate(zip(found.ids, found.labels.tolist(), strict=True)):
        path = photos.path_below(folder, name, f"{lists / 'image_ids.txt'}:{k + 1}")
        class_name = path.parent.name
        if class_name not in label_of:
            continue
        if number_of.get(class_name, number) != number:
            where = wsoleval.label_line(lists, name)
            raise InputError(
                f"{where}: label {number}, but class {class_name} is number {number_of[class_name]} from 0"
            )
        kept.append(k)
        rows.append((name, label_of[class_name], path, found.boxes[k]))
    if not rows:
        raise InputError(
            f"{lists / 'image_ids.txt'}: {found.ids[0]} and all others are of none of this data set's classes"
        )
    sources = found.box_sources
    split = photos.split(
        rows,
        sizes=None if found.sizes is None else found.sizes[kept],
        box_sources=None if sources is None else [sources[k] for k in kept],
    )
    others = len(found.ids) - len(rows)
    return split, (
        f"{others} of CUBV2's {len(found.ids)} images are of other classes and were left out",
    ) if others else ()
