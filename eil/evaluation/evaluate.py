"""Maps to a record: curves.npz (best IoU of each image at each threshold), record.json, examples.npz."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil import records
from eil.data import cache
from eil.data.cache import Cached
from eil.evaluation import boxes, metrics
from eil.evaluation.metrics import Scores
from eil.files import InputError, read_arrays, read_json, write_arrays
from eil.records import Record
from eil.run import Run

Arrays = dict[str, npt.NDArray[Any]]
_log = logging.getLogger(__name__)


def evaluate(run: Run, data: Path, folder: Path) -> Record:
    """Score a run's maps and write its record.

    Args:
        run: a localized run.
        data: folder of the decoded images.
        folder: the run's folder, with maps.npz, and train.json unless the run is a control's.

    Raises:
        InputError: maps that are missing, not finite, or not of this data set.
    """
    arrays = read_arrays(folder / "maps.npz", "eil localize")
    description = cache.describe(data)
    side = int(description["crop"])
    splits = {name: cache.open_split(data, name) for name in ("val", "test")}
    images = {name: _to_8_bit(arrays[f"{name}_maps"], split, side) for name, split in splits.items()}
    curves = {name: score(images[name], split, arrays[f"{name}_logits"]) for name, split in splits.items()}
    write_arrays(
        folder / "curves.npz",
        {f"{name}_{kind}": getattr(s, kind) for name, s in curves.items() for kind in ("every", "largest")},
    )
    chosen, oracle = metrics.choose(curves["val"]), metrics.choose(curves["test"])
    found = {f"test.val.{key}": value for key, value in metrics.metrics(curves["test"], chosen).items()}
    found |= {f"test.oracle.{key}": value for key, value in metrics.metrics(curves["test"], oracle).items()}
    found |= {f"val.val.{key}": value for key, value in metrics.metrics(curves["val"], chosen).items()}
    found |= {"threshold.val": float(chosen.largest), "threshold.oracle": float(oracle.largest)}
    found |= _coverage(images["test"], splits["test"], chosen.largest, description["parts"])
    training = {} if run.control else read_json(folder / "train.json", "eil train")
    record = Record(
        run=run,
        key=run.key,
        status="done",
        metrics=found,
        curves={"gt_known_loc": metrics.accuracy_over_levels(curves["test"].largest, 0.5).round(3).tolist()}
        | _history(training.pop("history", [])),
        training=training,
        provenance=records.provenance() | {"data_sha256": description["sha256"], "images": len(splits["test"].ids)},
    )
    write_arrays(folder / "examples.npz", _examples(arrays, images["test"], splits["test"], chosen.largest))
    record.save(folder / "record.json")
    shown = ("top1_loc", "gt_known_loc", "max_box_acc_v2", "top1_cls")
    _log.info("%s: %s", run.name, ", ".join(f"{name} {found['test.val.' + name]:.1f}" for name in shown))
    return record


def score(images: list[npt.NDArray[np.uint8]], split: Cached, logits: npt.NDArray[np.float32]) -> Scores:
    """Curves and classification of a split from its 8-bit maps."""
    threads = records.threads()
    return Scores(
        every=boxes.iou_curves(images, split.boxes, "all", threads),
        largest=boxes.iou_curves(images, split.boxes, "largest", threads),
        top1=metrics.in_top(logits, split.labels, 1),
        top5=metrics.in_top(logits, split.labels, 5),
    )


def _to_8_bit(maps: npt.NDArray[np.float32], split: Cached, side: int) -> list[npt.NDArray[np.uint8]]:
    if len(maps) != len(split.ids):
        raise InputError(f"{len(maps)} maps for {len(split.ids)} images: maps.npz is of another data set")
    images = []
    for score_map, name in zip(maps, split.ids, strict=True):
        try:
            images.append(boxes.to_8_bit(score_map, side))
        except InputError as error:
            raise InputError(f"image {name}: {error}") from None
    return images


def _coverage(images: list[npt.NDArray[np.uint8]], split: Cached, level: int, names: list[str]) -> dict[str, float]:
    """Mean share of each part, in percent, that the map covers at the threshold chosen on val."""
    if split.parts is None:
        return {}
    shares = [
        metrics.part_coverage(image, parts, level, len(names)) for image, parts in zip(images, split.parts, strict=True)
    ]
    return {
        f"coverage.{name}": 100 * float(share) for name, share in zip(names, np.nanmean(shares, axis=0), strict=True)
    }


def _history(epochs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {f"history.{key}": [epoch[key] for epoch in epochs] for key in (epochs[0] if epochs else ())}


def _examples(arrays: Arrays, images: list[npt.NDArray[np.uint8]], split: Cached, level: int) -> Arrays:
    """What the qualitative figure shows of the chosen test images, in the S x S frame."""
    chosen = arrays["examples"]
    predicted = []
    for i in chosen:
        candidates, areas = boxes.boxes_at(images[i], level)
        predicted.append(candidates[areas.argmax()])
    side = images[0].shape[0]
    views = {
        name: np.stack([boxes.to_8_bit(view, side) for view in array])
        for name, array in arrays.items()
        if name.startswith("view_")
    }
    return {
        "ids": np.array([split.ids[i] for i in chosen]),
        "images": np.stack([split.images[i] for i in chosen]),
        "maps": np.stack([images[i] for i in chosen]),
        "predicted": np.stack(predicted),
        "true": np.stack([split.boxes[i][0] for i in chosen]),
        **views,
    }
