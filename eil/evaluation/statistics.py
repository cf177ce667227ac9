"""Uncertainty of a score: the images of a split and the seeds of a training are both samples.

Images are resampled (Efron's bootstrap). Each replicate also chooses its threshold again, because the original was
chosen on images too. All runs scored on the same images use the same resamples, so differences between methods are
paired. There are only a few seeds, so their variance is estimated directly and Student's t accounts for their number.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from eil.core.metrics import METRICS
from eil.evaluation import metrics
from eil.evaluation.metrics import IOUS, Curves, Ints, Scores, iou_at
from eil.evaluation.protocols import Protocol

REPLICATES = 1000
_CHUNK = 100  # replicates computed at once: 20 MB for 50,000 images
Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


def replicates(scored: Scores, chosen_on: Scores, protocol: Protocol, count: int = REPLICATES) -> dict[str, Floats]:
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
        weights, on = (_weights(len(s.top1), wanted, stream) for stream, s in enumerate((scored, chosen_on)))
        found: dict[str, Floats] = {}
        for name, choice in kinds.items():
            columns = choice.columns(weights, on)
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


def standard_errors(runs: Floats) -> tuple[float, float, float]:
    """Mean of a score, and its standard errors over images and over seeds.

    Args:
        runs: replicates of each seed's run, (S, R), on the same resamples.

    Returns:
        The mean over seeds and replicates; the standard deviation over replicates of the mean over seeds; the standard
        error of the mean over seeds, 0 for one seed.
    """
    images = float(runs.mean(axis=0).std(ddof=1)) if runs.shape[1] > 1 else 0.0
    seeds = float(stats.sem(runs.mean(axis=1))) if len(runs) > 1 else 0.0
    return float(runs.mean()), images, seeds


def ci_half_width(runs: Floats, alpha: float = 0.05) -> float:
    """Half the width of the 1 - ``alpha`` confidence interval, (S, R) -> points.

    The part of the images is normal; the part of the seeds is Student's t with S - 1 degrees of freedom; their squares
    are added. This interval is slightly too wide. Pooling the degrees of freedom (Satterthwaite) would make it too
    narrow when the few seeds agree by chance.
    """
    _, images, seeds = standard_errors(runs)
    return _half_width(images, seeds, len(runs), alpha)


def interval(runs: Floats) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval over images and seeds, (S, R) -> two numbers."""
    return float(runs.mean()), ci_half_width(runs)


def p_value(difference: Floats) -> float:
    """Two-sided p-value of a paired difference: the ``alpha`` whose interval ends at 0, (S, R) -> [0, 1]."""
    mean = abs(float(difference.mean()))
    least = 1e-9
    _, images, seeds = standard_errors(difference)
    if mean == 0 or _half_width(images, seeds, len(difference), least) <= mean:
        return 1.0 if mean == 0 else least
    return float(optimize.brentq(lambda alpha: _half_width(images, seeds, len(difference), alpha) - mean, least, 1))


def probability_of_improvement(difference: Floats, step: float) -> float:
    """Probability that A scores higher than B on resampled images with a random seed, (S, R) -> [0, 1].

    Ties count half. Replicates are centred and so are not multiples of ``step``, the smallest difference that two
    scores can have; a difference of at most half a step is a tie.
    """
    return float((difference > step / 2).mean() + (np.abs(difference) <= step / 2).mean() / 2)


def minimum_detectable_effect(difference: Floats) -> float:
    """The smallest true difference that is found significant at 5 % with a power of 80 %, (S, R) -> points."""
    return ci_half_width(difference, 0.05) + ci_half_width(difference, 0.4)  # 0.4: its one-sided power is 80 %


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of several p-values, name -> corrected p (Holm, 1979)."""
    found, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        found[name] = largest
    return found


def _half_width(images: float, seeds: float, count: int, alpha: float) -> float:
    """:func:`ci_half_width` from the two standard errors and the number of seeds."""
    # The quantiles equal scipy.stats.norm.isf and scipy.stats.t.isf, which take 50 times as long.
    of_images = -float(special.ndtri(alpha / 2)) * images
    of_seeds = -float(special.stdtrit(count - 1, alpha / 2)) * seeds if seeds else 0.0
    return float(np.hypot(of_images, of_seeds))


class _Choice:
    """Hits at the candidate thresholds, and how a replicate chooses one of these."""

    def __init__(self, protocol: Protocol, scored: Scores, curve: Curves, curve_on: Curves, iou: float) -> None:
        self.on: Hits | None = None
        if protocol.threshold_from in ("fixed", "otsu"):
            threshold = scored.otsu if protocol.threshold_from == "otsu" else int(protocol.fixed * 255)
            self.hits = protocol.hits(iou_at(curve, threshold), iou)[:, None]  # one column: nothing to choose
            return
        self.hits = protocol.hits(curve[:, protocol.candidates], iou)
        if protocol.threshold_from == "val":
            self.on = protocol.hits(curve_on[:, protocol.candidates], iou)

    def columns(self, weights: Weights, on: Weights) -> Ints:
        """Column of the best threshold in each replicate, (R,)."""
        accuracy = _accuracy(weights, self.hits) if self.on is None else _accuracy(on, self.on)
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
