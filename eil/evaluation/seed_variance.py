"""The variance between seeds, pooled over the configurations of a backbone.

A single configuration has a few seeds only, and their own variance is all but unknown. In a two-way layout, score =
configuration + seed + residual, the seeds are blocks: a repetition has the same initial weights and data order in all
configurations. The residual has (configurations - 1) x (seeds - 1) degrees of freedom.

A configuration whose seeds differ far more than the others' does not belong in the pool (:func:`outliers`): it would
widen the others' intervals, and its own would be too narrow.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeedVariance:
    """Mean squares of a two-way layout.

    Attributes:
        blocks: mean square of the seeds, ``blocks_df`` its degrees of freedom.
        residual: mean square of the residual, ``residual_df`` its degrees of freedom; one configuration has none.
        configurations: how many are pooled.
    """

    blocks: float
    blocks_df: int
    residual: float
    residual_df: int
    configurations: int

    def of_mean(self, configurations: int = 1) -> tuple[float, float]:
        """Variance of one seed's mean score over so many configurations, and its degrees of freedom (Satterthwaite)."""
        blocks = self.blocks / self.configurations
        residual = max(0.0, 1 / configurations - 1 / self.configurations) * self.residual
        if blocks + residual == 0:
            return 0.0, float(self.blocks_df)
        squares = blocks**2 / self.blocks_df + (residual**2 / self.residual_df if self.residual_df else 0.0)
        return blocks + residual, (blocks + residual) ** 2 / squares

    def of_difference(self, configurations: int = 1) -> tuple[float, float] | None:
        """Variance of one seed's difference of two such means, and its degrees of freedom; None if unknown."""
        return (2 * self.residual / configurations, float(self.residual_df)) if self.residual_df else None


def pool(scores: Floats) -> SeedVariance | None:
    """Fit the two-way layout by least squares; runs may be missing.

    Args:
        scores: (configurations, seeds), NaN where there is no run.

    Returns:
        The mean squares; None if no configuration has two seeds.
    """
    here = np.isfinite(scores)
    here = here[here.any(axis=1)][:, here.any(axis=0)]
    row, column = np.nonzero(here)
    found, (configurations, seeds) = scores[np.isfinite(scores)], here.shape
    total_df = len(found) - configurations
    if total_df < 1:
        return None
    # The configurations' effects are taken out of scores and seeds alike (Frisch and Waugh, Econometrica 1933): what is
    # left to fit has a column for each seed, not for each of a thousand configurations.
    count = here.sum(axis=1)
    centred = found - (np.bincount(row, found) / count)[row]
    design = np.eye(seeds)[column] - (here / count[:, None])[row]
    effects, _, rank, _ = np.linalg.lstsq(design, centred, rcond=None)
    residual_df = total_df - int(rank)
    residual = float(np.square(centred - design @ effects).sum() / residual_df) if residual_df else 0.0
    within = float(np.square(centred).sum()) / total_df
    # Exact if balanced; else the blocks' mean square that a balanced layout of these variances would have.
    blocks = max(0.0, configurations * within - (configurations - 1) * residual)
    return SeedVariance(blocks, seeds - 1, residual, residual_df, configurations)


def is_larger(scores: Floats, others: Floats, alpha: float = 0.05) -> bool:
    """Whether a row outside the pool has residuals far larger than those of the pool, by an F-test.

    Args:
        scores: of the row, (S,), on the seeds that it and all rows of the pool have.
        others: of the pool, (configurations, S), on the same seeds.
        alpha: of the test.
    """
    rows, seeds = others.shape
    if rows < 2 or seeds < 2:
        return False
    residual_df = (rows - 1) * (seeds - 1)
    blocks = others.mean(axis=0)
    within = others - others.mean(axis=1, keepdims=True) - blocks + blocks.mean()
    own = scores - scores.mean() - blocks + blocks.mean()  # its variance has the pool's mean of a seed too
    expected = np.square(within).sum() / residual_df * (1 + 1 / rows)
    ratio = np.square(own).sum() / (seeds - 1) / max(float(expected), 1e-12)
    return bool(special.fdtrc(seeds - 1, residual_df, ratio) < alpha)


def outliers(scores: Floats, alpha: float = 0.05) -> list[int]:
    """Rows whose residuals are far larger than the others': they do not belong in the pool.

    The row with the largest ratio is left out and the rest is tested again, so that two such rows do not hide each
    other (Rosner's generalized ESD test, Technometrics 1983, with F-tests of variances).

    Args:
        scores: (configurations, seeds); of seeds with missing runs nothing is used.
        alpha: of an F-test of each row's residual against the rest's, Bonferroni's correction.

    Returns:
        Their indices, at most a quarter of the rows, and one to ten; with fewer than three rows none.
    """
    complete = scores[:, np.isfinite(scores).all(axis=0)]
    rest, left_out, found = list(range(len(scores))), [], 0
    for _ in range(min(max(1, len(scores) // 4), 10)):  # ten: a grid may have thousands of rows
        p_values = _of_larger_residuals(complete[rest])
        if not len(p_values):
            break
        worst = int(np.argmin(p_values))
        left_out.append(rest.pop(worst))
        if p_values[worst] < alpha:
            found = len(left_out)
    return sorted(left_out[:found])


def _of_larger_residuals(scores: Floats) -> Floats:
    """Corrected p-value of each row, against the hypothesis that its residuals are as large as the others', (M,)."""
    rows, seeds = scores.shape
    if rows < 3 or seeds < 2:
        return np.empty(0)
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    squares = np.square(residual).sum(axis=1)
    row_df, rest_df = (seeds - 1) * (rows - 1) / rows, (seeds - 1) * (rows - 1) * (rows - 1) / rows
    ratio = (squares / row_df) / np.maximum((squares.sum() - squares) / rest_df, 1e-12)
    return np.asarray(rows * special.fdtrc(row_df, rest_df, ratio))
