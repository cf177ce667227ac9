"""ilsvrc: ImageNet's localization task (ILSVRC CLS-LOC) in its native layout, as Kaggle hands it out.

``Data/CLS-LOC/{train/WNID,val}/*.JPEG`` and ``Annotations/CLS-LOC/{train/WNID,val}/*.xml``. The official validation set
is ``test``, as in every WSOL paper. ``val``, on which thresholds are chosen, is held out of those training images that
have annotations, the last few of each class; the boxes of the rest are never read.
"""

from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import numpy as np
from pydantic import Field

from eil.data import NO_BOX, Boxes, Dataset, photos
from eil.data.photos import Row
from eil.files import InputError


def read(root: Path | None = None, *, held_out: Annotated[int, Field(ge=1)] = 10) -> Dataset:
    """List the photos under ``root``.

    Args:
        root: the folder that holds Data and Annotations, or the one above (ILSVRC).
        held_out: annotated training images of each class that become val.

    Raises:
        InputError: a missing folder, a photo without annotation, or an annotation that is not in the layout.
    """
    root = root / "ILSVRC" if root is not None and (root / "ILSVRC").is_dir() else root
    if root is None or not (root / "Data" / "CLS-LOC" / "val").is_dir():
        raise InputError(
            f"ilsvrc: no Data/CLS-LOC/val in {root or 'any folder (no root was given)'}; name the folder ILSVRC by "
            "dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    data, annotations = root / "Data" / "CLS-LOC", root / "Annotations" / "CLS-LOC"
    folders = photos.in_class_folders(data / "train")
    labels = {wnid: label for label, wnid in enumerate(folders)}
    train: list[Row] = []
    val: list[Row] = []
    for wnid, paths in folders.items():
        known = {path.stem for path in (annotations / "train" / wnid).glob("*.xml")}
        apart = [path for path in paths if path.stem in known][-held_out:]
        if len(apart) < held_out:
            raise InputError(
                f"{annotations / 'train' / wnid}: {len(apart)} annotated training photos, {held_out} are needed for "
                "val (dataset.held_out); without the training annotations, use the data set wsoleval and its lists"
            )
        rest = sorted(set(paths) - set(apart))
        train += [(f"train/{wnid}/{path.name}", labels[wnid], path, NO_BOX) for path in rest]
        val += [_annotated(f"train/{wnid}/{path.name}", path, annotations / "train" / wnid, labels) for path in apart]
    test = [
        _annotated(f"val/{path.name}", path, annotations / "val", labels)
        for path in sorted((data / "val").iterdir())
        if photos.is_photo(path)
    ]
    splits = {"train": photos.split(train), "val": photos.split(val), "test": photos.split(test)}
    return Dataset(name="ilsvrc", classes=_names(root, list(folders)), splits=splits)


def _annotated(name: str, path: Path, folder: Path, labels: dict[str, int]) -> Row:
    wnid, boxes = annotation(folder / f"{path.stem}.xml")
    if wnid not in labels:
        raise InputError(f"{folder / path.stem}.xml: {wnid} is no folder of the training photos")
    return name, labels[wnid], path, boxes


def annotation(path: Path) -> tuple[str, Boxes]:
    """WordNet id and boxes (K, 4) of one XML file; boxes end within the photo's size.

    Raises:
        InputError: no such file, no XML, no object, objects of two kinds, or a box that ends before it begins.
    """
    try:
        tree = ElementTree.parse(path).getroot()
        size = [int(tree.findtext(f"size/{side}", "")) for side in ("width", "height")]
        kinds = {each.findtext("name", "") for each in tree.iter("object")}
        corners = [
            [float(each.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            for each in tree.iter("object")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: not an annotation of ILSVRC: {error}") from None
    if len(kinds) != 1:
        raise InputError(f"{path}: expected objects of one kind, found {', '.join(sorted(kinds)) or 'none'}")
    boxes = np.array(corners)
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise InputError(f"{path}: a box that ends before it begins")
    return kinds.pop(), np.minimum(boxes, np.array(size * 2) - 1)  # the annotators' frame starts at 0 or at 1


def _names(root: Path, wnids: list[str]) -> tuple[str, ...]:
    """Names of the classes, from LOC_synset_mapping.txt if it lies there."""
    for path in (root / "LOC_synset_mapping.txt", root.parent / "LOC_synset_mapping.txt"):
        if path.is_file():
            named = dict(text.split(maxsplit=1) for _, text in photos.lines(path) if " " in text)
            return tuple(named.get(wnid, wnid).split(",")[0] for wnid in wnids)
    return tuple(wnids)
