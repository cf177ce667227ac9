"""A tiny study, and every data set layout in small with the real file names, separators and quirks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from eil.data import Boxes, Image, Split, decode
from eil.data.clipping import Overhang

Made = tuple[Path, dict[str, Any]]  # root, and the reader's settings
CLASSES = 3
SMOKE: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "birds", "classes": 2, "train_per_class": 8, "val_per_class": 3, "test_per_class": 4},
    "backbones": ["vgg_small"],
    "methods": {"cam": {}, "eil": {"gamma": [0.6, 0.8], "sigma": 1.0}},
    "controls": [],
    "seeds": 2,
    "recipe": {
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
        "milestones": [1],
        "resize": 36,
        "crop": 32,
    },
}


@dataclass(frozen=True)
class Examined:
    """A photo with its annotation."""

    image: Image
    boxes: Boxes
    mask: Image | None
    overhang: Overhang


def examined(split: Split, index: int, scored: bool) -> Examined:
    """An image of a split, decoded and checked."""
    photo = decode.photo(split, index)
    found = decode.annotation(split, index, photo.size, scored)
    return Examined(photo.image, found.boxes, found.mask, found.overhang)


def photo(path: Path, number: int, size: tuple[int, int] = (60, 48)) -> None:
    """A photo of noise, (width, height), another one for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(path, format="JPEG")


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (60, 48)) -> None:
    """A mask that is white in a box with inclusive corners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[1] : box[3] + 1, box[0] : box[2] + 1] = 255
    PILImage.fromarray(pixels).save(path)


def cub(root: Path) -> Made:
    """CUB-200-2011: numbers from 1, floats with one decimal, spaces; 4 training and 2 test photos a class."""
    root = root / "CUB_200_2011"
    names = [f"{k + 1:03d}.Black_footed_Bird" for k in range(CLASSES)]
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "bounding_boxes": []}
    number = 0
    for label, name in enumerate(names):
        for k in range(6):
            number += 1
            file = f"{name}/Black_Footed_Bird_{k:04d}_{number}.jpg"
            photo(root / "images" / file, number)
            mask(root / "segmentations" / file.replace(".jpg", ".png"), (10, 5, 39, 44))
            lists["images"].append(f"{number} {file}")
            lists["image_class_labels"].append(f"{number} {label + 1}")
            lists["train_test_split"].append(f"{number} {int(k < 4)}")
            # The second image's box ends at the border, where x + width is one pixel outside.
            lists["bounding_boxes"].append(f"{number} 10.0 5.0 {50.0 if k == 1 else 29.0} 39.0")
    lists["classes"] = [f"{k + 1} {name}" for k, name in enumerate(names)]
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root, {"held_out": 1}


def wsoleval_cub(root: Path) -> Made:
    """The benchmark's lists with boxes: no newline at the end, several boxes an image, train with boxes too."""
    return _wsoleval(root, "CUB", masks=False)


def wsoleval_ilsvrc(root: Path) -> Made:
    """The same for ILSVRC: its training lists have no boxes and no sizes, and its val is ImageNetV2."""
    return _wsoleval(root, "ILSVRC", masks=False)


def wsoleval_openimages(root: Path) -> Made:
    """The same with masks; only an image's first line names a region to ignore; there are no sizes."""
    return _wsoleval(root, "OpenImages", masks=True)


def _wsoleval(root: Path, benchmark: str, masks: bool) -> Made:
    number = 0
    for split, each in (("train", 3), ("val", 1), ("test", 2)):
        lists: dict[str, list[str]] = {"image_ids": [], "class_labels": [], "image_sizes": [], "localization": []}
        for label in range(CLASSES):
            for k in range(each):
                number += 1
                file = (
                    f"val2/{label}/{k}.jpeg" if (benchmark, split) == ("ILSVRC", "val") else f"{split}/c{label}/{k}.jpg"
                )
                photo(root / benchmark / file, number)
                lists["image_ids"].append(file)
                lists["class_labels"].append(f"{file},{label}")
                if masks:
                    stem = file.removesuffix(".jpg")
                    mask(root / benchmark / f"{stem}_m1.png", (3, 3, 20, 30))
                    mask(root / benchmark / f"{stem}_m2.png", (60, 40, 99, 71), (120, 96))  # another resolution
                    mask(root / benchmark / f"{stem}_ignore.png", (50, 0, 59, 10))
                    lists["localization"] += [f"{file},{stem}_m1.png,{stem}_ignore.png", f"{file},{stem}_m2.png,"]
                else:
                    lists["image_sizes"].append(f"{file},60,48")
                    lists["localization"] += [f"{file},3,3,20,30", f"{file},30,20,49,35"]
        if split == "train" and benchmark != "CUB":
            lists["localization"], lists["image_sizes"] = [], []
        for name, lines in lists.items():
            path = root / "metadata" / benchmark / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines))
    return root, {"benchmark": benchmark}


def ilsvrc(root: Path) -> Made:
    """ILSVRC CLS-LOC: photos by WordNet id, XML boxes, test photos in one folder; 4 training photos a class."""
    root = root / "ILSVRC"
    number = 0
    for label, wnid in enumerate(("n01440764", "n01443537", "n01484850")):
        for k in range(6):
            number += 1
            split = "train" if k < 4 else "val"
            name = f"train/{wnid}/{wnid}_{k}" if k < 4 else f"val/ILSVRC2012_val_{10 - number % 8:08d}_{label}"
            photo(root / "Data" / "CLS-LOC" / f"{name}.JPEG", number)
            if k != 0:  # not every training photo has boxes
                _xml(root / "Annotations" / "CLS-LOC" / f"{name}.xml", wnid)
            assert name.startswith(split)
    (root.parent / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn01484850 great white shark\n"
    )
    return root, {"held_out": 1}


def _xml(path: Path, wnid: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{x}</xmin><ymin>4</ymin><xmax>{x + 30}</xmax><ymax>48</ymax>"
        "</bndbox></object>"
        for x in (2, 20)
    )
    size = "<size><width>60</width><height>48</height><depth>3</depth></size>"
    path.write_text(f"<annotation><folder>val</folder>{size}<segmented>0</segmented>{boxes}</annotation>")


def folder(root: Path) -> Made:
    """Anyone's photos: names with a comma and a space, a header, several boxes, no folder of val."""
    lines = ["path,x0,y0,x1,y1"]
    number = 0
    for split, each in (("train", 3), ("test", 2)):
        for label in ("a cat", "dog", "émeu"):
            for k in range(each):
                number += 1
                file = f"{split}/{label}/photo, {k}.{'JPG' if k else 'png'}"
                photo(root / file, number)
                lines += [f"{file},3,3,20,30", f"{file},30.5,20,49,35"]
    (root / "boxes.csv").write_text("\n".join(lines), encoding="utf-8")
    return root, {"held_out": 1}


LAYOUTS: dict[str, tuple[str, Callable[[Path], Made]]] = {
    "cub": ("cub", cub),
    "wsoleval CUB": ("wsoleval", wsoleval_cub),
    "wsoleval ILSVRC": ("wsoleval", wsoleval_ilsvrc),
    "wsoleval OpenImages": ("wsoleval", wsoleval_openimages),
    "ilsvrc": ("ilsvrc", ilsvrc),
    "folder": ("folder", folder),
}
