"""Scores of a split from its IoU curves and logits.

A threshold is one of 0..254 for an 8-bit map. It is chosen on val and used on test ("val"), chosen on the scored images
themselves ("oracle", which the benchmark prints and most papers report), a fixed share of the map's maximum ("fixed"),
or chosen for each image by Otsu's method ("otsu"). All values are percentages; higher is better, except for losses.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eil.core.metric_definitions import ThresholdSource
from eil.evaluation.protocols import Protocol

IOUS = (0.3, 0.5, 0.7)
Bools = npt.NDArray[np.bool_]
Curves = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageResults:
    """What the metrics of a split are computed from.

    Attributes:
        curve: IoU of each image's box for GT-known Loc at each threshold, (N, 255).
        curve_v2: the same for MaxBoxAccV2; None if the protocol does not report it.
        otsu: Otsu's threshold of each image, (N,).
        top1: whether the true class is the first prediction, (N,).
        top5: whether it is among the first five predictions, (N,).
    """

    curve: Curves
    curve_v2: Curves | None
    otsu: Ints
    top1: Bools
    top5: Bools


def topk_correct(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], k: int) -> Bools:
    """Whether the label's logit is among the k largest, (N, C), (N,) -> (N,); ties and NaN count as wrong."""
    label_logits = logits[np.arange(len(labels)), labels]
    return np.asarray((~(logits < label_logits[:, None])).sum(axis=1) <= k)


def accuracy_over_thresholds(hits: Bools) -> npt.NDArray[np.float64]:
    """Share of hits at each threshold, in percent: (N, 255) -> (255,)."""
    return np.asarray(100 * hits.mean(axis=0))


def choose(hits: Bools, protocol: Protocol) -> int:
    """The protocol's candidate threshold with the most hits, (N, 255) -> threshold; the lowest one in a tie."""
    return int(protocol.candidates[accuracy_over_thresholds(hits)[protocol.candidates].argmax()])


def threshold_of(
    threshold_from: ThresholdSource, chosen_on: ImageResults, scored: ImageResults, protocol: Protocol
) -> int | Ints:
    """The threshold for all images, or one for each (N,), for GT-known Loc at IoU 0.5."""
    if threshold_from == "otsu":
        return scored.otsu
    if threshold_from == "fixed":
        return int(protocol.fixed * 255)
    return choose(protocol.hits((scored if threshold_from == "oracle" else chosen_on).curve, 0.5), protocol)


def metrics(
    scored: ImageResults, chosen_on: ImageResults, protocol: Protocol, threshold_from: ThresholdSource
) -> dict[str, float]:
    """Every metric of a split, in percent.

    - ``gt_known_loc``: share of images whose box, from the true class's map, has IoU >= 0.5 with a true box. With the
      oracle threshold and the largest contour's box this is MaxBoxAcc (Choe et al., CVPR 2020).
    - ``top1_loc``, ``top5_loc``: at the same threshold, the same share of images, where also the true class is the
      first prediction (among the first five).
    - ``max_box_acc_v2``: mean over IoU 0.3, 0.5, 0.7 of the share of hits, each at its own threshold (Choe et al.,
      TPAMI 2022, with the oracle threshold); ``max_box_acc_v2_30`` etc. are the single values.
    - ``top1_cls``, ``top5_cls``: classification alone.

    Args:
        scored: the split that is scored.
        chosen_on: the split on which "val" chooses its thresholds.
        protocol: what counts as a hit, and the candidate thresholds.
        threshold_from: how thresholds are chosen.
    """
    threshold = threshold_of(threshold_from, chosen_on, scored, protocol)
    located = protocol.hits(iou_at(scored.curve, threshold), 0.5)
    successes = located_successes(located[:, None], scored) | classified_successes(scored)
    found = {name: 100 * float(success.mean()) for name, success in successes.items()}
    if scored.curve_v2 is not None and chosen_on.curve_v2 is not None:
        for iou in IOUS:
            source = scored.curve_v2 if threshold_from == "oracle" else chosen_on.curve_v2
            chosen = threshold if threshold_from in ("otsu", "fixed") else choose(protocol.hits(source, iou), protocol)
            hits = protocol.hits(iou_at(scored.curve_v2, chosen), iou)
            found[f"max_box_acc_v2_{iou * 100:.0f}"] = 100 * float(hits.mean())
        found["max_box_acc_v2"] = float(np.mean([found[f"max_box_acc_v2_{iou * 100:.0f}"] for iou in IOUS]))
    return found


def located_successes(hits: Bools, scored: ImageResults) -> dict[str, Bools]:
    """Which images count for each metric of boxes at L thresholds, from the images whose box is a hit, (N, L)."""
    return {
        "top1_loc": hits & scored.top1[:, None],
        "top5_loc": hits & scored.top5[:, None],
        "gt_known_loc": hits,
    }


def classified_successes(scored: ImageResults) -> dict[str, Bools]:
    """Which images count for each metric without a threshold, (N, 1)."""
    return {"top1_cls": scored.top1[:, None], "top5_cls": scored.top5[:, None]}


def iou_at(curve: Curves, threshold: int | Ints) -> Curves:
    """IoU of each image at one threshold, or at a threshold for each image (N,): (N, 255) -> (N,)."""
    return np.asarray(curve[np.arange(len(curve)), threshold])


def miss_rates(scored: ImageResults, threshold: int | Ints, protocol: Protocol) -> dict[str, float]:
    """Percent of images without a hit, by cause; with GT-known Loc they add up to 100.

    - ``map_loss``: at no threshold is the map's box a hit.
    - ``threshold_loss``: at some threshold it is, but not at the chosen one.
    """
    hits = protocol.hits(scored.curve, 0.5)
    ever = hits.any(axis=1)
    here = protocol.hits(iou_at(scored.curve, threshold), 0.5)
    return {"map_loss": 100 * float((~ever).mean()), "threshold_loss": 100 * float((ever & ~here).mean())}
