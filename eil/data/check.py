"""Check a data set before training: missing, broken, duplicated and mislabelled images.

Every image is decoded once, in parallel processes. Findings that would break or falsify a study are problems; findings
that might are remarks.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from eil.core.files import InputError
from eil.data import Dataset, Image, Split, class_subset, decode, fingerprint, photos
from eil.data.clipping import Overhang
from eil.data.parallel import BLOCK, blocks, map_in_processes

HASH_SIDE = 8
NONE_BEYOND = Overhang()
# A kind of finding -> the text after the number of findings.
KINDS = {
    "broken": "images cannot be used",
    "name": "images of one split have the name of one of another",
    "content": "images of one split have the content of one of another",
    "look": "images of one split have the look (difference hash) of one of another",
    "classes": "images have the content of one of another class of their split",
    "turned": "photos have an EXIF orientation; their pixels are used as stored, as boxes were drawn (docs/data.md)",
}


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image; if it cannot be used, ``error`` says why and all but name and label are empty."""

    name: str
    label: int
    error: str = ""
    content: str = ""
    mask: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()
    look: int = 0
    area: float = float("nan")
    turned: bool = False
    overhang: Overhang = NONE_BEYOND


def check_dataset(dataset: Dataset) -> dict[str, Any]:
    """Decode every image of a data set and report what was found.

    Returns:
        ``splits``: for each split the number of images, the number of each class, and the median share of an image that
        an object covers; ``problems`` and ``remarks``: a line for every finding; ``kinds``: the same lines by kind of
        finding; ``sha256``: fingerprint of the content, which is also in the records of runs.
    """
    seen = {name: _facts_of(name, split) for name, split in dataset.splits.items()}
    photos_sha256 = fingerprint.of_photos(
        (name, [i.name for i in images], [i.label for i in images], [i.content for i in images])
        for name, images in seen.items()
    )
    annotations_sha256 = fingerprint.of_annotations(
        (name, [i.name for i in images], [i.boxes for i in images], [i.mask for i in images])
        for name, images in seen.items()
    )
    every = [(name, image) for name, images in seen.items() for image in images]
    broken = [f"{name}: {image.error}" for name, image in every if image.error]
    overhang = sum((image.overhang for _, image in every), NONE_BEYOND)
    problems = {"broken": broken, "name": _shared(seen, "name"), "content": _shared(seen, "content")}
    remarks = {
        "reader": list(dataset.remarks),
        "overhang": [overhang.remark] if overhang.remark else [],
        "look": _shared(seen, "look"),
        "classes": _in_two_classes(seen, dataset.classes),
        "turned": [f"EXIF asks to turn {name}: {image.name}" for name, image in every if image.turned],
    }
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "class_ids": list(dataset.class_ids or dataset.classes),
        "whole_classes": dataset.whole_classes,
        "held_out": dataset.val_is_held_out,
        "splits": {name: _counts(dataset, images) for name, images in seen.items()},
        "problems": list(itertools.chain(*problems.values())),
        "remarks": list(itertools.chain(*remarks.values())),
        "kinds": {"problems": problems, "remarks": remarks},
        "sha256": fingerprint.of_data(photos_sha256, annotations_sha256) if not broken else None,
    }


def lines(found: Mapping[str, Any], path: Path) -> list[str]:
    """The report of :func:`check_dataset` as text: one line for each kind of finding.

    Args:
        found: by :func:`check_dataset`.
        path: of the file with all findings.
    """
    classes = class_subset.describe_count(len(found["classes"]), found["whole_classes"])
    text = [f"{found['name']}: {classes}, content {(found['sha256'] or 'broken')[:12]}"]
    named = [
        name if name == number else f"{name} ({number})"
        for name, number in zip(found["classes"], found["class_ids"], strict=True)
    ]
    text.append(f"classes by name (id), {class_subset.abbreviated(named)}")
    images = {name: split["images"] for name, split in found["splits"].items()}
    if found["held_out"]:
        official = f"{images['train'] + images['val']} official training photos, of which {images['val']}"
        text.append(f"{official} are held out as val; {images['test']} test photos")
    for name, split in found["splits"].items():
        least, most = min(split["per_class"]), max(split["per_class"])
        area = (
            ""
            if split["median_object"] is None
            else f", median object {100 * split['median_object']:.1f} % of its image"
        )
        text.append(f"{name}: {split['images']} images, {least} to {most} a class{area}")
    for severity, kinds in found["kinds"].items():
        for kind, findings in kinds.items():
            text += [f"{severity.removesuffix('s')}: {line}" for line in _summed_up(kind, findings, path)]
    return text + ([] if found["problems"] else ["no problems"])


