"""Uncertainty of a score: the images of a split and the seeds of a training are both samples.

Images are resampled (Efron's bootstrap). Each replicate also chooses its threshold again, because the original was
chosen on images too. All runs scored on the same images use the same resamples, so differences between methods are
paired. There are only a few seeds, so their variance is pooled over configurations
(:mod:`eil.evaluation.seed_variance`), and Student's t accounts for its degrees of freedom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from eil.core.metric_definitions import METRICS
from eil.evaluation import metrics
from eil.evaluation.metrics import IOUS, Curves, ImageResults, Ints, iou_at
from eil.evaluation.protocols import Protocol
from eil.evaluation.seed_variance import SeedVariance

REPLICATES = 1000
_CHUNK = 100  # replicates computed at once: 20 MB for 50,000 images
Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


def replicates(
    scored: ImageResults, chosen_on: ImageResults, protocol: Protocol, count: int = REPLICATES
) -> dict[str, Floats]:
    """Bootstrap replicates of the main metrics, in percent, name -> (count,).

    Args:
        scored: the split that is scored.
        chosen_on: the split on which thresholds are chosen if the protocol chooses on val.
        protocol: how each replicate chooses its threshold; a fixed threshold stays.
        count: number of replicates.
    """
    kinds = {"gt_known_loc": _Choice(protocol, scored, scored.curve, chosen_on.curve, 0.5)}
    if scored.curve_v2 is not None and chosen_on.curve_v2 is not None:
        kinds |= {f"v2_{iou}": _Choice(protocol, scored, scored.curve_v2, chosen_on.curve_v2, iou) for iou in IOUS}
    located = _replicated(metrics.located_successes(kinds["gt_known_loc"].hits, scored))
    classified = _replicated(metrics.classified_successes(scored))
    parts: list[dict[str, Floats]] = []
    for start in range(0, count, _CHUNK):
        wanted = range(start, min(start + _CHUNK, count))
        weights, val_weights = (_weights(len(s.top1), wanted, stream) for stream, s in enumerate((scored, chosen_on)))
        found: dict[str, Floats] = {}
        for name, choice in kinds.items():
            columns = choice.columns(weights, val_weights)
            successes = located if name == "gt_known_loc" else {name: choice.hits}
            found |= {metric: _take(_accuracy(weights, success), columns) for metric, success in successes.items()}
        found |= {metric: _accuracy(weights, success)[:, 0] for metric, success in classified.items()}
        parts.append(found)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    singles = [joined.pop(name) for name in kinds if name.startswith("v2_")]
    return joined | ({"max_box_acc_v2": np.mean(singles, axis=0)} if singles else {})


def _replicated(successes: Mapping[str, Hits]) -> dict[str, Hits]:
    """The metrics that are declared to have replicates."""
    return {name: success for name, success in successes.items() if METRICS[name].replicated}


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its uncertainty; intervals, p, P(better) and detectable differences come from here.

    Attributes:
        mean: in points.
        se_images: standard error over images (bootstrap).
        se_images_shared: the part of it that all seeds share; the rest is in the variance between seeds already.
        se_seeds: standard error over seeds; 0 for one seed.
        df: degrees of freedom of ``se_seeds``.
    """

    mean: float
    se_images: float
    se_images_shared: float
    se_seeds: float
    df: float

    def half_width(self, alpha: float = 0.05) -> float:
        """Half the width of the 1 - ``alpha`` confidence interval, in points.

        The part of the images is normal, the part of the seeds Student's t; their squares are added. It is never
        narrower than the interval over images alone.
        """
        # The quantiles equal scipy.stats.norm.isf and scipy.stats.t.isf, which take 50 times as long.
        normal = -float(special.ndtri(alpha / 2))
        of_seeds = -float(special.stdtrit(self.df, alpha / 2)) * self.se_seeds if self.se_seeds else 0.0
        return max(float(np.hypot(normal * self.se_images_shared, of_seeds)), normal * self.se_images)

    def p_value(self) -> float:
        """Two-sided p-value of a difference: the ``alpha`` whose interval ends at 0."""
        least, mean = 1e-9, abs(self.mean)
        if mean == 0 or self.half_width(least) <= mean:
            return 1.0 if mean == 0 else least
        from scipy import optimize  # 0.3 s at the start of each evaluation, which does not call this

        return float(optimize.brentq(lambda alpha: self.half_width(alpha) - mean, least, 1))

    def probability_of_improvement(self) -> float:
        """Probability that a difference is above 0: 1 - p/2, or p/2 if the mean is below 0."""
        return 1 - self.p_value() / 2 if self.mean > 0 else self.p_value() / 2

    def minimum_detectable_effect(self) -> float:
        """The smallest true difference that is found significant at 5 % with a power of 80 %, in points."""
        return self.half_width(0.05) + self.half_width(0.4)  # 0.4: its one-sided power is 80 %


