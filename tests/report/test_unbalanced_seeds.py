"""Configurations whose seeds are missing, imported or far more variable than the others', each by hand."""

from typing import Any

import numpy as np
import pytest
from made_records import made_record, score_rows
from scipy import stats

from eil.core.metric_definitions import GT_KNOWN_LOC, SELECTION
from eil.core.records import Record, Replicates
from eil.core.run import ExtractorChoice
from eil.report import ablation, configurations, differences, main_table, notes, power
from eil.report.configurations import Configuration
from eil.report.notes import Notes
from eil.study.study import Study, parse

KEY = GT_KNOWN_LOC
SHARED = np.random.default_rng(0).normal(0, 1, 300)  # what the images do to all runs alike
Scores = dict[str, list[float | None]]  # the method's score with each seed, None where the run is missing


def a_study(methods: Any, seeds: int = 5) -> Study:
    return parse({"name": "holes", "dataset": {"name": "birds"}, "backbones": ["vgg_small"], "methods": methods,
                  "recipe": {"epochs": 1}, "seeds": seeds}, "holes.yaml")  # fmt: skip


def records_of(
    study: Study, scores: Scores, val: Scores | None = None, changed: dict[str, Any] | None = None
) -> list[Record]:
    """Records of a study's runs, by ``method`` or ``method gamma``."""
    found = []
    for run in study.runs():
        name = f"{run.method} {run.settings['gamma']:g}" if "gamma" in run.settings else run.method
        value = scores.get(name, [None] * 9)[run.repetition]
        if run.control or value is None:
            continue
        on_val = (val or scores)[name][run.repetition]
        noise = np.random.default_rng(len(found)).normal(0, 0.5, 300)
        values = Replicates(split="test", protocol="val-threshold", threshold_from="val", metric="gt_known_loc",
                            values=(value + SHARED + noise).tolist())  # fmt: skip
        rows = score_rows({KEY: value, SELECTION: on_val or 0.0})
        as_changed = run.model_copy(update=(changed or {}).get(name, {}))
        found.append(made_record(as_changed, rows, replicates=[values], provenance={"images": 250}))
    return found


def grouped(methods: Any, scores: Scores, **more: Any) -> dict[str, Configuration]:
    found = configurations.group(records_of(a_study(methods), scores, **more))
    return {f"{c.method} {c.settings['gamma']:g}" if "gamma" in c.settings else c.method: c for c in found}


def plain(scores: Scores) -> dict[str, Any]:
    return {name: {} for name in scores}


def four_methods(seed: int = 1) -> Scores:
    rng = np.random.default_rng(seed)
    return {
        name: list(rng.normal(mean, 3, 5)) for name, mean in [("cam", 50), ("has", 48), ("adl", 51), ("cutmix", 47)]
    }


def test_a_single_seed_takes_the_variance_of_the_pool() -> None:
    scores = four_methods()
    scores["adl"][1:] = [None] * 4
    found = grouped(plain(scores), scores)
    model = found["cam"].seed_design.variance(KEY)
    assert model is not None
    (_, alone), (_, five) = (configurations.interval(found[name], KEY) for name in ("adl", "cam"))
    variance, df = model.of_mean()
    assert alone > stats.t.ppf(0.975, df) * variance**0.5 > five
    pair = differences.compared(found["adl"], found["cam"], KEY)
    assert pair is not None
    assert (pair.se_seeds, pair.df) == pytest.approx(((2 * model.residual) ** 0.5, model.residual_df))
    assert pair.p_value() > 0.05


def test_one_seed_in_common_of_two_methods_tells_nothing() -> None:
    scores: Scores = {"cam": [40.0, 52, 47, 44, 50], "has": [60.0, None, None, None, None]}
    found = grouped({"cam": {}, "has": {}}, scores)
    assert differences.compared(found["has"], found["cam"], KEY) is None
    assert len(differences.as_good_as_the_best(list(found.values()), KEY)) == 2
    assert power.lines(records_of(a_study({"cam": {}, "has": {}}), scores), [2.0], 5) == []
    assert notes.detectable(list(found.values())) == ""


@pytest.mark.parametrize("replicated", [True, False])
def test_methods_without_a_seed_in_common_are_not_compared(replicated: bool) -> None:
    scores = four_methods()
    scores["adl"] = [*scores["adl"][:2], None, None, None]
    scores["has"] = [None, None, *scores["has"][2:]]
    study = a_study(plain(scores))
    records = records_of(study, scores)
    records = records if replicated else [each.model_copy(update={"replicates": []}) for each in records]
    found = {each.method: each for each in configurations.group(records)}
    adl, has = found["adl"], found["has"]
    assert differences.compared(adl, has, KEY) is None
    assert len(differences.as_good_as_the_best([adl, has], KEY)) == 2
    table = main_table.grid_table(study, [adl, has], Notes())
    assert [row[table.header.index("p (Holm)")] for row in table.rows] == ["–", "–"]


