"""Evaluation of a run: score maps in; record.json, examples.npz and curves.npz out.

Each map is resized and normalised once per protocol (:mod:`eil.evaluation.map_pass`). Maps pass in chunks, so memory
holds their curves (2 kB an image) and never all maps at full size.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core import provenance
from eil.core.cell_grid import CellGrid
from eil.core.files import InputError, read_json, write_arrays
from eil.core.metric_definitions import MAIN, THRESHOLD_SOURCES
from eil.core.records import Record, Score
from eil.core.run import Run
from eil.data import annotation_cache, cache, fingerprint
from eil.data.cache import Cached, Fingerprints
from eil.evaluation import boxes, errors, example_images, iou_curves, map_pass, masks, metrics, protocols, statistics
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.map_pass import ImageFile
from eil.evaluation.masks import PixelHistogram
from eil.evaluation.metrics import ImageResults
from eil.evaluation.protocols import Protocol
from eil.evaluation.score_rows import Named, replicate_rows, rows

Arrays = dict[str, npt.NDArray[Any]]
_log = logging.getLogger(__name__)


def evaluate(run: Run, data: Path, folder: Path, names: Sequence[str] = (protocols.DEFAULT,)) -> Record:
    """Score a run's maps and write its record.

    Args:
        run: a localized run.
        data: folder of the prepared data set.
        folder: the run's folder, with maps.npz, and train.json unless the run borrows its network.
        names: of protocols. The record is the first one's; of the others it keeps the main scores.

    Raises:
        InputError: maps that are missing, not finite, or not of this data set.
    """
    description = cache.describe(data)
    side, parts = int(description["crop"]), description["parts"]
    splits = {name: cache.open_split(data, name) for name in ("val", "test")}
    test = splits["test"]
    arrays = iou_curves.read_maps(folder / "maps.npz", splits, side, len(description["classes"]))
    made_from = cache.fingerprints(data)
    iou_curves.require_same_data(arrays, made_from, run, folder / "maps.npz")
    _require_boxes(splits)
    name, *others = map(protocols.current_name, names)
    protocol = protocols.find(name)
    for each in map(protocols.find, (name, *others)):  # before anything is computed
        iou_curves.cells_for(each, arrays, folder / "maps.npz")
    with ImageFile(folder, side) as images:
        curves, pixels = _scan(folder, arrays, splits, side, protocol, images)
        val_scores, test_scores = (
            iou_curves.image_results(curves[key], arrays[f"{key}_logits"], splits[key]) for key in ("val", "test")
        )
        threshold = metrics.threshold_of(protocol.threshold_from, val_scores, test_scores, protocol)
        against_masks = _against_masks(pixels, images, test, threshold, parts)
        mistakes = _mistakes(images, test_scores, test, side, protocol, threshold)
        positions = arrays["examples"].tolist()
        examples = example_images.example_arrays([images[i] for i in positions], test, protocol, threshold, positions)
    found = _scores(val_scores, test_scores, protocol, name, threshold)
    found += rows(against_masks | mistakes, name, protocol.threshold_from)
    for other in others:
        further = protocols.find(other)
        found += rows(_under(further, arrays, splits, side, protocol, curves), other, further.threshold_from)
    training = {} if run.reuses_network else read_json(folder / "train.json", "eil train")
    history = _history(training.pop("history", []), folder / "train.json")
    hits = protocol.hits(test_scores.curve, 0.5)
    record = Record(
        run=run,
        key=run.key,
        status="done",
        protocol=name,
        threshold_from={each: protocols.find(each).threshold_from for each in (name, *others)},
        scores=found,
        replicates=replicate_rows(
            statistics.replicates(test_scores, val_scores, protocol), name, protocol.threshold_from
        ),
        curves={"gt_known_loc": metrics.accuracy_over_thresholds(hits).round(3).tolist()},
        history=history,
        training=training,
        provenance=provenance.provenance() | _of_data(data, description, made_from, len(test.ids)),
    )
    write_arrays(folder / "examples.npz", examples | example_images.extra_maps(arrays, side, protocol))
    record.save(folder / "record.json")
    shown = [(key.label, record.value(key)) for key in MAIN]
    _log.info("%s: %s", run.name, ", ".join(f"{label} {value:.1f}" for label, value in shown if value is not None))
    return record


def _scan(
    folder: Path, arrays: Arrays, splits: Mapping[str, Cached], side: int, protocol: Protocol, images: ImageFile
) -> tuple[Mapping[str, Arrays], Mapping[str, PixelHistogram]]:
    """Curves of each split (saved ones if they are current) and pixel histograms if there are masks, in one pass."""
    cells = CellGrid.of_arrays(arrays, str(folder / "maps.npz"))
    key = iou_curves.curves_key(arrays, splits, side, protocol)
    saved = iou_curves.load_curves(folder, key)
    made = {} if saved else {name: IouCurves(protocol, side, cells) for name in splits}
    masked = all(split.masks is not None for split in splits.values())
    pixels = {name: PixelHistogram() for name in splits} if masked else {}
    for name, split in splits.items():
        found, histogram, opened = made.get(name), pixels.get(name), images if name == "test" else None
        map_pass.scan(arrays[f"{name}_maps"], split, side, protocol, found, histogram, opened, cells)
    return saved or iou_curves.save_curves(folder, made, key), pixels


def _of_data(data: Path, description: Mapping[str, Any], made_from: Fingerprints, images: int) -> dict[str, Any]:
    """Provenance of a record: the data set's fingerprints and size."""
    return {
        **{f"{what}_sha256": value for what, value in made_from._asdict().items()},
        "data_sha256": fingerprint.of_data(*made_from),
        "images": images,
        "boxed_masks": annotation_cache.describe(data)["boxed_masks"],
        "classes": len(description["classes"]),
        "whole_classes": description.get("whole_classes"),
    }


