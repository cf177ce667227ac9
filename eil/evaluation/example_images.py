"""Example images for figures: photo, 8-bit map, predicted and true boxes, all in the S x S frame."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError, read_arrays
from eil.core.metric_definitions import ScoreKey
from eil.core.records import Record
from eil.data import Boxes, Image, cache
from eil.data.cache import Cached
from eil.evaluation import boxes, iou_curves, maps, metrics, protocols
from eil.evaluation.iou_curves import FILE
from eil.evaluation.protocols import Protocol

Arrays = dict[str, npt.NDArray[Any]]
Thresholds = int | metrics.Ints  # one for all test images, or one each (N,)


def extra_maps(arrays: Mapping[str, npt.NDArray[Any]], side: int, protocol: Protocol) -> Arrays:
    """The method's extra maps of the example images (``extra_erased map``, say) as 8-bit maps, (E, S, S) each.

    They come from several stages, so they are drawn by half-pixel resizing under every protocol.
    """
    resized = protocol.model_copy(update={"alignment": "grid"})
    return {
        name: np.stack([maps.to_8_bit(view, side, resized) for view in array])
        for name, array in arrays.items()
        if name.startswith("extra_")
    }


def example_arrays(
    images: Sequence[Image], split: Cached, protocol: Protocol, threshold: Thresholds, positions: Sequence[int]
) -> Arrays:
    """What a figure shows of E images.

    Args:
        images: 8-bit maps of these E images, (S, S) each.
        split: all test images.
        protocol: how maps become boxes.
        threshold: of all test images, or one for each of them, (N,).
        positions: of the E images in the split.

    Returns:
        ``ids`` (E,), ``images`` (E, S, S, 3), 8-bit ``maps`` (E, S, S); ``predicted`` (E, 4), the box that is scored,
        NaN where a map has no contrast; ``true`` (E, 4), the true box that it overlaps most. If an image has several
        boxes, the others are ``further_predicted`` (P, 4) and ``further_true`` (T, 4), and ``further_predicted_of``
        (P,) and ``further_true_of`` (T,) hold the row of the image that each belongs to.
    """
    thresholds = np.broadcast_to(threshold, len(split.ids))
    pairs = [
        _scored_first(boxes.predicted_boxes(image, int(thresholds[i]), protocol), split.boxes[i], protocol)
        for i, image in zip(positions, images, strict=True)
    ]
    predicted, true = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    none = np.full(4, np.nan)
    return {
        "ids": np.array([split.ids[i] for i in positions]),
        "images": np.stack([split.images[i] for i in positions]),
        "maps": np.stack(images),
        "predicted": np.stack([boxes_of_image[0] if len(boxes_of_image) else none for boxes_of_image in predicted]),
        "true": np.stack([boxes_of_image[0] for boxes_of_image in true]),
        **_further("predicted", predicted),
        **_further("true", true),
    }


def _scored_first(predicted: Boxes, true: Boxes, protocol: Protocol) -> tuple[Boxes, Boxes]:
    """Predicted and true boxes of an image, with the pair that is scored in the first rows."""
    if not len(predicted):
        return predicted, true
    best = int(boxes.best_ious(predicted, true, protocol.box_convention).argmax())
    of_true = [boxes.best_ious(predicted[[best]], true_box[None], protocol.box_convention)[0] for true_box in true]
    return _with_first(predicted, best), _with_first(true, int(np.argmax(of_true)))


def _with_first(found: Boxes, first: int) -> Boxes:
    return np.concatenate([found[[first]], np.delete(found, first, axis=0)])


def _further(name: str, found: Sequence[Boxes]) -> Arrays:
    """All boxes but the first of each image, and the image that each belongs to."""
    rows = np.repeat(np.arange(len(found)), [max(len(boxes_of_image) - 1, 0) for boxes_of_image in found])
    return {
        f"further_{name}": np.concatenate([boxes_of_image[1:] for boxes_of_image in found]),
        f"further_{name}_of": rows,
    }


def predictions(record: Record, data: Path, folder: Path) -> tuple[list[Boxes], Protocol, npt.NDArray[np.floating]]:
    """Predicted boxes of each test image of a finished run, (K, 4), with the protocol and the logits (N, C).

    Raises:
        InputError: the run's maps or the decoded images are missing.
    """
    arrays, _, side, protocol = _read_run(record, data, folder)
    found, cells = [], iou_curves.cells_for(protocol, arrays, folder / "maps.npz")
    for score_map in arrays["test_maps"]:
        image = maps.to_8_bit(score_map, side, protocol, cells)
        found.append(boxes.predicted_boxes(image, _threshold_of(record, image, protocol), protocol))
    return found, protocol, arrays["test_logits"]


def of_run(record: Record, data: Path, folder: Path, positions: Sequence[int]) -> Arrays:
    """:func:`example_arrays` of any test images of a finished run, from its maps.npz.

    Raises:
        InputError: the run's maps or the decoded images are missing.
    """
    arrays, split, side, protocol = _read_run(record, data, folder)
    cells = iou_curves.cells_for(protocol, arrays, folder / "maps.npz")
    images = [maps.to_8_bit(arrays["test_maps"][i], side, protocol, cells) for i in positions]
    thresholds = np.zeros(len(split.ids), np.int64)
    thresholds[list(positions)] = [_threshold_of(record, image, protocol) for image in images]
    return example_arrays(images, split, protocol, thresholds, positions)


def ious_of_run(record: Record, folder: Path) -> npt.NDArray[np.floating]:
    """IoU of each test image's box at the run's threshold, (N,).

    Raises:
        InputError: curves.npz is missing.
    """
    curves = read_arrays(folder / FILE, "eil evaluate")
    by_otsu = protocols.find(record.protocol).threshold_from == "otsu"
    return np.asarray(
        metrics.iou_at(curves["test_curve"], curves["test_otsu"] if by_otsu else _chosen_threshold(record))
    )


def _read_run(record: Record, data: Path, folder: Path) -> tuple[Arrays, Cached, int, Protocol]:
    """A run's maps, the test images, the side of the frame, and the protocol."""
    description, splits = cache.describe(data), {name: cache.open_split(data, name) for name in ("val", "test")}
    side = int(description["crop"])
    path = folder / "maps.npz"
    arrays = iou_curves.read_maps(path, splits, side, len(description["classes"]))
    iou_curves.require_same_data(arrays, cache.fingerprints(data), record.run, path)
    for name, score_map in zip(splits["test"].ids, arrays["test_maps"], strict=True):
        if not np.isfinite(score_map).all():
            raise InputError(f"{path}: the map of {name} holds NaN or infinity; delete the file and localize again")
    return arrays, splits["test"], side, protocols.find(record.protocol)


def _threshold_of(record: Record, image: Image, protocol: Protocol) -> int:
    """The threshold that a finished run used for an image."""
    return maps.otsu(image) if protocol.threshold_from == "otsu" else _chosen_threshold(record)


def _chosen_threshold(record: Record) -> int:
    found = record.value(ScoreKey("threshold"))
    assert found is not None  # every record that is done has it
    return round(found)
