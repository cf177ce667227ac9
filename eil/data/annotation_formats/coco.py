"""COCO annotations: JSON with images, annotations and categories; boxes, polygons and run-length masks.

The file is untrusted, and pycocotools does not check its input: runs with a wrong sum make it read beyond its memory,
and a polygon far outside of its image makes it fill all memory. So this module checks everything first and decodes runs
itself; pycocotools only draws polygons.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError, read_json
from eil.core.safe_yaml import shown
from eil.data import Image, masks, names
from eil.data.annotation_formats.objects import LARGEST_AREA, Annotated, Object, Polygons, Rle, Shapes, numbers, side

LARGEST_FILE: Final = 2_000_000_000  # bytes; the largest file of COCO itself has 450 MB
MOST_POINTS: Final = 20_000_000  # pixels along a polygon's outline
Key = int | str  # an id
Bools = npt.NDArray[np.bool_]


def read(
    paths: Sequence[Path], ids: Collection[str], scored: Collection[str]
) -> tuple[dict[str, Annotated], tuple[str, ...]]:
    """Annotations of photos, and remarks.

    Args:
        paths: of the files.
        ids: of all photos: their paths below the root.
        scored: the photos whose annotations are needed.

    Raises:
        InputError: a file that is not in the format, with the place in it; a file name that matches several photos.
    """
    by_name = defaultdict(list)
    for name in ids:
        by_name[name.rpartition("/")[2]].append(name)
    found: dict[str, Annotated] = {}
    seen: set[str] = set()
    missing: list[str] = []
    for file_name, where, annotated in (each for path in paths for each in _images(path)):
        photo = _photo(file_name, by_name, where)
        if photo is None:
            missing.append(file_name)
            continue
        if photo in seen:
            raise InputError(f"{where}: {photo} is listed twice")
        seen.add(photo)
        if photo in scored:
            found[photo] = annotated
    if missing and not seen:
        raise InputError(f"{paths[0]}: none of its {len(missing)} images is a photo here: {names.first_few(missing)}")
    listed = ", ".join(path.name for path in paths)
    return found, (f"{listed}: {len(missing)} images that are no photos here: {names.first_few(missing)}",) * bool(
        missing
    )


def load_mask(shapes: Shapes) -> Image:
    """Draw the mask of an image, (H, W): k for its k-th object, IGNORED for a crowd.

    Raises:
        InputError: a shape that cannot be drawn, or no pixel of any object.
    """
    objects, ignored = (
        [draw(shape, shapes.size, shapes.where) for shape in each] for each in (shapes.objects, shapes.ignored)
    )
    return masks.merged(objects, ignored)


def draw(shape: Polygons | Rle, size: tuple[int, int], where: str) -> Bools:
    """A shape in an image of (width, height) -> (height, width).

    Raises:
        InputError: pycocotools is missing, and the shape is a polygon.
    """
    width, height = size
    if isinstance(shape, Rle):
        runs = runs_of(shape.counts, size, where)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    try:
        from pycocotools import mask as tools
    except ImportError:
        raise InputError(f"{where}: polygons need pycocotools: pip install 'eil[coco]'") from None
    drawn = tools.decode(tools.merge(tools.frPyObjects([list(ring) for ring in shape.rings], height, width)))
    return np.asarray(drawn, dtype=np.bool_)


def runs_of(counts: tuple[int, ...] | str, size: tuple[int, int], where: str) -> npt.NDArray[np.int64]:
    """Lengths of runs that fill an image of (width, height).

    Raises:
        InputError: the runs do not fill the image, or the text is not COCO's compressed form.
    """
    runs = list(_uncompressed(counts, where)) if isinstance(counts, str) else list(counts)
    if any(run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise InputError(f"{where}: runs of {sum(runs)} pixels, but the image has {size[0]}x{size[1]}")
    return np.array(runs, dtype=np.int64)


def _uncompressed(text: str, where: str) -> Iterator[int]:
    """Decode compressed runs: 5 bits a character; from the third number on, differences to the one two before."""
    last = [0, 0, 0]
    number = bits = count = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 35:
            break
        number |= (code & 31) << bits
        bits += 5
        if code & 32:  # the number continues
            continue
        number -= (1 << bits) if code & 16 else 0  # its sign
        number += last[count % 2] if count > 2 else 0
        last[count % 2] = number
        yield number
        number, bits, count = 0, 0, count + 1
    else:
        if not bits:
            return
    raise InputError(f"{where}: {shown(text)}: not COCO's compressed runs")


def _images(path: Path) -> Iterator[tuple[str, str, Annotated]]:
    """File name, place and annotations of each image of a file."""
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: has {path.stat().st_size / 1e9:.1f} GB, more than an annotation file may have")
    content = read_json(path)
    categories: dict[Key, str] = {}
    for key, each, where in _entries(content, "categories", path):
        categories[key] = _text(each, "name", where)
    sizes: dict[Key, tuple[int, int]] = {}
    files: list[tuple[Key, str, str]] = []
    for key, each, where in _entries(content, "images", path):
        width, height = each.get("width"), each.get("height")
        if not (side(width) and side(height) and width * height <= LARGEST_AREA):
            raise InputError(
                f"{where}: width, height = {shown(width)}, {shown(height)}: expected a photo's size in pixels"
            )
        sizes[key] = (width, height)
        files.append((key, _text(each, "file_name", where), where))
    objects: dict[Key, list[Object]] = defaultdict(list)
    for _, each, where in _entries(content, "annotations", path):
        image, category = _known(each, "image_id", sizes, where), _known(each, "category_id", categories, where)
        objects[image].append(_object(each, categories[category], sizes[image], where))
    for key, file_name, where in files:
        yield file_name, where, Annotated(sizes[key], tuple(objects[key]))


def _entries(content: Mapping[str, Any], kind: str, path: Path) -> Iterator[tuple[Key, dict[str, Any], str]]:
    """Id, content and place (file and index) of each entry of a list."""
    listed = content.get(kind)
    if not isinstance(listed, list):
        raise InputError(f"{path}: {kind}: expected a list, as COCO's annotations have it")
    seen: set[Key] = set()
    for k, each in enumerate(listed):
        where = f"{path}: {kind}[{k}]"
        if not isinstance(each, dict) or not isinstance(each.get("id"), int | str):
            raise InputError(f"{where}: expected an object with an id, found {shown(each)}")
        if each["id"] in seen:
            raise InputError(f"{where}: id {each['id']} is listed twice")
        seen.add(each["id"])
        yield each["id"], each, where


def _text(each: Mapping[str, Any], key: str, where: str) -> str:
    found = each.get(key)
    if not isinstance(found, str) or not found:
        raise InputError(f"{where}: {key} = {shown(found)}: expected text")
    return found


def _known(each: Mapping[str, Any], key: str, table: Mapping[Key, object], where: str) -> Key:
    found = each.get(key)
    if not isinstance(found, int | str) or found not in table:
        raise InputError(f"{where}: {key} = {shown(found)}: no entry of the file has this id")
    return found


def _object(each: Mapping[str, Any], name: str, size: tuple[int, int], where: str) -> Object:
    """An annotation; its box's last column is x + width - 1."""
    box = each.get("bbox")
    if not numbers(box, [4]) or box is None or not (box[2] > 0 and box[3] > 0):
        raise InputError(f"{where}: bbox = {shown(box)}: expected x, y, width > 0, height > 0")
    x, y, width, height = map(float, box)
    crowd = each.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{where}: iscrowd = {shown(crowd)}: expected 0 or 1")
    corners = (x, y, max(x, x + width - 1), max(y, y + height - 1))
    return Object(name, corners, where, _shape(each.get("segmentation"), size, where), bool(crowd))


