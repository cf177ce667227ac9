"""Maps to a record: record.json, examples.npz, and the curves behind them (IoU of each image at each threshold).

Maps pass in chunks, so that memory holds their curves (2 kB an image) and never all of them at full size.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core import provenance
from eil.core.files import InputError, read_json, write_arrays
from eil.core.metrics import MAIN
from eil.core.records import Record, Score
from eil.core.run import Run
from eil.data import annotation_cache, cache, fingerprint
from eil.data.cache import Cached, Fingerprints
from eil.evaluation import boxes, errors, example_images, iou_curves, maps, masks, metrics, protocols, statistics
from eil.evaluation.metrics import Scores
from eil.evaluation.protocols import Policy, Protocol
from eil.evaluation.score_rows import Named, replicate_rows, rows

Arrays = dict[str, npt.NDArray[Any]]
CHUNK = 256  # maps at full size at once
POLICIES: tuple[Policy, ...] = ("val", "oracle", "fixed", "otsu")
_log = logging.getLogger(__name__)


def evaluate(run: Run, data: Path, folder: Path, names: Sequence[str] = ("honest",)) -> Record:
    """Score a run's maps and write its record.

    Args:
        run: a localized run.
        data: folder of the decoded images.
        folder: the run's folder, with maps.npz, and train.json unless the run is a control's.
        names: of protocols; the first is the record's own, of the others their own metrics are kept.

    Raises:
        InputError: maps that are missing, not finite, or not of this data set.
    """
    description = cache.describe(data)
    side = int(description["crop"])
    val, test = (cache.open_split(data, name) for name in ("val", "test"))
    arrays = iou_curves.read_maps(folder / "maps.npz", {"val": val, "test": test}, side, len(description["classes"]))
    made_from = cache.fingerprints(data)
    _require_same_data(arrays, made_from, run, folder / "maps.npz")
    protocol = protocols.find(names[0])
    bare = next(
        (i for split in (val, test) for i, own in zip(split.ids, split.boxes, strict=True) if not len(own)), None
    )
    if bare is not None:
        raise InputError(f"image {bare} has neither box nor mask, so that its map cannot be scored; maps.npz has it")
    on, scored = iou_curves.scores(folder, arrays, {"val": val, "test": test}, side, protocol).values()
    level = metrics.level_of(protocol.threshold, on, scored, protocol)
    against_masks = _against_masks(arrays, val, test, side, protocol, level, description["parts"])
    mistakes = _mistakes(arrays["test_maps"], scored, test, side, protocol, level)
    found = _scores(on, scored, protocol, names[0], level)
    found += rows(against_masks | mistakes, names[0], protocol.threshold)
    for name in names[1:]:
        further = protocols.find(name)
        found += rows(_under(further, arrays, val, test, side), name, further.threshold)
    training = {} if run.control else read_json(folder / "train.json", "eil train")
    hits = protocol.hits(scored.curve, 0.5)
    record = Record(
        run=run,
        key=run.key,
        status="done",
        protocol=names[0],
        threshold_from={name: protocols.find(name).threshold for name in names},
        scores=found,
        replicates=replicate_rows(statistics.replicates(scored, on, protocol), names[0], protocol.threshold),
        curves={"gt_known_loc": metrics.accuracy_over_levels(hits).round(3).tolist()},
        history=_history(training.pop("history", [])),
        training=training,
        provenance=provenance.provenance()
        | {f"{what}_sha256": value for what, value in made_from._asdict().items()}
        | {"data_sha256": fingerprint.of_data(*made_from), "images": len(test.ids)}
        | {"boxed_masks": annotation_cache.describe(data)["boxed_masks"]}
        | {"classes": len(description["classes"]), "whole_classes": description.get("whole_classes")},
    )
    write_arrays(folder / "examples.npz", example_images.examples(arrays, test, side, protocol, level))
    record.save(folder / "record.json")
    shown = [(key.label, record.value(key)) for key in MAIN]
    _log.info("%s: %s", run.name, ", ".join(f"{label} {value:.1f}" for label, value in shown if value is not None))
    return record


def _require_same_data(arrays: Arrays, now: Fingerprints, run: Run, path: Path) -> None:
    """Refuse maps of other photos than there are; a control's maps may be made from boxes, too."""
    for what, value in now._asdict().items():
        if str(arrays.get(f"made_from_{what}")) != value and (what == "photos" or run.control):
            raise InputError(f"{path}: was made from other {what} than there are now; localize the run again")