def estimate(runs: Floats, seed_variance: tuple[float, float] | None = None) -> Estimate:
    """The uncertainty of a mean over seeds.

    Args:
        runs: replicates of each seed's run, (S, R), on the same resamples.
        seed_variance: of one seed's score, and its degrees of freedom, pooled over configurations
            (:mod:`eil.evaluation.seed_variance`), for one run too; None: the variance of these runs, S - 1 degrees of
            freedom, or that of the images alone for one run.
    """
    count, resamples = runs.shape
    images = float(runs.mean(axis=0).var(ddof=1)) if resamples > 1 else 0.0
    if count < 2 and seed_variance is None:
        return Estimate(float(runs.mean()), images**0.5, images**0.5, 0.0, 0.0)
    variance, df = seed_variance or (float(runs.mean(axis=1).var(ddof=1)), float(count - 1))
    unshared = 0.0
    if resamples > 1 and count > 1:
        unshared = float(runs.var(axis=0, ddof=1).mean() - runs.mean(axis=1).var(ddof=1))
    shared = max(0.0, images - max(0.0, unshared) / count)
    return Estimate(float(runs.mean()), images**0.5, shared**0.5, (variance / count) ** 0.5, df)


def ci_half_width(runs: Floats, alpha: float = 0.05) -> float:
    """:meth:`Estimate.half_width` from the runs' own variance, (S, R) -> points."""
    return estimate(runs).half_width(alpha)


def interval(runs: Floats) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval from the runs' own variance, (S, R) -> two numbers."""
    return float(runs.mean()), ci_half_width(runs)


def p_value(difference: Floats) -> float:
    """:meth:`Estimate.p_value` from the runs' own variance, (S, R) -> [0, 1]."""
    return estimate(difference).p_value()


def seeds_needed(model: SeedVariance, shared: float, points: float = 2.0, max_seeds: int = 1000) -> int | None:
    """How many seeds would detect a difference of two configurations at 5 % with a power of 80 %.

    Args:
        model: the measured variance; every further seed adds to its degrees of freedom.
        shared: standard error over the images that all seeds share; more seeds do not reduce it.
        points: the true difference.
        max_seeds: seeds to try.

    Returns:
        The number; None if no number up to ``max_seeds`` does.
    """
    others = max(1, model.configurations - 1)
    for count in range(2, max_seeds + 1):
        seeds = (2 * model.residual / count) ** 0.5
        if Estimate(0, shared, shared, seeds, others * (count - 1)).minimum_detectable_effect() <= points:
            return count
    return None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of several p-values, name -> corrected p (Holm, 1979)."""
    found, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        found[name] = largest
    return found


class _Choice:
    """Hits at the candidate thresholds, and how a replicate chooses one of these."""

    def __init__(self, protocol: Protocol, scored: ImageResults, curve: Curves, curve_on: Curves, iou: float) -> None:
        self.val_hits: Hits | None = None
        if protocol.threshold_from in ("fixed", "otsu"):
            threshold = scored.otsu if protocol.threshold_from == "otsu" else int(protocol.fixed * 255)
            self.hits = protocol.hits(iou_at(curve, threshold), iou)[:, None]  # one column: nothing to choose
            return
        self.hits = protocol.hits(curve[:, protocol.candidates], iou)
        if protocol.threshold_from == "val":
            self.val_hits = protocol.hits(curve_on[:, protocol.candidates], iou)

    def columns(self, weights: Weights, val_weights: Weights) -> Ints:
        """Column of the best threshold in each replicate, (R,)."""
        accuracy = _accuracy(weights, self.hits) if self.val_hits is None else _accuracy(val_weights, self.val_hits)
        return np.asarray(accuracy.argmax(axis=1))


def _weights(images: int, wanted: Sequence[int], stream: int) -> Weights:
    """How often each image is drawn in each replicate, (R, N).

    A pure function of its arguments, so all runs on the same images get the same resamples and are paired.
    """
    drawn = np.empty((len(wanted), images), np.float32)
    for row, replicate in zip(drawn, wanted, strict=True):
        rng = np.random.default_rng([images, stream, replicate])
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return drawn


def _accuracy(weights: Weights, hits: Hits) -> Floats:
    """Accuracy of each replicate at each threshold, in percent, (R, N), (N, L) -> (R, L)."""
    counts = weights @ hits.astype(np.float32)  # integers, exact in float32: ties stay ties
    return 100 * counts.astype(np.float64) / len(hits)


def _take(accuracy: Floats, columns: Ints) -> Floats:
    return np.asarray(accuracy[np.arange(len(accuracy)), columns])
