"""folder: anyone's own photos, in a folder for each class or by a CSV list, with boxes and masks in usual formats.

``root/{train,val,test}/CLASS/*.jpg``; without a folder ``val``, the last few training photos of each class are val.
Photos that lie otherwise are named by a CSV (``labels``). What is true of val and test stands in ``root/boxes.csv``, in
COCO's JSON, or in PASCAL VOC's XML, and in ``root/masks``. A box is made from the mask where there is none.

Without boxes and masks a network can be trained and its maps computed; evaluation then says that it needs boxes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from eil.core.files import InputError
from eil.data import NO_BOX, Dataset, Split, masks, names, photos
from eil.data.annotation_formats import coco, csv_lists, objects, voc
from eil.data.annotation_formats.objects import Truth
from eil.data.photos import Row

SPLITS = ("train", "val", "test")
MASKS = "masks"


def read(
    root: Path | None = None,
    *,
    held_out: Annotated[int, Field(ge=1)] = 5,
    labels: str | None = None,
    coco: str | tuple[str, ...] | None = None,
    voc: str | None = None,
) -> Dataset:
    """List the photos under ``root``.

    Args:
        root: the folder that holds train and test.
        held_out: training photos of each class that become val where there is none.
        labels: a CSV below root with columns path, class and split, instead of folders.
        coco: COCO's JSON below root, or several (default: annotations.json if it is there).
        voc: a folder below root with PASCAL VOC's XML (default: beside the photos if it is there).

    Raises:
        InputError: a missing folder, classes that differ between splits, an annotation that is malformed, annotations
            in two formats, or a photo of val or test that has none although others do.
    """
    if root is None or not (root.is_dir() if labels else (root / "train").is_dir() and (root / "test").is_dir()):
        raise InputError(
            f"folder: no train and test in {root or 'any folder (no root was given)'}; name the folder that holds both "
            "by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    classes, rows, remarks = csv_lists.labels(root, labels) if labels else _in_folders(root)
    if "val" not in rows:
        rows["train"], rows["val"] = photos.split_off_val(rows["train"], held_out)
    every = [name for rows_of_split in rows.values() for name, _, _, _ in rows_of_split]
    scored = {name: classes[label] for split in ("val", "test") for name, label, _, _ in rows[split]}
    truth = _with_masks(root, _truth(root, every, scored, coco, voc), every, scored)
    splits = {name: _split(name, rows[name], truth) for name in SPLITS}
    return Dataset(name="folder", classes=tuple(classes), splits=splits, remarks=(*remarks, *truth.remarks))


def _in_folders(root: Path) -> tuple[list[str], dict[str, list[Row]], tuple[str, ...]]:
    """Classes, photos of each split and remarks, by folders."""
    found = {name: photos.in_class_folders(root / name) for name in SPLITS if (root / name).is_dir()}
    classes = list(found["train"])
    for name, folders in found.items():
        if other := sorted(set(folders) ^ set(classes)):
            raise InputError(f"{root}: class {other[0]} is in one of train and {name} alone")
    rows: dict[str, list[Row]] = {split: [] for split in found}
    used: set[str] = set()
    for split, folders in found.items():
        for label, of_class in enumerate(classes):
            for path in folders[of_class]:
                name = f"{split}/{path.parent.name}/{path.name}"
                used.add(name)
                rows[split].append((names.nfc(name), label, path, NO_BOX))
    unused = [
        f"left out: {count} photos in {folder.name}, which is none of train, val and test"
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name not in (*found, MASKS) and not folder.name.startswith(".")
        if (count := sum(photos.is_photo(Path(name)) for name in names.files(root, folder.name)))
    ]
    return classes, rows, (*names.left_out(root, list(found), used), *unused)


def _truth(
    root: Path,
    every: Sequence[str],
    scored: Mapping[str, str],
    coco_files: str | tuple[str, ...] | None,
    xml: str | None,
) -> Truth:
    """Boxes, and shapes if COCO has them, from the one source that there is."""
    listed = (coco_files,) if isinstance(coco_files, str) else coco_files or ()
    if not listed and (root / "annotations.json").is_file():
        listed = ("annotations.json",)
    found = voc.files(root, list(scored), xml)
    if xml is not None and not found:
        raise InputError(f"dataset.voc = {xml}: {root / xml} has no XML file of a photo of val or test")
    sources = [
        *(["boxes.csv"] if (root / "boxes.csv").exists() else []),
        *listed[:1],
        *(["XML files"] if found else []),
    ]
    if len(sources) > 1:
        raise InputError(f"{root}: boxes stand both in {sources[0]} and in {sources[1]}: keep one of them")
    if listed:
        paths = [photos.path_below(root, name, "dataset.coco") for name in listed]
        annotated, remarks = coco.read(paths, every, scored)
        truth = objects.truth(annotated, scored, ", ".join(map(str, paths)), coco.load_mask)
    elif found:
        annotated, remarks = voc.read(found)
        truth = objects.truth(annotated, scored, f"{root}: XML files", coco.load_mask)
    else:
        return csv_lists.boxes(root, frozenset(every)) if sources else Truth()
    return replace(truth, remarks=(*remarks, *truth.remarks))


def _with_masks(root: Path, truth: Truth, every: Sequence[str], scored: Mapping[str, str]) -> Truth:
    """With the masks of the folder of masks, and every photo of val and test accounted for."""
    remarks = truth.remarks
    if (root / MASKS).is_dir() and truth.masks:
        if truth.sizes:  # COCO's polygons; a column of boxes.csv may name files in this folder
            remark = f"left out: the folder {MASKS}, since {truth.source} has the masks"
            truth = replace(truth, remarks=(*remarks, remark))
    elif (root / MASKS).is_dir():
        wanted = {name: f"{MASKS}/{Path(name).with_suffix('.png').as_posix()}" for name in every}
        paths = {name: photos.path_below(root, wanted[name], name) for name in scored}
        found = {name: [path, None] for name, path in paths.items() if path.is_file()}
        _require_one_each(found)
        known = set(wanted.values())
        others = [name for name in names.files(root, MASKS) if names.nfc(name) not in known]
        remarks += (f"left out: {len(others)} files in masks of no photo: {names.first_few(others)}",) * bool(others)
        truth = replace(truth, masks=found, load_mask=masks.load_mask, remarks=remarks)
        truth = replace(truth, source=truth.source or str(root / MASKS))
    if truth.source and (not truth.masks or truth.sizes):
        _require_each(scored, truth.boxes, truth.source, "annotation" if truth.sizes else "line")
    if truth.masks:
        _require_each(scored, truth.masks, truth.source, "mask")
    return truth


def _require_each(scored: Collection[str], annotated: Collection[str], source: str, kind: str) -> None:
    if bare := [name for name in scored if name not in annotated]:
        more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
        raise InputError(f"{source}: has no {kind} for {bare[0]}{more}, of val or test")


def _require_one_each(found: Mapping[str, Sequence[Path | None]]) -> None:
    seen: dict[Path | None, str] = {}
    for name, (path, _) in found.items():
        if (other := seen.setdefault(path, name)) != name:
            raise InputError(
                f"{path}: is the mask of both {other} and {name}, whose names differ in their suffix alone"
            )


def _split(name: str, rows: Sequence[Row], truth: Truth) -> Split:
    """Photos with what is true of them; training photos have neither boxes nor masks."""
    if name == "train":
        return photos.split([(key, label, path, NO_BOX) for key, label, path, _ in rows])
    located = [(key, label, path, truth.boxes.get(key, NO_BOX)) for key, label, path, _ in rows]
    sizes = np.array([truth.sizes[key] for key, _, _, _ in rows], dtype=np.int64) if truth.sizes else None
    where = [truth.box_sources.get(key, ()) for key, _, _, _ in rows] if truth.box_sources else None
    if not truth.masks or truth.load_mask is None:
        return photos.split(located, sizes=sizes, box_sources=where)
    return photos.split(located, [truth.masks[key] for key, _, _, _ in rows], sizes, truth.load_mask, where)
