"""Interval, p, P(better), bold print and figures come from one model, so none claims what another denies."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_records import made_record, score_rows
from matplotlib import pyplot as plt

from eil.core.metric_definitions import GT_KNOWN_LOC, SELECTION
from eil.core.records import Record, Replicates
from eil.evaluation import seed_variance, statistics
from eil.report import configurations, differences, notes, power, score_figures, tables
from eil.report.main_table import main_table
from eil.report.notes import Notes
from eil.report.table import Probability, Value
from eil.study.study import Study, parse

METHODS = {"cam": 42.0, "eil": 39.0, "has": 25.0, "acol": 8.0, "adl": 41.0}
REFERENCE = Path(__file__).parents[2] / "results/reference"
GT_KNOWN = "GT-known Loc ↑"


def a_study(seeds: int) -> Study:
    methods = {name: {} for name in METHODS}
    return parse({"name": "agree", "dataset": {"name": "birds"}, "backbones": ["vgg_small"], "methods": methods,
                  "recipe": {"epochs": 1}, "seeds": seeds}, "agree.yaml")  # fmt: skip


def made(study: Study, seed: int = 0, deviation: float = 3.0) -> list[Record]:
    rng, found = np.random.default_rng(seed), []
    shared = rng.normal(0, 2, 300)
    for run in study.runs():
        if run.control:
            continue
        value = METHODS[run.method] + rng.normal(0, deviation)
        values = (value + shared + rng.normal(0, 1, 300)).round(3).tolist()
        replicates = [Replicates(split="test", protocol="val-threshold", threshold_from="val", metric="gt_known_loc",
                                 values=values)]  # fmt: skip
        scores = score_rows({GT_KNOWN_LOC: value, SELECTION: value})
        found.append(made_record(run, scores, replicates=replicates, provenance={"images": 250}))
    return found


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_interval_p_probability_bold_and_figure_agree(seeds: int) -> None:
    study = a_study(seeds)
    grouped = configurations.group(made(study))
    order = sorted(grouped, key=lambda each: -each.mean(GT_KNOWN_LOC))  # the best first: bold has the same family
    compared = tables.comparisons(study, order, Notes())
    main = main_table(study, order, Notes())
    bold = {row[1]: row[main.header.index(GT_KNOWN)] for row in main.rows}
    figure = score_figures.improvement(order)
    shown = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    for each, row in zip(order[1:], compared.rows, strict=True):
        found = differences.compared(each, order[0], GT_KNOWN_LOC)
        assert found is not None
        excludes_zero, p = abs(found.mean) > found.half_width(), found.p_value()
        assert excludes_zero == (p < 0.05)
        assert found.probability_of_improvement() == pytest.approx(p / 2 if found.mean < 0 else 1 - p / 2)
        assert row[4] == Probability(found.probability_of_improvement())
        assert isinstance(corrected := row[5], Probability)
        assert isinstance(value := bold[each.marked_label], Value)
        assert value.best == (corrected.value > 0.05)
        if f"{found.probability_of_improvement():.2f}*" in shown:
            assert not value.best


def with_settings(record: Record, settings: dict[str, float]) -> Record:
    return record.model_copy(update={"run": record.run.model_copy(update={"settings": settings})})


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("name", sorted(path.name for path in REFERENCE.glob("demo-*-comparisons.csv")))
def test_the_demos_tables_agree_with_each_other(name: str) -> None:
    path = REFERENCE / name
    compared = rows_of(path)
    scores = rows_of(Path(str(path).replace("comparisons", "main")))
    assert compared
    for row in compared:
        (score,) = [s for s in scores if (s["Backbone"], s["Method"]) == (row["Backbone"], row["Method"])]
        (base,) = [s for s in scores if (s["Backbone"], s["Method"]) == (row["Backbone"], row["against"])]
        mean, half = float(row["difference"]), float(row["difference ±"])
        assert mean == pytest.approx(float(score[GT_KNOWN]) - float(base[GT_KNOWN]))
        if float(row["p (Holm)"]) < 0.05:
            assert abs(mean) > half
        assert (abs(mean) > half) == (not 0.025 <= float(row["P(better)"]) <= 0.975) or abs(abs(mean) - half) < 1
        assert half < 15


def test_pooled_over_two_configurations_it_is_the_paired_t_test() -> None:
    scores = np.array([[40.0, 44, 39], [42.0, 45, 44]])
    model = seed_variance.pool(scores)
    assert model is not None
    variance = float(np.var(scores[1] - scores[0], ddof=1))
    assert model.of_difference() == pytest.approx((variance, 2))


def test_a_missing_run_costs_one_degree_of_freedom() -> None:
    scores = np.random.default_rng(0).normal(40, 4, (8, 3))
    whole = seed_variance.pool(scores)
    scores[3, 1] = np.nan
    holed = seed_variance.pool(scores)
    assert whole is not None
    assert holed is not None
    assert (whole.residual_df, holed.residual_df) == (14, 13)
    within = np.nanvar(scores, axis=1, ddof=1) @ ([2] * 3 + [1] + [2] * 4) / 15
    assert holed.of_mean()[0] == pytest.approx(within, rel=0.05)  # the blocks have no negative variance
    assert seed_variance.pool(scores[:, :1]) is None


def test_a_failed_run_keeps_its_method_in_the_tables() -> None:
    study = a_study(3)
    records = [r for r in made(study) if (r.run.method, r.run.repetition) != ("has", 1)]
    table = tables.comparisons(study, configurations.group(records), Notes())
    assert len(table.rows) == 4
    assert all(isinstance(row[3], Value) and math.isfinite(row[3].half) for row in table.rows)


def test_intervals_of_percentages_stay_within_0_to_100() -> None:
    assert str(Value(4.0, 8.0, percent=True)) == "4.0 [0.0, 12.0]"
    assert str(Value(98.0, 8.0, percent=True)) == "98.0 [90.0, 100.0]"
    assert str(Value(100.0, 0.0, percent=True)) == "100.0 ± 0.0"
    assert str(Value(-4.0, 8.0)) == "-4.0 ± 8.0"


def test_one_and_two_seeds_are_told() -> None:
    one, two, three = (a_study(seeds) for seeds in (1, 2, 3))
    assert "over images alone" in notes.of_study(one, made(one), 5, []).interval
    assert "2 seeds are few: 2 points would need" in notes.detectable(configurations.group(made(two)))
    assert "few" not in notes.detectable(configurations.group(made(three)))
    assert "variance pooled over the methods" in notes.of_study(two, made(two), 10, []).interval


def test_fewer_points_need_more_seeds() -> None:
    model = seed_variance.pool(np.random.default_rng(0).normal(40, 4, (8, 3)))
    assert model is not None
    counts = [statistics.seeds_needed(model, 0.1, points) for points in (8.0, 4.0, 2.0)]
    assert all(a is not None and b is not None and a < b for a, b in pairwise(counts))
    assert statistics.seeds_needed(model, 5.0) is None


def with_wild_acol(records: list[Record]) -> list[Record]:
    """The records, ACoL's of GT-known Loc 8 and 28 in turn."""

    def scores(repetition: int) -> dict[str, object]:
        return {"scores": score_rows({GT_KNOWN_LOC: 8 + 20.0 * (repetition % 2), SELECTION: 8})}

    return [r.model_copy(update=scores(r.run.repetition)) if r.run.method == "acol" else r for r in records]