def test_an_imported_network_is_compared_with_every_seed_of_a_trained_one() -> None:
    scores: Scores = {"cam": [50.0, *[None] * 4], "eil": [56.9, 47.4, 49.5, 50.8, 52.3]}
    found = grouped({"cam": {}, "eil": {}}, scores, changed={"cam": {"checkpoint": "a.pth@sha256:0"}})
    cam, eil = found["cam"], found["eil"]
    pair = differences.compared(eil, cam, KEY)
    assert pair is not None
    assert pair.mean == pytest.approx(np.mean(scores["eil"]) - 50)  # type: ignore[arg-type]
    assert pair.se_seeds == pytest.approx(np.std(scores["eil"], ddof=1) / 5**0.5)  # type: ignore[arg-type]
    assert pair.p_value() > 0.3
    other = differences.compared(cam, eil, KEY)
    assert other is not None
    assert (other.mean, other.half_width()) == pytest.approx((-pair.mean, pair.half_width()))
    assert len(differences.as_good_as_the_best([cam, eil], KEY)) == 2


def test_what_is_better_on_the_seeds_in_common_stays_bold() -> None:
    scores: Scores = {"cam": [50.0, 51, 49, 80, 81], "has": [60.0, 61, 59, None, None], "adl": [30.0, 31, 30, 31, 30]}
    found = grouped(plain(scores), scores)
    pair = differences.compared(found["cam"], found["has"], KEY)
    assert pair is not None
    assert pair.mean == pytest.approx(-10)
    assert found["cam"].mean(KEY) > found["has"].mean(KEY)
    assert found["has"] in differences.as_good_as_the_best(list(found.values()), KEY)


def test_a_grid_does_not_stand_for_several_methods() -> None:
    rng, gammas = np.random.default_rng(3), [0.5, 0.6, 0.7, 0.8]
    scores: Scores = {"cam": list(rng.normal(50, 3, 5))} | {f"eil {g:g}": list(rng.normal(50, 1, 5)) for g in gammas}
    found = grouped({"cam": {}, "eil": {"gamma": gammas}}, scores)
    best = max(gammas, key=lambda g: np.mean(scores[f"eil {g:g}"]))  # type: ignore[arg-type]
    pair = differences.compared(found[f"eil {best:g}"], found["cam"], KEY)
    own = np.subtract(scores[f"eil {best:g}"], scores["cam"])  # type: ignore[arg-type]
    assert pair is not None
    assert (pair.se_seeds, pair.df) == pytest.approx((np.std(own, ddof=1) / 5**0.5, 4))
    grid = differences.difference_variance(found["eil 0.5"], found["eil 0.6"], KEY)
    assert grid is not None
    assert grid[1] == 12  # four settings of one method, five seeds


def test_a_setting_or_map_that_varies_far_more_has_its_own_variance() -> None:
    scores = four_methods() | {"eil 0.5": [52.0, 53, 51, 52, 54], "eil 0.9": [60.0, 59, 20, 61, 58]}
    methods = {**plain(four_methods()), "eil": {"gamma": [0.5, 0.9]}}
    found = grouped(methods, scores)
    for name, outlying in (("eil 0.5", False), ("eil 0.9", True), ("cam", False)):
        assert found[name].seed_design.is_outlying(found[name].records, KEY) == outlying
    model = found["eil 0.9"].seed_variance(KEY)
    assert model is not None
    assert model.of_mean() == pytest.approx((np.var(scores["eil 0.9"], ddof=1), 4))  # type: ignore[arg-type]
    as_map = {"eil 0.5": {"extractor": ExtractorChoice(name="layercam")}}
    extracted = records_of(a_study(methods), scores, changed=as_map)
    (each,) = [c for c in configurations.group(extracted) if c.extractor]
    own = each.seed_variance(KEY)
    assert own is not None
    assert own.of_mean()[0] == pytest.approx(np.var(scores["eil 0.5"], ddof=1))  # type: ignore[arg-type]


def test_effects_do_not_depend_on_the_order_of_records() -> None:
    rng, gammas = np.random.default_rng(3), [0.5, 0.6, 0.7]
    scores = four_methods() | {f"eil {g:g}": list(rng.normal(50, 12, 5)) for g in gammas}
    records = records_of(a_study({**plain(four_methods()), "eil": {"gamma": gammas}}), scores)
    forth, back = (ablation.effects(configurations.group(each)) for each in (records, records[::-1]))
    assert forth == back
    (row, *_) = forth["vgg_small_eil"]["gamma"]
    variance = configurations.group(records)[-1].grid_design.variance(KEY)
    assert variance is not None
    per_seed, df = variance.of_mean()
    assert row.score[1] >= stats.t.ppf(0.975, df) * (per_seed / 5) ** 0.5 * 0.99


def test_settings_are_chosen_by_the_seeds_that_they_have_in_common() -> None:
    scores: Scores = {"cam": [50.0] * 5, "eil 0.5": [50.0, 50, None], "eil 0.7": [None, 50.0, 50], "eil 0.9": [50.0]}
    scores = {name: [*each, *[None] * (5 - len(each))] for name, each in scores.items()}
    val = scores | {"eil 0.5": [70.0, 50], "eil 0.7": [None, 55.0, 63], "eil 0.9": [99.0]}
    study = a_study({"cam": {}, "eil": {"gamma": [0.5, 0.7, 0.9]}})
    found = configurations.group(records_of(study, scores, val))
    best = next(each for each in configurations.chosen(found) if each.method == "eil")
    assert best.settings["gamma"] == 0.7
    choice = main_table.main_table(study, found, Notes()).notes.choice
    assert choice.endswith("(not chosen from all: eil on vgg_small: 1 of 3 settings lack seeds)")
