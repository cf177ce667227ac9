"""Scores of a split from its IoU curves and logits.

A threshold is a level 0..254 of the 8-bit map. It is chosen on val and used on test; the oracle, chosen on
test itself, stands beside it under its own name. All values are percentages, higher is better.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eil.evaluation.boxes import Floats

IOUS = (0.3, 0.5, 0.7)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """What the metrics of a split are made of.

    Attributes:
        every: best IoU of all contours at each level, (N, 255).
        largest: IoU of the largest contour's box at each level, (N, 255).
        top1: whether the true class is the first prediction, (N,); ``top5`` among the first five.
    """

    every: Floats
    largest: Floats
    top1: Bools
    top5: Bools


@dataclass(frozen=True)
class Thresholds:
    """Levels at which a map becomes boxes: for the largest contour (at IoU 0.5), and for V2 at each IoU."""

    largest: int
    every: tuple[int, ...]


def in_top(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], k: int) -> Bools:
    """Whether the label's logit is among the k largest, (N, C), (N,) -> (N,); equal logits count against it."""
    own = logits[np.arange(len(labels)), labels]
    return np.asarray((logits >= own[:, None]).sum(axis=1) <= k)


def accuracy_over_levels(curves: Floats, iou: float) -> Floats:
    """Share of images whose IoU is at least ``iou``, in percent, at each level: (N, 255) -> (255,)."""
    return np.asarray(100 * (curves >= iou).mean(axis=0))


def choose(scores: Scores) -> Thresholds:
    """The thresholds that serve these images best; of equals, the lowest."""
    return Thresholds(
        largest=int(accuracy_over_levels(scores.largest, 0.5).argmax()),
        every=tuple(int(accuracy_over_levels(scores.every, iou).argmax()) for iou in IOUS),
    )


def metrics(scores: Scores, thresholds: Thresholds) -> dict[str, float]:
    """Every metric at given thresholds, in percent.

    - ``gt_known_loc``: the largest contour's box of the true class's map has IoU >= 0.5. At the oracle
      threshold this is MaxBoxAcc (Choe et al., CVPR 2020).
    - ``top1_loc``, ``top5_loc``: that, and the true class is the first (among the first five) predicted, at
      the same threshold.
    - ``max_box_acc_v2``: mean over IoU 0.3, 0.5, 0.7 of the share of images where any contour's box reaches
      it, each at its own threshold (Choe et al., TPAMI 2022, at the oracle's); ``max_box_acc_v2_30`` etc. singly.
    - ``top1_cls``, ``top5_cls``: classification alone.
    """
    located = scores.largest[:, thresholds.largest] >= 0.5
    v2 = [accuracy_over_levels(scores.every, iou)[level] for iou, level in zip(IOUS, thresholds.every, strict=True)]
    return {
        "top1_loc": 100 * float((located & scores.top1).mean()),
        "top5_loc": 100 * float((located & scores.top5).mean()),
        "gt_known_loc": 100 * float(located.mean()),
        "max_box_acc_v2": float(np.mean(v2)),
        **{f"max_box_acc_v2_{iou * 100:.0f}": float(value) for iou, value in zip(IOUS, v2, strict=True)},
        "top1_cls": 100 * float(scores.top1.mean()),
        "top5_cls": 100 * float(scores.top5.mean()),
    }


def part_coverage(image: npt.NDArray[np.uint8], parts: npt.NDArray[np.uint8], level: int, count: int) -> Floats:
    """Share of each part's pixels that lie above the threshold.

    Args:
        image: 8-bit map, (S, S).
        parts: part mask, (S, S), k for part k - 1, 0 where there is no object.
        level: the threshold.
        count: number of parts.

    Returns:
        (count,), NaN where a part is not to be seen.
    """
    area = np.bincount(parts.ravel(), minlength=count + 1)[1:].astype(float)
    covered = np.bincount(parts[image > level], minlength=count + 1)[1:]
    return np.divide(covered, area, out=np.full(count, np.nan), where=area > 0)
