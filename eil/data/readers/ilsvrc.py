"""ilsvrc: ImageNet's localization task (ILSVRC CLS-LOC) in its native layout, as Kaggle hands it out.

``Data/CLS-LOC/{train/WNID,val}/*.JPEG`` and ``Annotations/CLS-LOC/{train/WNID,val}/*.xml``. Photos of val, and their
annotations, may have been sorted into folders of their classes, the usual preparation. The official validation set is
``test``, as in every WSOL paper. ``val``, on which thresholds are chosen, is held out of those training images that
have annotations, the last few of each class; the boxes of the rest are never read.
"""

import math
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import numpy as np
from pydantic import Field

from eil.core.files import InputError
from eil.data import NO_BOX, Boxes, Dataset, Split, photos
from eil.data.photos import Row

Located = tuple[Row, tuple[int, int], str]  # with the size at which its boxes were drawn, and their file
WNID = re.compile(r"n\d{8}")
LARGEST = 2**31 - 1  # side of a photo
CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")


def read(root: Path | None = None, *, held_out: Annotated[int, Field(ge=1)] = 10) -> Dataset:
    """List the photos under ``root``.

    Args:
        root: the folder that holds Data and Annotations, or the one above (ILSVRC).
        held_out: annotated training images of each class that become val.

    Raises:
        InputError: a missing folder, a photo without annotation or in the folder of another class, or an annotation
            that is not in the layout.
    """
    root = root / "ILSVRC" if root is not None and (root / "ILSVRC").is_dir() else root
    if root is None or not (root / "Data" / "CLS-LOC" / "val").is_dir():
        raise InputError(
            f"ilsvrc: no Data/CLS-LOC/val in {root or 'any folder (no root was given)'}; name the folder ILSVRC by "
            "dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    data, annotations = root / "Data" / "CLS-LOC", root / "Annotations" / "CLS-LOC"
    folders = photos.names_in_class_folders(data / "train")
    train: list[Row] = []
    val: list[Located] = []
    for label, (wnid, (folder, files)) in enumerate(folders.items()):
        apart = _held_out(folder, files, annotations / "train" / wnid, wnid, label, held_out)
        names = {name for (name, _, _, _), _, _ in apart}
        train += [
            (name, label, f"{folder}{os.sep}{file}", NO_BOX)
            for file in files
            if (name := f"train/{wnid}/{file}") not in names
        ]
        val += apart
    named = _named(root)
    test, others = _test(data / "val", annotations / "val", list(folders), named.keys())
    return Dataset(
        name="ilsvrc",
        classes=tuple(named.get(wnid, wnid).split(",")[0] for wnid in folders),
        splits={"train": photos.split(train), "val": _split(val), "test": _split(test)},
        class_ids=tuple(folders),
        val_is_held_out=True,
        remarks=(f"{others} photos of {data / 'val'} are of classes without training photos: left out",)
        if others
        else (),
    )


def _held_out(
    folder: Path, files: Sequence[str], annotations: Path, wnid: str, label: int, count: int
) -> list[Located]:
    """The last photos of a class that have a box, in their order; the label is their folder's, whatever the XML's."""
    found: list[Located] = []
    try:
        known = set(os.listdir(annotations))  # noqa: PTH208  # names, not a million paths
    except OSError:
        known = set()
    for file in reversed(files):
        xml = f"{_stem(file)}.xml"
        if xml not in known:
            continue
        annotated = f"{annotations}{os.sep}{xml}"
        names, boxes, size = annotation(annotated)
        # Some annotations name a dog's breed in words, and some hold objects of other classes.
        of_class = [name == wnid or not WNID.fullmatch(name) for name in names]
        if any(of_class):
            row = (f"train/{wnid}/{file}", label, f"{folder}{os.sep}{file}", boxes[of_class])
            found.insert(0, (row, size, annotated))
        if len(found) == count:
            return found
    raise InputError(
        f"{folder}: {len(found)} annotated training photos, {count} are needed for val (dataset.held_out); without the "
        "training annotations, use the data set wsoleval and its lists"
    )


def _test(folder: Path, annotations: Path, wnids: Sequence[str], named: Collection[str]) -> tuple[list[Located], int]:
    """Photos of the official validation set, and how many others are of classes that only the list of names has."""
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    # Names, not path objects; os.path.isdir, because a link that leads back to itself is no folder and no error.
    inside = sorted(name for name in os.listdir(folder) if os.path.isdir(f"{folder}{os.sep}{name}"))  # noqa: PTH112, PTH208
    in_folders = {name for name in inside if (annotations / name).is_dir()}
    every = [(file, name) for name in (*inside, "") for file in os.listdir(folder / name) if photos.is_photo_name(file)]  # noqa: PTH208
    found: list[Located] = []
    others = 0
    for file, wnid_folder in sorted(every, key=lambda photo: photo[0]):  # the same order, sorted into folders or not
        path = os.path.join(folder, wnid_folder, file)  # noqa: PTH118
        above = wnid_folder if wnid_folder in in_folders else ""
        annotated = os.path.join(annotations, above, f"{_stem(file)}.xml")  # noqa: PTH118
        names, boxes, size = annotation(annotated)
        kinds = {name for name in names if WNID.fullmatch(name)}
        if len(kinds) != 1 or not kinds <= labels.keys() | named:
            what = "one class of the training photos"
            raise InputError(f"{annotated}: expected objects of {what}, found {names or 'none'}")
        wnid = kinds.pop()
        if wnid_folder not in ("", wnid):
            raise InputError(f"{path}: lies in the folder of {wnid_folder}, but {annotated} says {wnid}")
        if wnid in labels:
            found.append(((f"val/{file}", labels[wnid], path, boxes), size, annotated))
        else:
            others += 1
    return found, others


def _stem(file: str) -> str:
    return file.rpartition(".")[0]


def annotation(path: Path | str) -> tuple[list[str], Boxes, tuple[int, int]]:
    """Names of the objects in one XML file, their boxes (K, 4), and the (width, height) at which they were drawn.

    Boxes that end before they begin are left out with their names.

    Raises:
        InputError: no such file, or no XML of this kind.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # half the time of ElementTree.parse
            tree = ElementTree.fromstring(file.read())
        size = int(tree.findtext("size/width", "")), int(tree.findtext("size/height", ""))
        found = [
            (each.findtext("name", ""), [float(each.findtext(corner, "")) for corner in CORNERS])
            for each in tree.iter("object")
        ]
        if not all(1 <= side <= LARGEST for side in size) or not all(
            math.isfinite(corner) for _, corners in found for corner in corners
        ):
            raise ValueError(f"a size of {size[0]:.3g}x{size[1]:.3g}, or a corner that is no finite number")
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: no such encoding
        raise InputError(f"{path}: not an annotation of ILSVRC: {error}") from None
    sound = [(name, corners) for name, corners in found if corners[0] <= corners[2] and corners[1] <= corners[3]]
    return [name for name, _ in sound], np.array([corners for _, corners in sound]).reshape(-1, 4), size


def _split(located: list[Located]) -> Split:
    return photos.split(
        [row for row, _, _ in located],
        sizes=np.array([size for _, size, _ in located]),
        box_sources=[[annotated] * len(row[3]) for row, _, annotated in located],
    )


def _named(root: Path) -> dict[str, str]:
    """Names of classes by WordNet id, from LOC_synset_mapping.txt if it lies there."""
    for path in (root / "LOC_synset_mapping.txt", root.parent / "LOC_synset_mapping.txt"):
        if path.is_file():
            return dict(text.split(maxsplit=1) for _, text in photos.lines(path) if " " in text)
    return {}