def test_a_method_with_far_more_variance_is_named() -> None:
    study = a_study(5)
    records = made(study)
    assert notes.outlying(configurations.group(records)) == ""
    wild = with_wild_acol(records)
    found = configurations.group(wild)
    assert notes.outlying(found).endswith("other methods: acol on vgg_small")
    needs, without = (
        power.lines(each, [5.0], seeds=5)[0] for each in (wild, [r for r in records if r.run.method != "acol"])
    )
    assert needs == without.replace("4 methods", "5 methods")


def test_a_method_with_far_more_variance_has_its_own_and_widens_nobodys() -> None:
    study = a_study(5)
    records = made(study)
    wild = with_wild_acol(records)
    without = {each.method: each for each in configurations.group([r for r in records if r.run.method != "acol"])}
    found = {each.method: each for each in configurations.group(wild)}
    for name, each in without.items():
        assert configurations.interval(found[name], GT_KNOWN_LOC) == configurations.interval(each, GT_KNOWN_LOC)
    (acol, cam), key = (found["acol"], found["cam"]), GT_KNOWN_LOC
    model = acol.seed_variance(key)
    assert model is not None
    assert model.of_mean() == pytest.approx((np.var(acol.values(key), ddof=1), 4))
    # Other settings of it have no cell: they are as the one of its method.
    others = [with_settings(record, {"threshold": 0.5}) for record in acol.records]
    found_outlying = [acol.seed_design.is_outlying(each, key) for each in (acol.records, others, cam.records)]
    assert found_outlying == [True, True, False]
    difference = np.subtract(acol.values(key), cam.values(key))
    assert differences.difference_variance(acol, cam, key) == pytest.approx((np.var(difference, ddof=1), 4))


@pytest.mark.parametrize("wild", [[], [6], [2, 5]])
def test_methods_with_far_more_variance_do_not_hide_each_other(wild: list[int]) -> None:
    scores = np.random.default_rng(1).normal(40, 1, (8, 5))
    scores[wild] += np.random.default_rng(2).normal(0, 20, (len(wild), 5))
    assert seed_variance.outliers(scores) == wild
    scores[0, 4] = np.nan  # a run that failed
    assert seed_variance.outliers(scores) == wild


def test_equal_variances_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(0)
    found = [bool(seed_variance.outliers(rng.normal(size=(methods, 3)))) for methods in (8, 13) for _ in range(500)]
    assert np.mean(found) < 0.06


def test_a_line_for_each_backbone_and_difference() -> None:
    found = power.lines(made(a_study(5)), [2.0, 5.0], seeds=5)
    assert len(found) == 2
    assert found[0].startswith("vgg_small, by 5 seeds and")
    assert "a difference of 2 points in GT-known Loc needs" in found[0]


def test_one_seed_measures_no_variance_to_plan_with() -> None:
    assert power.lines(made(a_study(1)), [2.0], seeds=1) == []
