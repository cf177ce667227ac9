"""Score predicted boxes instead of maps: a file in COCO's results format, as ``eil boxes`` writes it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eil.core.files import InputError
from eil.data import NO_BOX, Boxes, geometry
from eil.data.clipping import Overhang, clip
from eil.data.readers import wsoleval
from eil.data.readers.wsoleval import Metadata
from eil.evaluation import boxes, protocols, score
from eil.evaluation.metrics import IOUS
from eil.evaluation.protocols import Protocol

_SNAP = 0.05  # pixels of the frame: files hold rounded numbers, and an IoU of exactly one half must stay one
_EXPECTED = "expected [x, y, width, height] of plain numbers, width and height above 0"


class Predicted(NamedTuple):
    """A box of a file.

    Attributes:
        edges: x0, y0, x1, y1; the last pixel ends at x1, y1.
        score: that the file gives it, 0 if it gives none.
        size: width and height of the frame that it is in, if the file says so.
        where: file and position, for messages.
    """

    edges: tuple[float, float, float, float]
    score: float
    size: tuple[int, int] | None
    where: str


def read(path: Path, known: Sequence[str]) -> dict[str, list[Predicted]]:
    """Boxes of each image that the file names.

    Args:
        path: JSON, a list of ``{"image_id": …, "bbox": [x, y, width, height], "score": …}``, an object a box. Of other
            keys ``image_width`` and ``image_height`` are read, and ``category_id`` is not.
        known: ids of the images.

    Raises:
        InputError: not such a file; the message has the object's position in the list and its key.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `eil boxes` makes one of a run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of boxes, as COCO's results are, found {type(rows).__name__}")
    found: dict[str, list[Predicted]] = {}
    ids = set(known)
    for k, row in enumerate(rows):
        where = f"{path}: [{k}]"
        if not isinstance(row, dict) or not {"image_id", "bbox"} <= row.keys():
            raise InputError(f"{where}: expected an object with image_id and bbox, found {str(row)[:80]}")
        name = str(row["image_id"])
        if name not in ids:
            raise InputError(f"{where}.image_id = {name}: the lists have no such image; their first is {known[0]}")
        found.setdefault(name, []).append(_predicted(row, where))
    return found


def _predicted(row: Mapping[str, Any], where: str) -> Predicted:
    bbox, likelihood = row["bbox"], row.get("score", 0)
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox)) and min(bbox[2:]) > 0):
        raise InputError(f"{where}.bbox = {bbox}: {_EXPECTED}")
    if not _is_number(likelihood):
        raise InputError(f"{where}.score = {likelihood}: expected a number")
    sides = [row.get(key) for key in ("image_width", "image_height")]
    if sides != [None, None] and not all(isinstance(side, int) for side in sides):
        raise InputError(f"{where}: expected image_width and image_height as whole numbers, or neither; found {sides}")
    x, y, width, height = map(float, bbox)
    size = None if sides[0] is None else (int(sides[0]), int(sides[1] or 0))
    return Predicted((x, y, x + width, y + height), float(likelihood), size, where)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def score_boxes(path: Path, lists: Path, protocol: str, side: int = 224, allow_missing: bool = False) -> dict[str, Any]:
    """The output of ``eil score --boxes``.

    A box is mapped to the frame in which maps are scored, and compared with the true boxes there, so that the boxes of
    ``eil boxes`` score what their maps do at the threshold that made them. Where a protocol takes the best of all
    contours, the best of an image's boxes counts; otherwise the one with the highest score, the first in a tie.

    Args:
        path: see :func:`read`.
        lists: folder of the lists, with boxes and sizes.
        protocol: its name; it gives the geometry, the convention of the IoU, and whether one box or the best counts.
        side: S of the square frame.
        allow_missing: count an image without a box as missed.

    Returns:
        ``gt_known_loc`` (at IoU 0.5), ``box_acc_30`` and ``box_acc_70`` (at IoU 0.3 and 0.7), and ``box_acc``, the mean
        of the three, in percent; ``missing`` lists ids, ``clipped_boxes`` is a line about clipped boxes, "" if there
        are none.

    Raises:
        InputError: a file that cannot be used, or an image without a box.
    """
    metadata, rules = wsoleval.lists(lists), protocols.find(protocol)
    if metadata.boxes is None or metadata.sizes is None:
        raise InputError(f"{lists}: boxes cannot be scored against masks, or without image_sizes.txt")
    found = read(path, metadata.ids)
    missing = [name for name in metadata.ids if name not in found]
    if missing and not allow_missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(metadata.ids)} images have no box, first {missing[0]} (--allow-missing "
            "counts them as missed; of a map without contrast `eil boxes` writes none)"
        )
    ious, overhang = _ious(found, metadata, rules, side, str(lists / "localization.txt"))
    shares = [100 * float(rules.hits(ious, least).mean()) for least in IOUS]
    return {
        "protocol": protocols.current_name(protocol),
        "images": len(metadata.ids),
        "missing": missing,
        "clipped_boxes": overhang.remark,
        "gt_known_loc": shares[1],
        "box_acc_30": shares[0],
        "box_acc_70": shares[2],
        "box_acc": float(np.mean(shares)),
    }


