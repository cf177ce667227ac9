"""Scores of a split from its IoU curves and logits.

A threshold is a level 0..254 of the 8-bit map. Where it comes from is a policy: chosen on val and used on test
("val"), chosen on the scored images themselves ("oracle", what the benchmark prints and most papers mean), a
fixed share of the map's maximum ("fixed"), or each image's own by Otsu's method ("otsu"). All values are
percentages, higher is better, unless a name says loss.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eil.evaluation.protocols import Policy, Protocol

IOUS = (0.3, 0.5, 0.7)
Bools = npt.NDArray[np.bool_]
Curves = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """What the metrics of a split are made of.

    Attributes:
        curve: IoU of the protocol's box for GT-known Loc at each level, (N, 255).
        curve_v2: likewise for MaxBoxAccV2; None if the protocol has none.
        otsu: each image's own level, (N,).
        top1: whether the true class is the first prediction, (N,).
        top5: whether it is among the first five, (N,).
    """

    curve: Curves
    curve_v2: Curves | None
    otsu: Ints
    top1: Bools
    top5: Bools


def in_top(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], k: int) -> Bools:
    """Whether the label's logit is among the k largest, (N, C), (N,) -> (N,); equal ones, and NaN, count against it."""
    own = logits[np.arange(len(labels)), labels]
    return np.asarray((~(logits < own[:, None])).sum(axis=1) <= k)


def accuracy_over_levels(hits: Bools) -> npt.NDArray[np.float64]:
    """Share of images that are found at each level, in percent: (N, 255) -> (255,)."""
    return np.asarray(100 * hits.mean(axis=0))


def choose(hits: Bools, protocol: Protocol) -> int:
    """The level at which most images are found, among those that the protocol allows; of equals, the lowest."""
    return int(protocol.allowed[accuracy_over_levels(hits)[protocol.allowed].argmax()])


def level_of(policy: Policy, chosen_on: Scores, scored: Scores, protocol: Protocol) -> int | Ints:
    """The level of every image, or an own one of each, for GT-known Loc at IoU 0.5."""
    if policy == "otsu":
        return scored.otsu
    if policy == "fixed":
        return int(protocol.fixed * 255)
    return choose(protocol.hits((scored if policy == "oracle" else chosen_on).curve, 0.5), protocol)


def metrics(scored: Scores, chosen_on: Scores, protocol: Protocol, policy: Policy) -> dict[str, float]:
    """Every metric of a split under a policy, in percent.

    - ``gt_known_loc``: share of images whose box, from the true class's map, has IoU >= 0.5 with a true one. Under
      the oracle policy and with the box of the largest contour this is MaxBoxAcc (Choe et al., CVPR 2020).
    - ``top1_loc``, ``top5_loc``: that, and the true class is the first (among the first five) predicted, at
      the same threshold.
    - ``max_box_acc_v2``: mean over IoU 0.3, 0.5, 0.7 of the share of images found, each at its own threshold (Choe
      et al., TPAMI 2022, under the oracle policy); ``max_box_acc_v2_30`` etc. singly.
    - ``top1_cls``, ``top5_cls``: classification alone.

    Args:
        scored: the split that is scored.
        chosen_on: the split on which "val" chooses its thresholds.
        protocol: what counts as found, and which levels there are.
        policy: where thresholds come from.
    """
    level = level_of(policy, chosen_on, scored, protocol)
    located = protocol.hits(at(scored.curve, level), 0.5)
    successes = located_successes(located[:, None], scored) | classified_successes(scored)
    found = {name: 100 * float(success.mean()) for name, success in successes.items()}
    if scored.curve_v2 is not None and chosen_on.curve_v2 is not None:
        for iou in IOUS:
            source = scored.curve_v2 if policy == "oracle" else chosen_on.curve_v2
            own = level if policy in ("otsu", "fixed") else choose(protocol.hits(source, iou), protocol)
            hits = protocol.hits(at(scored.curve_v2, own), iou)
            found[f"max_box_acc_v2_{iou * 100:.0f}"] = 100 * float(hits.mean())
        found["max_box_acc_v2"] = float(np.mean([found[f"max_box_acc_v2_{iou * 100:.0f}"] for iou in IOUS]))
    return found


def located_successes(hits: Bools, scored: Scores) -> dict[str, Bools]:
    """Which images count for each metric of boxes at L thresholds, from those whose box is good enough, (N, L)."""
    return {
        "top1_loc": hits & scored.top1[:, None],
        "top5_loc": hits & scored.top5[:, None],
        "gt_known_loc": hits,
    }


def classified_successes(scored: Scores) -> dict[str, Bools]:
    """Which images count for each metric without a threshold, (N, 1)."""
    return {"top1_cls": scored.top1[:, None], "top5_cls": scored.top5[:, None]}


def at(curve: Curves, level: int | Ints) -> Curves:
    """IoU of each image at a level, or at its own, (N, 255) -> (N,)."""
    return np.asarray(curve[np.arange(len(curve)), level])


def losses(scored: Scores, level: int | Ints, protocol: Protocol) -> dict[str, float]:
    """Why GT-known Loc is not 100: in percent of the images, together with it 100.

    - ``map_loss``: no threshold whatever makes the map's box good enough.
    - ``threshold_loss``: some threshold would, the one for all does not.
    """
    hits = protocol.hits(scored.curve, 0.5)
    ever = hits.any(axis=1)
    here = protocol.hits(at(scored.curve, level), 0.5)
    return {"map_loss": 100 * float((~ever).mean()), "threshold_loss": 100 * float((ever & ~here).mean())}
