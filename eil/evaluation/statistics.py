"""How sure a score is: the images of a split and the seeds of a training are both samples.

Images are resampled (Efron's bootstrap), and the threshold is chosen anew in each replicate, as it was chosen
on images too. All runs that are scored on the same images take the same resamples, so that differences between
methods are paired. Seeds are few, hence their variance is taken as it is, and Student's t by its degrees of freedom.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from eil.core.metrics import METRICS
from eil.evaluation import metrics
from eil.evaluation.metrics import IOUS, Curves, Ints, Scores, at
from eil.evaluation.protocols import Protocol

REPLICATES = 1000
_CHUNK = 100  # replicates at once: 50,000 images take 20 MB
Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


def replicates(scored: Scores, chosen_on: Scores, protocol: Protocol, count: int = REPLICATES) -> dict[str, Floats]:
    """Bootstrap replicates of the main metrics, in percent, name -> (count,).

    Args:
        scored: the split that is scored.
        chosen_on: the split on which thresholds are chosen if the protocol's policy is "val".
        protocol: its policy decides where each replicate chooses its threshold; one that is fixed stays.
        count: how many.
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
    """Those of metrics that are declared to have replicates."""
    return {name: success for name, success in successes.items() if METRICS[name].replicated}


def spread(runs: Floats) -> tuple[float, float, float]:
    """Mean, and its standard deviation over images and over seeds.

    Args:
        runs: replicates of each seed's run, (S, R), resampled alike.

    Returns:
        Mean over seeds and replicates; deviation over replicates of the seeds' mean; standard error of the mean over
        the seeds' means, 0 for one seed.
    """
    images = float(runs.mean(axis=0).std(ddof=1)) if runs.shape[1] > 1 else 0.0
    seeds = float(stats.sem(runs.mean(axis=1))) if len(runs) > 1 else 0.0
    return float(runs.mean()), images, seeds


def half_width(runs: Floats, alpha: float = 0.05) -> float:
    """Half the width of the interval that misses the truth with probability ``alpha``, (S, R) -> points.

    Images give a normal part and seeds one of Student's t with S - 1 degrees of freedom; the two are added as
    squares. That errs to the wide side; pooling their degrees of freedom (Satterthwaite) errs to the narrow side
    when the few seeds happen to agree.
    """
    _, images, seeds = spread(runs)
    of_images = float(stats.norm.isf(alpha / 2)) * images
    of_seeds = float(stats.t.isf(alpha / 2, len(runs) - 1)) * seeds if seeds else 0.0
    return float(np.hypot(of_images, of_seeds))


def interval(runs: Floats) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval over images and seeds, (S, R) -> two numbers."""
    return float(runs.mean()), half_width(runs)


def p_value(difference: Floats) -> float:
    """Two-sided p of a paired difference being none: of which interval 0 is the end, (S, R) -> a number in [0, 1]."""
    mean = abs(float(difference.mean()))
    least = 1e-9
    if mean == 0 or half_width(difference, least) <= mean:
        return 1.0 if mean == 0 else least
    return float(optimize.brentq(lambda alpha: half_width(difference, alpha) - mean, least, 1))


def beats(difference: Floats, step: float) -> float:
    """Probability that A beats B on resampled images with a seed drawn for both, (S, R) -> [0, 1].

    Ties count half. Centred replicates do not lie on the scores' own grid, so that a tie is what is nearer to none than
    to ``step``, the least that two scores can differ by.
    """
    return float((difference > step / 2).mean() + (np.abs(difference) <= step / 2).mean() / 2)


def detectable(difference: Floats) -> float:
    """The smallest true difference that would be told from none at 5 % with a power of 80 %, (S, R) -> points."""
    return half_width(difference, 0.05) + half_width(difference, 0.4)  # 0.4: one side of it holds 80 %


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction of several p-values, name -> corrected p (Holm, 1979)."""
    found, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        found[name] = largest
    return found


class _Choice:
    """Which images are found at the levels that there are, and how a replicate chooses one of these."""

    def __init__(self, protocol: Protocol, scored: Scores, curve: Curves, curve_on: Curves, iou: float) -> None:
        self.on: Hits | None = None
        if protocol.threshold in ("fixed", "otsu"):
            level = scored.otsu if protocol.threshold == "otsu" else int(protocol.fixed * 255)
            self.hits = protocol.hits(at(curve, level), iou)[:, None]  # nothing to choose
            return
        self.hits = protocol.hits(curve[:, protocol.allowed], iou)
        if protocol.threshold == "val":
            self.on = protocol.hits(curve_on[:, protocol.allowed], iou)

    def columns(self, weights: Weights, on: Weights) -> Ints:
        """The best level's column in each replicate, (R,)."""
        accuracy = _accuracy(weights, self.hits) if self.on is None else _accuracy(on, self.on)
        return np.asarray(accuracy.argmax(axis=1))


def _weights(images: int, wanted: Sequence[int], stream: int) -> Weights:
    """How often each image is drawn in each replicate, (R, N).

    A pure function of its arguments: this is what pairs the runs.
    """
    drawn = np.empty((len(wanted), images), np.float32)
    for row, replicate in zip(drawn, wanted, strict=True):
        rng = np.random.default_rng([images, stream, replicate])
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return drawn


def _accuracy(weights: Weights, hits: Hits) -> Floats:
    """Accuracy of each replicate at each level, in percent, (R, N), (N, L) -> (R, L)."""
    counts = weights @ hits.astype(np.float32)  # whole numbers, exact in float32: equal levels stay equal
    return 100 * counts.astype(np.float64) / len(hits)


def _take(accuracy: Floats, columns: Ints) -> Floats:
    return np.asarray(accuracy[np.arange(len(accuracy)), columns])