def _require_boxes(splits: Mapping[str, Cached]) -> None:
    """Refuse a split with an image that has no true box."""
    for split in splits.values():
        for name, boxes_of_image in zip(split.ids, split.boxes, strict=True):
            if not len(boxes_of_image):
                raise InputError(f"image {name} has neither box nor mask and cannot be scored; its map is in maps.npz")


def _scores(
    val: ImageResults, test: ImageResults, protocol: Protocol, name: str, threshold: int | metrics.Ints
) -> list[Score]:
    """Scores of test with every way to choose thresholds, and of val with thresholds chosen there."""
    found: list[Score] = []
    for threshold_from in THRESHOLD_SOURCES:
        mean = {"threshold": float(np.mean(metrics.threshold_of(threshold_from, val, test, protocol)))}
        found += rows(metrics.metrics(test, val, protocol, threshold_from) | mean, name, threshold_from)
    found += rows(metrics.metrics(val, val, protocol, "val"), name, "val", split="val")
    found += rows(metrics.miss_rates(test, threshold, protocol), name, protocol.threshold_from)
    return list(dict.fromkeys(found))  # classification needs no threshold: one row stands for all four


def _under(
    protocol: Protocol,
    arrays: Arrays,
    splits: Mapping[str, Cached],
    side: int,
    made_by: Protocol,
    made: Mapping[str, Arrays],
) -> dict[str, float]:
    """Scores of the same maps under another protocol, with the threshold that it chooses.

    Curves that ``made_by`` has ``made`` are taken from there if they are the same under both.
    """
    scored = {}
    for name, split in splits.items():
        curves = iou_curves.reused_curves(protocol, made[name], made_by)
        scored[name] = (
            iou_curves.image_results(curves, arrays[f"{name}_logits"], split)
            if curves
            else iou_curves.score(arrays, name, split, side, protocol)
        )
    return metrics.metrics(scored["test"], scored["val"], protocol, protocol.threshold_from)


def _against_masks(
    pixels: Mapping[str, PixelHistogram],
    images: ImageFile,
    test: Cached,
    threshold: int | metrics.Ints,
    names: Sequence[str],
) -> Named:
    """PxAP, pixel IoU at the threshold that is best on val, and the mean share of each part that a map covers."""
    if test.masks is None or not pixels:
        return {}
    thresholds = np.broadcast_to(threshold, len(test.ids))
    covered = [
        masks.part_coverage(image, test.masks[i], int(thresholds[i]), len(names)) for i, image in enumerate(images)
    ]
    best = int(pixels["val"].iou().argmax())
    found: Named = {"px_ap": pixels["test"].average_precision()}
    found["pixel_iou"] = float(pixels["test"].iou()[best])
    with warnings.catch_warnings(action="ignore"):  # numpy warns of a mean of nothing
        shares = np.nanmean(covered, axis=0)
    # A part that no test image shows has no share.
    shown = {name: float(share) for name, share in zip(names, shares, strict=True) if np.isfinite(share)}
    return found | {("part_coverage", name): 100 * share for name, share in shown.items()}


def _mistakes(
    images: ImageFile,
    scored: ImageResults,
    test: Cached,
    side: int,
    protocol: Protocol,
    threshold: int | metrics.Ints,
) -> Named:
    """Error types of the box that is scored, and accuracy by object size."""
    thresholds = np.broadcast_to(threshold, len(test.ids))
    predicted = []
    for i, image in enumerate(images):
        every = boxes.predicted_boxes(image, int(thresholds[i]), protocol)
        predicted.append(boxes.scored_box(every, test.boxes[i], protocol.box_convention))
    flat = sum(not len(box) for box in predicted)
    if flat:
        _log.warning("%d of %d test maps have no contrast and no box; they score 0", flat, len(predicted))
    located = protocol.hits(metrics.iou_at(scored.curve, threshold), 0.5)
    return errors.decompose(predicted, test.boxes, scored.top1) | errors.by_size(located, test.boxes, side)


def _history(epochs: Any, path: Path) -> dict[str, list[float]]:
    """Columns of the rows that a training wrote, one for each epoch.

    Raises:
        InputError: they are not such rows.
    """
    try:
        return {key: [float(epoch[key]) for epoch in epochs] for key in (epochs[0] if epochs else ())}
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: history: expected an object of the same numbers for each epoch ({type(error).__name__}: "
            f"{error}); train the run again"
        ) from None
