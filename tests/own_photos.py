"""A folder of one's own photos in small, with annotations in the formats of COCO and PASCAL VOC."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from miniatures import photo
from pycocotools import mask as pycocotools

SPLITS = ("train", "val", "test")
CLASSES = ("cat", "dog")


def photos_of(root: Path) -> list[str]:
    """Two photos a class in train, one in val and test; the names of those in val and test."""
    names = [f"{split}/{label}/{k}.jpg" for split in SPLITS for label in CLASSES for k in range(1 + (split == "train"))]
    for number, name in enumerate(names):
        photo(root / name, number)
    return [name for name in names if not name.startswith("train")]


def painted(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    found = np.zeros((48, 60), np.bool_)
    found[y0 : y1 + 1, x0 : x1 + 1] = True
    return found


def rle(found: np.ndarray, compressed: bool) -> dict[str, Any]:
    """Runs of a mask; the compressed ones are pycocotools' own."""
    flat = found.T.ravel()
    if compressed:
        encoded = pycocotools.encode(np.asfortranarray(found.astype(np.uint8)))
        return {"size": [48, 60], "counts": encoded["counts"].decode()}
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return {"size": [48, 60], "counts": [0, *counts] if flat[0] else counts}


def coco_of(root: Path, name: str = "annotations.json") -> dict[str, Any]:
    """Polygons, compressed and uncompressed runs, a crowd, two objects of one photo, and one of another class."""
    names = photos_of(root)
    content: dict[str, Any] = {
        "images": [{"id": k, "file_name": name, "width": 60, "height": 48} for k, name in enumerate(names)],
        "categories": [{"id": 1, "name": "Cat"}, {"id": 2, "name": "dog"}, {"id": 7, "name": "person"}],
        "annotations": [],
    }

    def add(image: int, category: int, box: tuple[int, int, int, int], shape: Any, crowd: int = 0) -> None:
        x0, y0, x1, y1 = box
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
                "segmentation": shape,
                "iscrowd": crowd,
            }
        )

    add(0, 1, (10, 5, 29, 34), [[10, 5, 30, 5, 30, 35, 10, 35]])
    add(1, 2, (10, 5, 29, 34), rle(painted(10, 5, 29, 34), False))
    add(2, 1, (10, 5, 29, 34), rle(painted(10, 5, 29, 34), True))
    add(2, 1, (40, 5, 45, 9), rle(painted(40, 5, 45, 9), False))
    add(2, 1, (50, 0, 59, 47), rle(painted(50, 0, 59, 47), True), crowd=1)
    add(2, 7, (30, 10, 39, 20), rle(painted(30, 10, 39, 20), True))
    add(3, 2, (0, 0, 19, 19), [[0, 0, 10, 0, 10, 20, 0, 20], [10, 0, 20, 0, 20, 20, 10, 20]])
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    return content


def xml_of(name: str, boxes: list[tuple[int, int, int, int]], size: str = "60,48", extra: str = "") -> str:
    width, height = size.split(",")
    objects = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in boxes
    )
    return (
        f"{extra}<annotation><filename>x.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def voc_of(root: Path, folder: str = "") -> Path:
    """An XML file for each photo of val and test; the one of test/cat/0.jpg, which has two objects."""
    for name in photos_of(root):
        path = root / folder / Path(name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(xml_of(name.split("/")[1], [(11, 6, 30, 35), (1, 1, 60, 48)]))
    return root / folder / "test" / "cat" / "0.xml"
