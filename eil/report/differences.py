"""Differences between configurations, paired by images and seeds, and which configurations cannot be told apart."""

from collections.abc import Sequence

import numpy as np

from eil.core.metric_definitions import ScoreKey
from eil.evaluation import statistics
from eil.evaluation.statistics import Estimate
from eil.report.configurations import Configuration, Floats, common_repetitions
from eil.report.seed_design import SeedDesign


def compared(configuration: Configuration, other: Configuration, key: ScoreKey) -> Estimate | None:
    """``configuration``'s score minus ``other``'s, paired by images and repetitions.

    None without replicates, or if they have one of several seeds in common and nothing is known of the variance.

    Tables, figures and bold print all use this estimate, so that they agree.
    """
    runs = difference(configuration, other, key)
    if runs is None:
        return None
    variance = difference_variance(configuration, other, key)
    several = (
        not (configuration.imported and other.imported)
        and max(len(each.records) for each in (configuration, other)) > 1
    )
    return None if len(runs) < 2 and several and variance is None else statistics.estimate(runs, variance)


def difference(configuration: Configuration, other: Configuration, key: ScoreKey) -> Floats | None:
    """Replicates of ``configuration``'s score minus ``other``'s, (S, R), over :func:`paired_repetitions`."""
    repetitions = paired_repetitions(configuration, other)
    ours, theirs = (each.replicates(key, repetitions) for each in (configuration, other))
    return None if ours is None or theirs is None else ours - theirs  # an imported network's row stands for each seed


def paired_repetitions(one: Configuration, other: Configuration) -> set[int] | None:
    """Over which repetitions two configurations are compared: those that both have, or all if one is imported.

    An imported network has no seed here, so that each seed of the other one is compared with it.
    """
    return None if one.imported != other.imported else common_repetitions([one, other])


def difference_variance(one: Configuration, other: Configuration, key: ScoreKey) -> tuple[float, float] | None:
    """Variance of one seed's difference, and its degrees of freedom; None if nothing is known.

    Pooled over the methods, or over the grid for two settings of one method; of these two alone if one of them is not
    in the pool; that of one score if the other network is imported.
    """
    trained = [each for each in (one, other) if not each.imported]
    if len(trained) < 2:
        model = trained[0].seed_variance(key) if trained else None
        return model.of_mean() if model else None
    grid = one.method == other.method and not (one.reuses_network or other.reuses_network)
    pooled = [(each.grid_design if grid else each.seed_design).variance_of(each.records, key) for each in trained]
    model = pooled[0] if all(pooled) else SeedDesign((one.records, other.records)).variance(key)
    return model.of_difference() if model else None


def as_good_as_the_best(configurations: Sequence[Configuration], key: ScoreKey) -> list[Configuration]:
    """The best by its mean, and all that do not differ from it significantly at 5 % (Holm's correction).

    Differences are paired: repetitions share initial weights and data order, and the images are the same. Without
    replicates a paired t interval over the repetitions decides; one repetition cannot show a difference.
    """
    if not configurations:
        return []
    best = max(configurations, key=lambda each: each.mean(key))
    rest = {str(k): each for k, each in enumerate(configurations) if each is not best}
    found = {name: compared(best, each, key) or _over_paired_seeds(best, each, key) for name, each in rest.items()}
    corrected = statistics.holm({name: each.p_value() if each else 1.0 for name, each in found.items()})
    # The best by its own seeds may be the worse one of two on the seeds that both have.
    not_better = {name for name, each in found.items() if each is None or each.mean <= 0}
    return [best, *(each for name, each in rest.items() if name in not_better or corrected[name] > 0.05)]


def _over_paired_seeds(one: Configuration, other: Configuration, key: ScoreKey) -> Estimate | None:
    """The difference of a score without replicates, over the seeds alone; None if their variance is not known."""
    repetitions = paired_repetitions(one, other)
    ours, theirs = (np.array(each.values(key, repetitions)) for each in (one, other))
    runs, variance = (ours - theirs)[:, None], difference_variance(one, other, key)
    enough = len(runs) > (0 if variance else 1)
    return statistics.estimate(runs, variance) if enough else None
