"""Seeds and images that a difference needs: by hand from a variance that is known."""

import numpy as np
from scipy import stats

from eil.evaluation.seed_variance import SeedVariance
from eil.evaluation.statistics import Estimate
from eil.report import power

MODEL = SeedVariance(blocks=8.0, blocks_df=4, residual=2.0, residual_df=28, configurations=8)


def detectable(images_error: float, seeds: int) -> float:
    """Slow: 5 % two-sided plus 80 % power, errors over images (normal) and seeds (t) added in squares."""
    df = 7 * (seeds - 1)
    of_seeds = (2 * MODEL.residual / seeds) ** 0.5
    parts = (np.hypot(stats.norm.isf(a / 2) * images_error, stats.t.isf(a / 2, df) * of_seeds) for a in (0.05, 0.4))
    return float(sum(parts))


def test_the_number_of_images_is_the_smallest_that_detects_the_difference() -> None:
    pair = Estimate(mean=0.0, se_images=3.0, se_images_shared=3.0, se_seeds=1.0, df=28)
    found = power.images_needed(MODEL, pair, points=6.0, seeds=5, images=250)
    assert found is not None
    errors = {count: 3.0 * (250 / count) ** 0.5 for count in (found - 2, found + 1)}
    assert detectable(errors[found - 2], 5) > 6.0 >= detectable(errors[found + 1], 5)


def test_images_do_not_replace_seeds() -> None:
    pair = Estimate(mean=0.0, se_images=3.0, se_images_shared=3.0, se_seeds=1.0, df=28)
    least = detectable(0.0, 5)
    assert power.images_needed(MODEL, pair, points=0.9 * least, seeds=5, images=250) is None
    assert power.images_needed(MODEL, pair, points=6.0, seeds=1, images=250) is None
