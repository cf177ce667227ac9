"""What choosing a setting on val does to its difference: ``make coverage`` simulates it, results/chosen_on_val.*.

Each study has 8 methods, one of them with several settings, and in truth all are equal. The setting with the best mean
on val is compared with the first method on test. Val has other images, but the same networks: the luck of a training
shows on both.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from interval_coverage import IMAGES, METHODS, REPLICATES, Floats, hits, options, replicated, resamples, save

from eil.evaluation import statistics
from eil.evaluation.seed_variance import pool

VAL_IMAGES = 200
TRUTH, BLOCK = 45.0, 2.0  # percent of every method; standard deviation of what a seed does to all of them, in points


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        seeds: of each setting.
        deviation: of the trainings, in points: how much their luck differs.
        settings: from which one is chosen.
    """

    seeds: int
    deviation: float
    settings: int


CASES = [Case(seeds, deviation, settings) for seeds in (3, 5) for deviation in (2.0, 4.0) for settings in (1, 4, 12)]


def simulate(case: Case, rng: np.random.Generator, weights: Floats) -> dict[str, float]:
    """One study: the chosen setting's difference, whether its interval misses 0, and what is significant."""
    shape = (METHODS - 1 + case.settings, case.seeds)
    chance = TRUTH + rng.normal(0, BLOCK, case.seeds) + rng.normal(0, case.deviation, shape)
    found = hits(chance, IMAGES, rng)
    runs = replicated(found, weights)
    on_val = hits(chance[: case.settings], VAL_IMAGES, rng).mean(axis=(1, 2))
    best = int(np.argmax(on_val))
    # The last method is the first of the table; of the grid, the chosen setting alone is in the pool.
    first, methods = runs[-1], [runs[best], *runs[case.settings :]]
    model = pool(np.stack(methods).mean(axis=-1))
    assert model is not None
    variance = model.of_difference()
    differences = [statistics.estimate(each - first, variance) for each in runs[:-1]]
    grid = {str(k): each.p_value() for k, each in enumerate(differences)}
    main = {name: p for k, (name, p) in enumerate(grid.items()) if k == best or k >= case.settings}
    chosen = differences[best]
    return {
        "difference, points": chosen.mean,
        "interval misses 0, %": 100.0 * (abs(chosen.mean) > chosen.half_width()),
        "significant in comparisons, %": 100.0 * (statistics.holm(main)[str(best)] <= 0.05),
        "significant in grid, %": 100.0 * (statistics.holm(grid)[str(best)] <= 0.05),
    }


def simulate_all(case: Case, studies: int) -> dict[str, Any]:
    """Means over so many studies, as a row of the table."""
    rng = np.random.default_rng([case.seeds, int(case.deviation), case.settings])
    weights = resamples(rng)
    means = pd.DataFrame([simulate(case, rng, weights) for _ in range(studies)]).mean()
    return {**case._asdict(), **means.round(1).to_dict()}


def main() -> None:
    """Write the table as CSV and Markdown."""
    given = options(__doc__, 1000)
    notes = [
        f"{given.studies} simulated studies a row; {METHODS} methods, {VAL_IMAGES} val and {IMAGES} test images, "
        f"{REPLICATES} replicates; the trainings deviate by so many points (standard deviation), a seed's share in all "
        f"by {BLOCK:g}",
        "difference: of the chosen setting from the first method, on test; without a choice 0",
        "interval misses 0: 5 % without a choice; comparisons: p corrected for the methods; grid: for all settings",
    ]
    rows = [simulate_all(case, given.studies) for case in CASES]
    title = "A setting chosen on val, where in truth all settings and methods are equal"
    save(given.out / "chosen_on_val", title, rows, notes)


if __name__ == "__main__":
    main()