def _scores(on: Scores, scored: Scores, protocol: Protocol, name: str, level: int | metrics.Ints) -> list[Score]:
    """Scores of test under every way to a threshold, and of val under thresholds chosen there."""
    found: list[Score] = []
    for policy in POLICIES:
        threshold = {"threshold": float(np.mean(metrics.level_of(policy, on, scored, protocol)))}
        found += rows(metrics.metrics(scored, on, protocol, policy) | threshold, name, policy)
    found += rows(metrics.metrics(on, on, protocol, "val"), name, "val", split="val")
    found += rows(metrics.losses(scored, level, protocol), name, protocol.threshold)
    return list(dict.fromkeys(found))  # classification needs no threshold: one row stands for all four


def _under(protocol: Protocol, arrays: Arrays, val: Cached, test: Cached, side: int) -> dict[str, float]:
    """Scores of the same maps under another protocol, its own policy."""
    on, scored = (
        iou_curves.score(arrays, name, split, side, protocol) for name, split in (("val", val), ("test", test))
    )
    return metrics.metrics(scored, on, protocol, protocol.threshold)


def _against_masks(
    arrays: Arrays,
    val: Cached,
    test: Cached,
    side: int,
    protocol: Protocol,
    level: int | metrics.Ints,
    names: list[str],
) -> Named:
    """PxAP, pixel IoU at the threshold that is best on val, and the mean share of each part that a map covers."""
    if test.masks is None or val.masks is None:
        return {}
    pooled = {"val": masks.Pooled(), "test": masks.Pooled()}
    for name, mask in (("val", val.masks), ("test", test.masks)):
        for score_map, parts in zip(arrays[f"{name}_maps"], mask, strict=True):
            pooled[name].add(maps.prepared(score_map, side, protocol), parts)
    levels = np.broadcast_to(level, len(test.ids))
    covered = []
    for start, images in iou_curves.chunks(arrays["test_maps"], test.ids, side, protocol):
        covered += [
            masks.part_coverage(image, test.masks[i], int(levels[i]), len(names))
            for i, image in enumerate(images, start)
        ]
    best = int(pooled["val"].iou().argmax())
    found: Named = {"px_ap": pooled["test"].average_precision()}
    found["pixel_iou"] = float(pooled["test"].iou()[best])
    with warnings.catch_warnings(action="ignore"):  # of a mean of nothing
        shares = np.nanmean(covered, axis=0)
    # A part that no test image shows has no share.
    seen = {name: float(share) for name, share in zip(names, shares, strict=True) if np.isfinite(share)}
    return found | {("part_coverage", name): 100 * share for name, share in seen.items()}


def _mistakes(
    score_maps: npt.NDArray[np.floating],
    scored: Scores,
    test: Cached,
    side: int,
    protocol: Protocol,
    level: int | metrics.Ints,
) -> Named:
    """Kinds of error of the box that is scored, and accuracy by the object's size."""
    levels = np.broadcast_to(level, len(test.ids))
    predicted = [
        boxes.counted(boxes.predicted_boxes(image, int(levels[i]), protocol), test.boxes[i], protocol.rules)
        for start, images in iou_curves.chunks(score_maps, test.ids, side, protocol)
        for i, image in enumerate(images, start)
    ]
    bare = sum(not len(own) for own in predicted)
    if bare:
        _log.warning("%d of %d test maps have no contrast and find nothing", bare, len(predicted))
    located = protocol.hits(metrics.at(scored.curve, level), 0.5)
    return errors.decompose(predicted, test.boxes, scored.top1) | errors.by_size(located, test.boxes, side)


def _history(epochs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {key: [epoch[key] for epoch in epochs] for key in (epochs[0] if epochs else ())}