def _shape(found: Any, size: tuple[int, int], where: str) -> Polygons | Rle | None:
    if found is None or found == []:
        return None
    if isinstance(found, list) and all(numbers(ring) and len(ring) >= 6 and not len(ring) % 2 for ring in found):
        rings = tuple(tuple(map(float, ring)) for ring in found)
        for ring in rings:
            _require_drawable(np.array(ring).reshape(-1, 2), size, where)
        return Polygons(rings)
    if isinstance(found, dict) and found.get("size") == [size[1], size[0]]:
        counts = found.get("counts")
        if isinstance(counts, str) or (isinstance(counts, list) and all(type(run) is int for run in counts)):
            shape = Rle(counts if isinstance(counts, str) else tuple(counts))
            if not runs_of(shape.counts, size, where)[1::2].sum():
                raise InputError(f"{where}: segmentation: a mask without a pixel")
            return shape
    raise InputError(
        f"{where}: segmentation = {shown(found)}: expected polygons of at least three points, or runs with size "
        f"[{size[1]}, {size[0]}] (height, width) and counts"
    )


def _require_drawable(points: npt.NDArray[np.float64], size: tuple[int, int], where: str) -> None:
    """Refuse a polygon, (P, 2), that has no area, lies far outside the image, or has an extremely long outline."""
    following = np.roll(points, -1, axis=0)
    area = abs(float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum())) / 2
    length = float(np.abs(points - following).max(axis=1).sum())
    reach = max(size)
    if (points < -reach).any() or (points > 2 * reach).any() or length > MOST_POINTS or not area > 0:
        raise InputError(
            f"{where}: segmentation: a polygon without an area, or one beyond the {size[0]}x{size[1]} image"
        )


def _photo(file_name: str, by_name: Mapping[str, Sequence[str]], where: str) -> str | None:
    """The photo whose path ends with the file name, or whose path is an end of the file name; None without one."""
    wanted = "/" + names.nfc(file_name.replace("\\", "/")).removeprefix("./").lstrip("/")
    near = [
        name
        for name in by_name.get(wanted.rpartition("/")[2], ())
        if f"/{name}".endswith(wanted) or wanted.endswith(f"/{name}")
    ]
    exact = [name for name in near if f"/{name}" == wanted]
    if len(near) > 1 and not exact:
        raise InputError(
            f"{where}: file_name = {shown(file_name)}: may be {names.first_few(near)}: give the path below root"
        )
    return next(iter(exact or near), None)
