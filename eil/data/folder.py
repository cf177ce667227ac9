"""folder: anyone's own photos, in a folder for each class, with boxes in a CSV file.

``root/{train,val,test}/CLASS/*.jpg``, and ``root/boxes.csv`` with lines ``path,x0,y0,x1,y1``: the path below root, then
inclusive corners in the photo's own pixels; several lines for several objects. Without a folder ``val``, the last few
training photos of each class are val; they need boxes then.

Without boxes.csv a network can be trained and its maps computed; evaluation then says that it needs boxes.
"""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from eil.data import NO_BOX, Boxes, Dataset, photos
from eil.data.photos import Row
from eil.files import InputError


def read(root: Path | None = None, *, held_out: Annotated[int, Field(ge=1)] = 5) -> Dataset:
    """List the photos under ``root``.

    Args:
        root: the folder that holds train and test.
        held_out: training photos of each class that become val where there is no folder of it.

    Raises:
        InputError: a missing folder, classes that differ between splits, a malformed line of boxes.csv, or a photo of
            val or test that has no line there.
    """
    if root is None or not (root / "train").is_dir() or not (root / "test").is_dir():
        raise InputError(
            f"folder: no train and test in {root or 'any folder (no root was given)'}; name the folder that holds both "
            "by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    found = {name: photos.in_class_folders(root / name) for name in ("train", "val", "test") if (root / name).is_dir()}
    classes = list(found["train"])
    for name, folders in found.items():
        if other := sorted(set(folders) ^ set(classes)):
            raise InputError(f"{root}: class {other[0]} is in one of train and {name} alone")
    boxes = _boxes(root)
    rows = {name: _rows(root, list(folders.values()), boxes) for name, folders in found.items()}
    if "val" in rows:
        rows["train"], _ = photos.held_out(rows["train"], 0)
    else:
        rows["train"], rows["val"] = photos.held_out(rows["train"], held_out)
    for name in ("val", "test"):
        bare = next((row[0] for row in rows[name] if not len(row[3])), None)
        if boxes and bare is not None:
            raise InputError(f"{root / 'boxes.csv'}: has no line for {bare}, which is in {name}")
    splits = {name: photos.split(rows[name]) for name in ("train", "val", "test")}
    return Dataset(name="folder", classes=tuple(classes), splits=splits)


def _rows(root: Path, classes: list[list[Path]], boxes: dict[str, Boxes]) -> list[Row]:
    return [
        (name, label, path, boxes.get(name, NO_BOX))
        for label, paths in enumerate(classes)
        for path in paths
        if (name := path.relative_to(root).as_posix())
    ]


def _boxes(root: Path) -> dict[str, Boxes]:
    path = root / "boxes.csv"
    found: dict[str, list[Boxes]] = {}
    if not path.exists():
        return {}
    for number, line in photos.lines(path):
        fields = next(csv.reader([line]))
        name, corners = ",".join(fields[:-4]).strip(), [field.strip() for field in fields[-4:]]  # names may hold commas
        where = f"{path}:{number}"
        if number == 1 and corners == ["x0", "y0", "x1", "y1"]:
            continue  # a header
        if not photos.inside(root, name, where).is_file():
            raise InputError(f"{where}: no photo {name}")
        found.setdefault(name, []).append(photos.box(corners, where))
    return {name: np.concatenate(own) for name, own in found.items()}
