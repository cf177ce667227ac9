"""Check a data set before hours are spent on it: what is missing, broken, doubled or mislabelled.

Every image is decoded once, in parallel processes. Findings that would break or falsify a study are problems; what
only may is a remark.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from eil.data import Dataset, Image, Split, examine, fingerprint, photos
from eil.data.parallel import BLOCK, blocks, over_processes
from eil.files import InputError

SHOWN = 5  # findings of a kind that are named
HASH_SIDE = 8


@dataclass(frozen=True)
class Seen:
    """What there is to know of one image; all but the name is empty if it cannot be used, and ``error`` says why."""

    name: str
    label: int
    error: str = ""
    content: str = ""
    mask: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()
    look: int = 0
    area: float = float("nan")
    turned: bool = False


def audit(dataset: Dataset) -> dict[str, Any]:
    """Decode every image of a data set and tell what is there.

    Returns:
        ``splits``: of each the number of images, that of each class, the median share of an image that an
        object covers; ``problems`` and ``remarks``: lines; ``sha256``: of the content, which the records of runs
        on it name too.
    """
    seen = {name: _look_at(name, split) for name, split in dataset.splits.items()}
    photos_sha256 = fingerprint.of_photos(
        (name, [i.name for i in own], [i.label for i in own], [i.content for i in own]) for name, own in seen.items()
    )
    annotations_sha256 = fingerprint.of_annotations(
        (name, [i.name for i in own], [i.boxes for i in own], [i.mask for i in own]) for name, own in seen.items()
    )
    every = [(name, image) for name, images in seen.items() for image in images]
    broken = [f"{name}: {image.error}" for name, image in every if image.error]
    turned = [f"EXIF asks to turn {name}: {image.name}" for name, image in every if image.turned]
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "splits": {name: _counts(dataset, images) for name, images in seen.items()},
        "problems": broken + _shared(seen, "name", "name") + _shared(seen, "content", "content"),
        "remarks": list(dataset.remarks) + _shared(seen, "look", "look (difference hash)") + turned,
        "sha256": fingerprint.of_data(photos_sha256, annotations_sha256) if not broken else None,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """What :func:`audit` found, in words."""
    text = [f"{found['name']}: {len(found['classes'])} classes, content {(found['sha256'] or 'broken')[:12]}"]
    for name, split in found["splits"].items():
        least, most = min(split["per_class"]), max(split["per_class"])
        area = (
            ""
            if split["median_object"] is None
            else f", median object {100 * split['median_object']:.1f} % of its image"
        )
        text.append(f"{name}: {split['images']} images, {least} to {most} a class{area}")
    for kind in ("problems", "remarks"):
        own = found[kind]
        text += [f"{kind.removesuffix('s')}: {line}" for line in own[:SHOWN]]
        text += [f"… and {len(own) - SHOWN} more {kind}"] if len(own) > SHOWN else []
    return text + ([] if found["problems"] else ["no problems"])


def difference_hash(image: Image) -> int:
    """64 bits, whether each of 8 x 8 cells is darker than its right neighbour: near copies have the same."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(int)
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def _look_at(name: str, split: Split) -> list[Seen]:
    tasks = [(split.take(block), name != "train") for block in blocks(len(split.ids))]
    found: list[Seen] = []
    with contextlib.closing(over_processes(_look_at_block, tasks)) as looked:
        for part in tqdm(looked, f"{name}: {BLOCK} images a step", len(tasks), leave=False, disable=None):
            found += part
    return found


def _look_at_block(task: tuple[Split, bool]) -> list[Seen]:
    split, scored = task
    found = []
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        source = split.sources[i]
        try:
            image = examine.photo(split, i)
            located = examine.annotation(split, i, image.size, scored)
        except InputError as error:
            found.append(Seen(name, label, error=str(error)))
            continue
        sides = located.boxes[:, 2:] - located.boxes[:, :2] + 1
        pixels = image.image.shape[0] * image.image.shape[1]
        area = float(sides.prod(axis=1).max() / pixels) if len(sides) else float("nan")
        turned = isinstance(source, Path) and split.load is photos.load and photos.is_turned(source)
        look = difference_hash(image.image)
        boxes = tuple(map(tuple, located.boxes.tolist()))
        found.append(Seen(name, label, "", image.content, located.content, boxes, look, area, turned))
    return found


def _counts(dataset: Dataset, images: list[Seen]) -> dict[str, Any]:
    per_class = np.bincount([image.label for image in images], minlength=len(dataset.classes))
    areas = [image.area for image in images if np.isfinite(image.area)]
    return {
        "images": len(images),
        "per_class": per_class.tolist(),
        "median_object": float(np.median(areas)) if areas else None,
    }


def _shared(seen: Mapping[str, list[Seen]], key: str, words: str) -> list[str]:
    """A line for each image that has this in common with one of another split."""
    first: dict[Any, tuple[str, str]] = {}
    found = []
    for split, images in seen.items():
        for image in images:
            value = getattr(image, key)
            if image.error or not value:  # a picture of one colour looks like every other
                continue
            where, name = first.setdefault(value, (split, image.name))
            if where != split:
                found.append(f"same {words}: {name} of {where} and {image.name} of {split}")
    return found
