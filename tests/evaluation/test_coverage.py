"""The 95 % intervals cover the truth in 93 to 98 % of simulated studies; ``make coverage`` makes the whole table."""

import chosen_on_val
import numpy as np
import pytest
from interval_coverage import Case, cover


@pytest.mark.parametrize("variances", ["equal", "unequal"])
@pytest.mark.parametrize("effects", ["small", "large"])
def test_intervals_cover_what_they_say(variances: str, effects: str) -> None:
    found = [cover(Case(seeds, variances, effects, 2.0), 120) for seeds in (2, 3, 5)]
    for row in found:
        assert 91.5 < row["difference: coverage"] < 98.5  # 120 studies: two standard errors beyond 93 to 98
        assert 91.5 < row["mean: coverage"] < 99
    assert 93 <= np.mean([row["difference: coverage"] for row in found]) <= 98
    assert found[0]["difference: half-width"] < found[0]["difference, before: half-width"] / 2


def test_a_setting_chosen_on_val_looks_better_than_it_is_and_holm_holds() -> None:
    one, best_of_twelve = (chosen_on_val.simulate_all(chosen_on_val.Case(5, 4.0, n), 100) for n in (1, 12))
    assert abs(one["difference, points"]) < 1 < best_of_twelve["difference, points"] < 4
    assert one["interval misses 0, %"] < 10
    for row in (one, best_of_twelve):
        assert row["significant in grid, %"] <= row["significant in comparisons, %"] <= 5
