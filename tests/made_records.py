"""Records with chosen scores, for tests of tables and figures, and whole ones, for benchmarks of many runs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core import metric_definitions, provenance
from eil.core.metric_definitions import THRESHOLD_SOURCES, ScoreKey
from eil.core.records import Record, Score
from eil.core.run import Run
from eil.evaluation.errors import KINDS
from eil.evaluation.score_rows import replicate_rows, rows

PARTS = ("body", "wing", "head", "beak", "tail", "legs")
SIZES = ("object size 4-9 %", "object size 9-16 %", "object size 16-25 %")
LOCALIZED = ("top1_loc", "top5_loc", "gt_known_loc", "max_box_acc_v2_30", "max_box_acc_v2_50", "max_box_acc_v2_70")
EPOCHS = 7


def score_rows(values: dict[ScoreKey, float]) -> list[Score]:
    """A row for each value; protocol "val-threshold" and its threshold, val, where a key leaves them open."""
    rows = []
    for key, value in values.items():
        fixed = metric_definitions.METRICS[key.metric].threshold_from
        chosen = key.threshold_from or ("val" if fixed is None else fixed)
        rows.append(
            Score(
                split=key.split,
                protocol=key.protocol or "val-threshold",
                threshold_from=chosen,
                metric=key.metric,
                subset=key.subset,
                value=value,
            )
        )
    return rows


def made_record(run: Run, rows: list[Score], **more: Any) -> Record:
    """A record that is done, by protocol "val-threshold"."""
    fields: dict[str, Any] = {"protocol": "val-threshold", "threshold_from": {"val-threshold": "val"}}
    return Record(run=run, key=run.key, status="done", scores=rows, **fields | more)


def whole_record(run: Run, resamples: npt.NDArray[np.float64], rng: np.random.Generator) -> Record:
    """A record with all that the evaluation of a small study leaves, as large as a real one.

    Args:
        run: whose record it is.
        resamples: deviations that all runs have in common, (R,), as they have the same images.
        rng: draws the scores.
    """
    base = float(rng.uniform(30, 70))
    means = dict.fromkeys([*LOCALIZED, "max_box_acc_v2"], base) | {"top1_cls": 70.0, "top5_cls": 95.0}
    scores = [
        row
        for chosen in THRESHOLD_SOURCES
        for row in rows(means | {"threshold": 90.0}, "val-threshold", chosen)
        if chosen == "val" or row.threshold_from
    ]
    scores += rows(means, "val-threshold", "val", "val")
    scores += rows({"map_loss": 20.0, "threshold_loss": 9.0, "px_ap": 40.0, "pixel_iou": 35.0}, "val-threshold", "val")
    subsets = [("box_kind", kind) for kind in KINDS] + [("part_coverage", part) for part in PARTS]
    subsets += [(metric, size) for size in SIZES for metric in ("gt_known_loc", "images")]
    scores += rows(dict.fromkeys(subsets, 100 / len(KINDS)), "val-threshold", "val")
    scores += rows(means, "ts-cam", "fixed")
    main = ("top1_loc", "gt_known_loc", "top1_cls", "max_box_acc_v2")
    replicates = {name: means[name] + resamples + rng.normal(0, 1, len(resamples)) for name in main}
    names = ("epoch", "lr", "seconds", "images_per_s", "total", "unerased", "erased", "top1", "val_top1")
    history = {name: np.linspace(2, 1, EPOCHS).tolist() for name in names}
    made = provenance.provenance() | {"images": 250, "classes": 5, "whole_classes": 5}
    return made_record(
        run,
        scores,
        threshold_from={"val-threshold": "val", "ts-cam": "fixed"},
        replicates=replicate_rows(replicates, "val-threshold", "val"),
        curves={"gt_known_loc": np.linspace(base + 5, 5, 255).round(1).tolist()},
        history=history,
        training={"key": run.key, "epochs": EPOCHS, "seconds": 5.0, "provenance": made},
        provenance=made,
    )
