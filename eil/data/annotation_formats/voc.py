"""PASCAL VOC annotations: an XML file for each photo, with its size and objects; corners count from 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from eil.core.files import InputError
from eil.data import names, photos
from eil.data.annotation_formats.objects import LARGEST_AREA, LARGEST_NUMBER, Annotated, Object, side

LARGEST_FILE: Final = 20_000_000  # bytes
CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")


def files(root: Path, ids: Sequence[str], folder: str | None) -> dict[str, Path]:
    """The XML file of each photo that has one: beside it, or in a folder below root, by its path or its name alone.

    Raises:
        InputError: two photos share one file.
    """
    found: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for name in ids:
        inner = f"{name.rpartition('.')[0]}.xml"
        for place in [inner] if folder is None else [f"{folder}/{inner}", f"{folder}/{inner.rpartition('/')[2]}"]:
            path = photos.path_below(root, place, name)
            if path.is_file():
                found[name] = path
                if (other := taken.setdefault(path, name)) != name:
                    raise InputError(
                        f"{path}: does it belong to {other} or to {name}? Put it below {folder} by the photo's path"
                    )
                break
    return found


def read(found: Mapping[str, Path]) -> tuple[dict[str, Annotated], tuple[str, ...]]:
    """Annotations by the photos' ids, and remarks.

    Raises:
        InputError: a file that is not in the format.
    """
    every = {name: annotation(path) for name, path in found.items()}
    low = [each.where for annotated in every.values() for each in annotated.objects if min(each.box[:2]) < 0]
    remark = (
        f"{len(low)} objects begin at pixel 0, but VOC counts from 1: {names.first_few(low)}: if these files count "
        "from 0, every box is one pixel off"
    )
    return every, (remark,) * bool(low)


def annotation(path: Path) -> Annotated:
    """Annotations of one file; ``difficult`` objects are kept.

    Raises:
        InputError: no such file, not VOC's XML, or XML that declares entities.
    """
    root = _root(path)
    size = tuple(_whole(root.findtext(f"size/{key}", "")) for key in ("width", "height"))
    if not (side(size[0]) and side(size[1]) and size[0] * size[1] <= LARGEST_AREA):
        raise InputError(f"{path}: size/width, size/height = {size[0]}, {size[1]}: expected a photo's size in pixels")
    return Annotated(
        (size[0], size[1]),
        tuple(_object(each, f"{path}: object {k}") for k, each in enumerate(root.findall("object"), 1)),
    )


def _root(path: Path) -> ElementTree.Element:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE / 1e6:.0f} MB")
        checked = expat.ParserCreate()
        checked.EntityDeclHandler = _refuse  # nested entities can expand to any size
        checked.Parse(data, True)
        root = ElementTree.fromstring(data)
    # LookupError: no such encoding.
    except (OSError, expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not an annotation in PASCAL VOC's format: {error}") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not an annotation in PASCAL VOC's format: its root is <{root.tag[:50]}>")
    return root


def _refuse(*_: object) -> None:
    raise ValueError("it declares an entity")


def _object(each: ElementTree.Element, where: str) -> Object:
    texts = [each.findtext(f"bndbox/{key}", "").strip() for key in CORNERS]
    try:
        x0, y0, x1, y1 = (float(text) - 1 for text in texts)
    except ValueError:
        raise InputError(f"{where}: bndbox {' '.join(texts)}: expected numbers xmin, ymin, xmax, ymax") from None
    if not (np.abs([x0, y0, x1, y1]) <= LARGEST_NUMBER).all() or x0 > x1 or y0 > y1:
        raise InputError(f"{where}: bndbox {' '.join(texts)}: expected xmin <= xmax and ymin <= ymax")
    name = each.findtext("name", "").strip()
    if not name:
        raise InputError(f"{where}: has no name")
    return Object(name, (x0, y0, x1, y1), where)


def _whole(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
