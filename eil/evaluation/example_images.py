"""Images as figures show them: photo, map, predicted and true boxes, in the S x S frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core.files import read_arrays
from eil.core.metrics import ScoreKey
from eil.core.records import Record
from eil.data import Boxes, cache
from eil.data.cache import Cached
from eil.evaluation import boxes, maps, metrics, protocols
from eil.evaluation.iou_curves import FILE, read_maps
from eil.evaluation.protocols import Protocol

Arrays = dict[str, npt.NDArray[Any]]


def examples(arrays: Arrays, split: Cached, side: int, protocol: Protocol, level: int | metrics.Ints) -> Arrays:
    """The test images that were chosen when localizing, with the method's further views."""
    views = {
        name: np.stack([maps.to_8_bit(view, side, protocol) for view in array])
        for name, array in arrays.items()
        if name.startswith("view_")
    }
    return look(arrays["test_maps"], split, side, protocol, level, arrays["examples"].tolist()) | views


def look(
    score_maps: npt.NDArray[np.floating],
    split: Cached,
    side: int,
    protocol: Protocol,
    level: int | metrics.Ints,
    positions: Sequence[int],
) -> Arrays:
    """What a figure shows of the E images at these positions.

    Returns:
        ``ids`` (E,), ``images`` (E, S, S, 3), 8-bit ``maps`` (E, S, S); ``predicted`` (E, 4), the box that is scored,
        NaN where a map has no contrast; ``true`` (E, 4), the true box that it overlaps most. Where an image has several
        boxes, the others are ``further_predicted`` (P, 4) and ``further_true`` (T, 4), with the row of the image that
        each belongs to in ``further_predicted_of`` (P,) and ``further_true_of`` (T,).
    """
    levels = np.broadcast_to(level, len(split.ids))
    images = [maps.to_8_bit(score_maps[i], side, protocol) for i in positions]
    pairs = [
        _scored_first(boxes.predicted_boxes(image, int(levels[i]), protocol), split.boxes[i], protocol)
        for i, image in zip(positions, images, strict=True)
    ]
    predicted, true = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    none = np.full(4, np.nan)
    return {
        "ids": np.array([split.ids[i] for i in positions]),
        "images": np.stack([split.images[i] for i in positions]),
        "maps": np.stack(images),
        "predicted": np.stack([own[0] if len(own) else none for own in predicted]),
        "true": np.stack([own[0] for own in true]),
        **_further("predicted", predicted),
        **_further("true", true),
    }


def _scored_first(predicted: Boxes, true: Boxes, protocol: Protocol) -> tuple[Boxes, Boxes]:
    """Predicted and true boxes of an image, each with the one first that makes its score."""
    if not len(predicted):
        return predicted, true
    best = int(boxes.overlaps(predicted, true, protocol.rules).argmax())
    of_true = [boxes.overlaps(predicted[[best]], own[None], protocol.rules)[0] for own in true]
    return _with_first(predicted, best), _with_first(true, int(np.argmax(of_true)))


def _with_first(found: Boxes, first: int) -> Boxes:
    return np.concatenate([found[[first]], np.delete(found, first, axis=0)])


def _further(name: str, found: Sequence[Boxes]) -> Arrays:
    """All boxes but the first of each image in one array, and whose they are."""
    rows = np.repeat(np.arange(len(found)), [max(len(own) - 1, 0) for own in found])
    return {f"further_{name}": np.concatenate([own[1:] for own in found]), f"further_{name}_of": rows}


def predictions(record: Record, data: Path, folder: Path) -> tuple[list[Boxes], Protocol, npt.NDArray[np.floating]]:
    """All predicted boxes of each test image of a finished run, (K, 4), with their protocol, and the logits (N, C).

    Raises:
        InputError: maps or decoded images are not there any more.
    """
    arrays, _, side, protocol = _kept(record, data, folder)
    levels = np.broadcast_to(_levels(record, arrays["test_maps"], side, protocol), len(arrays["test_maps"]))
    found = [
        boxes.predicted_boxes(maps.to_8_bit(score_map, side, protocol), int(threshold), protocol)
        for score_map, threshold in zip(arrays["test_maps"], levels, strict=True)
    ]
    return found, protocol, arrays["test_logits"]


def of_run(record: Record, data: Path, folder: Path, positions: Sequence[int]) -> Arrays:
    """:func:`look` at any test images of a finished run, by the maps that it has kept.

    Raises:
        InputError: maps or decoded images are not there any more.
    """
    arrays, split, side, protocol = _kept(record, data, folder)
    level = _levels(record, arrays["test_maps"], side, protocol)
    return look(arrays["test_maps"], split, side, protocol, level, positions)


def overlaps(record: Record, folder: Path) -> npt.NDArray[np.floating]:
    """IoU of each test image's box at the run's own threshold, (N,).

    Raises:
        InputError: curves are not there any more.
    """
    kept = read_arrays(folder / FILE, "eil evaluate")
    level = kept["test_otsu"] if protocols.find(record.protocol).threshold == "otsu" else _chosen(record)
    return np.asarray(metrics.at(kept["test_curve"], level))


def _kept(record: Record, data: Path, folder: Path) -> tuple[Arrays, Cached, int, Protocol]:
    """A run's maps, the test images, the side of the frame, and the protocol."""
    description, splits = cache.describe(data), {name: cache.open_split(data, name) for name in ("val", "test")}
    side = int(description["crop"])
    arrays = read_maps(folder / "maps.npz", splits, side, len(description["classes"]))
    return arrays, splits["test"], side, protocols.find(record.protocol)


def _levels(record: Record, score_maps: npt.NDArray[np.floating], side: int, protocol: Protocol) -> int | metrics.Ints:
    if protocol.threshold != "otsu":
        return _chosen(record)
    return np.array([maps.otsu(maps.to_8_bit(score_map, side, protocol)) for score_map in score_maps])


def _chosen(record: Record) -> int:
    found = record.value(ScoreKey("threshold"))
    assert found is not None  # every record that is done has it
    return round(found)