def difference_hash(image: Image) -> int:
    """64 bits: whether each of 8 x 8 cells is darker than its right neighbour. Near copies have equal hashes."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(int)
    return int.from_bytes(np.packbits(small[:, :-1] < small[:, 1:]).tobytes(), "big")


def _summed_up(kind: str, findings: list[str], path: Path) -> list[str]:
    """One line for several findings of a kind, with the first of them; a single finding stays as it is."""
    if len(findings) < 2 or kind not in KINDS:
        return findings
    return [f"{len(findings)} {KINDS[kind]}; the first: {findings[0]}; all: {path}"]


def _facts_of(name: str, split: Split) -> list[ImageFacts]:
    tasks = [(split.take(block), name != "train") for block in blocks(len(split.ids))]
    found: list[ImageFacts] = []
    with contextlib.closing(map_in_processes(_facts_of_block, tasks)) as looked:
        for few in tqdm(looked, f"{name}: {BLOCK} images a step", len(tasks), leave=False, disable=None):
            found += few
    return found


def _facts_of_block(task: tuple[Split, bool]) -> list[ImageFacts]:
    split, scored = task
    found = []
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        source = split.sources[i]
        try:
            image = decode.photo(split, i)
            located = decode.annotation(split, i, image.size, scored)
        except InputError as error:
            found.append(ImageFacts(name, label, error=str(error)))
            continue
        sides = located.boxes[:, 2:] - located.boxes[:, :2] + 1
        pixels = image.image.shape[0] * image.image.shape[1]
        area = float(sides.prod(axis=1).max() / pixels) if len(sides) else float("nan")
        turned = isinstance(source, Path) and split.load is photos.load and photos.is_turned(source)
        look = difference_hash(image.image)
        boxes = tuple(map(tuple, located.boxes.tolist()))
        seen = ImageFacts(name, label, "", image.content, located.content, boxes, look, area, turned, located.overhang)
        found.append(seen)
    return found


def _counts(dataset: Dataset, images: list[ImageFacts]) -> dict[str, Any]:
    per_class = np.bincount([image.label for image in images], minlength=len(dataset.classes))
    areas = [image.area for image in images if np.isfinite(image.area)]
    return {
        "images": len(images),
        "per_class": per_class.tolist(),
        "median_object": float(np.median(areas)) if areas else None,
    }


def _shared(seen: Mapping[str, list[ImageFacts]], key: str) -> list[str]:
    """A line for each image that has this value in common with an image of another split."""
    words = "look (difference hash)" if key == "look" else key
    found = []
    for (where, first), (split, image) in _pairs(seen, key):
        if where != split:
            found.append(f"same {words}: {first.name} of {where} and {image.name} of {split}")
    return found


def _in_two_classes(seen: Mapping[str, list[ImageFacts]], classes: tuple[str, ...]) -> list[str]:
    """A line for each image that is also in another class of its split."""
    return [
        f"same content in two classes of {split}: {first.name} ({classes[first.label]}) and {image.name} "
        f"({classes[image.label]})"
        for split, images in seen.items()
        for (_, first), (_, image) in _pairs({split: images}, "content")
        if first.label != image.label
    ]


def _pairs(
    seen: Mapping[str, list[ImageFacts]], key: str
) -> Iterator[tuple[tuple[str, ImageFacts], tuple[str, ImageFacts]]]:
    """Each image with the first image that has the same value."""
    first: dict[Any, tuple[str, ImageFacts]] = {}
    for split, images in seen.items():
        for image in images:
            value = getattr(image, key)
            if image.error or not value:  # an image of one colour has hash 0, like every other one
                continue
            if value in first:
                yield first[value], (split, image)
            else:
                first[value] = (split, image)