def _ious(
    found: Mapping[str, list[Predicted]], metadata: Metadata, protocol: Protocol, side: int, where: str
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Overhang]:
    """IoU of each image's box that counts, (N,), 0 without one; and what was clipped of true and predicted boxes."""
    sizes = [(width, height) for width, height in (metadata.sizes.tolist() if metadata.sizes is not None else [])]
    every, overhang = score.clipped_boxes(metadata.boxes or (), sizes, metadata.ids, where)
    ious = np.zeros(len(metadata.ids), np.float32)
    for k, (name, size, true) in enumerate(zip(metadata.ids, sizes, every, strict=True)):
        candidates = found.get(name, [])
        if protocol.contours != "all":
            candidates = sorted(candidates, key=lambda each: -each.score)[:1]  # stable
        predicted, beyond = in_frame(candidates, size, side, protocol)
        overhang += beyond
        aim = score.boxes_in_frame(true, size, side, protocol)
        ious[k] = boxes.best_ious(predicted, aim, protocol.box_convention).max(initial=0)
    return ious, overhang


def in_frame(
    found: Sequence[Predicted], size: tuple[int, int], side: int, protocol: Protocol
) -> tuple[Boxes, Overhang]:
    """Predicted boxes of an image in the frame, as :func:`eil.evaluation.boxes.predicted_boxes` gives them.

    Args:
        found: in pixels of the photo, or of the frame where the file says that the image has its size.
        size: width and height of the photo.
        side: S of the frame.
        protocol: gives the frame's geometry, and where a box ends.

    Returns:
        (K, 4) as x0, y0, x1, y1, and what was clipped. An edge within 0.05 pixels of a border between pixels is that
        border.

    Raises:
        InputError: a box outside its image, or a file that says another size of the image than the lists.
    """
    if not found:
        return NO_BOX, Overhang()
    place = geometry.eval_frame(size, score.frame_of(side, protocol))
    scale = np.array([place.width, place.height] * 2) / np.array([*size, *size])
    shift = np.array([place.left, place.top] * 2)
    parts, overhang = [], Overhang()
    for each in found:
        stated_size = size if each.size is None else each.size
        if stated_size not in (size, (side, side)):
            raise InputError(
                f"{each.where}: image_width, image_height = {stated_size[0]}, {stated_size[1]}: expected the photo's "
                f"{size[0]}, {size[1]}, or {side}, {side} if the box is in the resized image"
            )
        # Edges run from 0 to the width, where pixels end at width - 1.
        edges, beyond = clip(np.array([each.edges]), (stated_size[0] + 1, stated_size[1] + 1), each.where)
        overhang += beyond
        parts.append(edges * scale - shift if stated_size == size else edges)
    edges = np.concatenate(parts)
    borders = np.rint(edges)
    edges = np.where(np.abs(edges - borders) < _SNAP, borders, edges)
    return edges - np.array([0, 0, 1, 1]) * protocol.box_convention.inclusive, overhang
