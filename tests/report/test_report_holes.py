"""What a report must not do when records are missing, tied, or of other settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import made_record, score_rows
from matplotlib import pyplot as plt

from eil.core.files import InputError
from eil.core.metric_definitions import GT_KNOWN_LOC, SELECTION, TOP1_CLS, ScoreKey
from eil.core.records import Record, Replicates
from eil.execution import collect
from eil.report import (
    ablation,
    compare,
    configurations,
    differences,
    example_figures,
    figures,
    notes,
    results,
    score_figures,
    status,
    tables,
)
from eil.report.notes import Notes
from eil.study.study import parse


def scored(
    settings: dict[str, Any], repetition: int, hits: float = 50.0, images: int = 200, method: str = "eil", **more: Any
) -> Record:
    """A record whose own GT-known Loc is ``hits`` percent, with replicates on the grid that so many images allow."""
    content = {
        "name": "s",
        "dataset": {"name": "birds"},
        "methods": {method: settings},
        "backbones": ["vgg_small"],
        "seeds": 9,
    }
    run = parse(content, "s").runs()[repetition]
    drawn = np.random.default_rng([0, images]).binomial(images, hits / 100, 300)  # the same images for each
    scores = score_rows({GT_KNOWN_LOC: hits, SELECTION: hits})
    fields = {"provenance": {"images": images}, "replicates": resampled((100 * drawn / images).tolist())}
    return made_record(run, scores, **fields | more)


def resampled(values: list[float]) -> list[Replicates]:
    """Replicates of the own GT-known Loc."""
    return [
        Replicates(split="test", protocol="val-threshold", threshold_from="val", metric="gt_known_loc", values=values),
    ]


def test_the_figure_shows_the_probability_of_the_tables() -> None:
    found = [scored({"gamma": 0.5}, seed, 40 + seed) for seed in range(3)]
    found += [scored({"gamma": 0.7}, seed, 50 + 2 * seed) for seed in range(3)]
    b, a = grouped = configurations.group(found)
    estimate = differences.compared(a, b, GT_KNOWN_LOC)
    assert estimate is not None
    figure = score_figures.improvement(grouped)
    shown = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    better = estimate.probability_of_improvement()
    assert f"{better:.2f}*" in shown
    assert f"{1 - better:.2f}*" in shown
    assert estimate.p_value() == pytest.approx(2 * (1 - better))


def test_marginal_effects_are_of_the_seeds_that_all_values_have() -> None:
    levels = {0: 10.0, 1: 20.0, 2: 90.0}  # by seed alone: gamma does nothing
    found = [scored({"gamma": 0.5}, seed, levels[seed]) for seed in (0, 1)]
    found += [scored({"gamma": 0.7}, seed, levels[seed]) for seed in (1, 2)]
    low, high = ablation.effects(configurations.group(found))["vgg_small_eil"]["gamma"]
    assert low.score[0] == high.score[0] == 20.0
    assert high.change == (0.0, 0.0)
    assert (low.seeds, low.configurations, low.with_value) == (1, 1, 1)


def test_marginal_effects_are_of_cells_that_have_counterparts() -> None:
    scores = {0.5: 10.0, 1.0: 60.0}  # sigma does all, gamma nothing
    grid = [(0.5, 0.5), (0.5, 1.0), (0.7, 0.5)]
    found = [scored({"gamma": g, "sigma": s}, seed, scores[s]) for g, s in grid for seed in range(2)]
    effects = ablation.effects(configurations.group(found))["vgg_small_eil"]
    assert [each.change and each.change[0] for each in effects["gamma"]] == [None, 0.0]
    assert [(each.configurations, each.with_value) for each in effects["gamma"]] == [(1, 2), (1, 1)]
    study = parse(
        {"name": "s", "dataset": {"name": "birds"}, "methods": {"eil": {}}, "backbones": ["vgg_small"], "seeds": 3}, "s"
    )
    counts = [row[-1] for row in ablation.marginal(study, "x", {"gamma": effects["gamma"]}, Notes()).rows]
    assert counts == ["1 of 2, 2 of 3 seeds", "1, 2 of 3 seeds"]


def test_settings_are_chosen_among_those_that_have_all_seeds() -> None:
    found = [scored({"gamma": 0.5}, seed, hits) for seed, hits in enumerate((60.0, 61.0, 65.0))]
    found += [scored({"gamma": 0.7}, 2, 64.0)]
    (best,) = configurations.chosen(configurations.group(found))
    assert best.settings == {"gamma": 0.5}


def test_one_seed_without_resamples_tells_nothing_apart() -> None:
    found = [scored({}, 0, 60.0, method=name, replicates=[]) for name in ("cam", "eil")]
    assert len(differences.as_good_as_the_best(configurations.group(found), GT_KNOWN_LOC)) == 2


def test_a_training_that_learnt_nothing_is_named_though_its_loss_had_stopped_falling() -> None:
    history = {"total": [2.4, 31.0, 3.6, 2.3, 2.3, 2.3], "val_top1": [0.6, 0.2, 0.2, 0.2, 0.2, 0.2]}
    found = [
        made_record(scored({}, seed).run, score_rows({GT_KNOWN_LOC: 50, SELECTION: 50, TOP1_CLS: value}),
                    history=history, provenance={"images": 200})
        for seed, value in enumerate((94.0, 47.5, 95.0, 20.0))
    ]  # fmt: skip
    study = parse({"name": "s", "dataset": {"name": "birds"}, "methods": {"eil": {}}, "backbones": ["vgg_small"]}, "s")
    assert configurations.group(found)[0].converged
    (line,) = notes.of_study(study, found, 4, []).collapsed
    assert line.startswith("vgg_small-eil-seed3 classifies 20.0 % correctly, the best run on vgg_small 95.0 %: ")
    assert not notes.of_study(study, found[:3], 4, []).collapsed
    of_a_control = found[3].model_copy(update={"run": found[3].run.model_copy(update={"control": "gaussian"})})
    assert not notes.of_study(study, [*found[:3], of_a_control], 4, []).collapsed


@pytest.mark.parametrize(
    ("values", "classes", "named"),
    [
        ((94.0, 55.0, 61.0), 5, [55.0]),  # guessing has 20 %: 55 is 0.44 of the way to 100, 94 is 0.93
        ((94.0, 20.0, 19.0), 5, [20.0, 19.0]),  # most of them
        ((21.0, 23.9, 24.1), 5, [21.0, 23.9]),  # all but one
        ((20.0, 19.0, 21.0), 5, [20.0, 19.0, 21.0]),  # all
        ((0.1, 4.0, 40.0), 1000, [0.1, 4.0]),
        ((55.0, 80.0, 85.0), 2, [55.0]),
        ((100.0, 100.0, 100.0), 1, []),
    ],
)
def test_trainings_are_named_that_hardly_classify_better_than_guessing(
    values: tuple[float, ...], classes: int, named: list[float]
) -> None:
    found = [
        made_record(scored({}, seed).run, score_rows({GT_KNOWN_LOC: 50, SELECTION: 50, TOP1_CLS: value}),
                    provenance={"images": 200, "classes": classes})
        for seed, value in enumerate(values)
    ]  # fmt: skip
    study = parse({"name": "s", "dataset": {"name": "birds"}, "methods": {"eil": {}}, "backbones": ["vgg_small"]}, "s")
    lines = notes.of_study(study, found, 4, []).collapsed
    assert [float(line.split(" classifies ")[1].split(" %")[0]) for line in lines] == named


def test_compare_takes_settings_in_any_order_and_one_protocol_alone() -> None:
    ours, theirs = scored({"gamma": 0.5, "sigma": 1.0}, 0), scored({"sigma": 1.0, "gamma": 0.5}, 0)
    assert len(compare.compare([ours], [theirs], ("a", "b")).rows) == 1
    with pytest.raises(InputError, match="a and b are scored by val-threshold and wsoleval-v2"):
        compare.compare([ours], [theirs.model_copy(update={"protocol": "wsoleval-v2"})], ("a", "b"))
    recipe = theirs.run.recipe.model_copy(update={"epochs": 99})
    longer = theirs.model_copy(update={"run": theirs.run.model_copy(update={"recipe": recipe})})
    notes = compare.compare([ours], [longer], ("a", "b")).notes.lines()
    assert f"trained with different settings: epochs {ours.run.recipe.epochs} and 99" in notes


def test_captions_tell_the_seed_and_the_threshold_that_are_shown() -> None:
    (cell,) = configurations.group(
        [scored({"gamma": 0.5}, 2, protocol="wsoleval-v2", threshold_from={"wsoleval-v2": "oracle"})]
    )
    shown = {"ids": np.array(["a"]), "images": np.zeros((1, 8, 8, 3), np.uint8), "maps": np.zeros((1, 8, 8), np.uint8)}
    shown |= dict.fromkeys(("true", "predicted"), np.array([[0, 0, 4, 4]]))
    figure = example_figures.qualitative({cell: shown})
    text = figure.get_supxlabel().replace("\n", " ")
    plt.close(figure)
    assert "vgg_small, seed 2:" in text
    assert "(threshold chosen on test)" in text


def test_curves_of_the_longest_training_are_shown_whole() -> None:
    lengths = {"cam": 2, "eil": 20}
    found = [scored({}, 0, method=name, history={"total": [1.0] * epochs}) for name, epochs in lengths.items()]
    figure = score_figures.training_curves(configurations.group(found))
    assert figure.axes[0].get_xlim()[1] >= 20
    plt.close(figure)


def test_a_protocol_that_half_the_records_lack_is_no_panel() -> None:
    first = scored({}, 0, method="cam")
    further = score_rows({ScoreKey("gt_known_loc", protocol="ts-cam", threshold_from="fixed"): 5.0})
    both = {"val-threshold": "val", "ts-cam": "fixed"}
    first = first.model_copy(update={"scores": [*first.scores, *further], "threshold_from": both})
    found = [first, scored({"gamma": 0.5}, 0)]
    assert "protocols" not in dict(figures.of_scores(configurations.group(found)))
    assert "protocols" in dict(figures.of_scores(configurations.group(found[:1])))


def test_failures_are_a_table_even_if_nothing_else_is() -> None:
    done = scored({}, 0)
    failed = Record(run=done.run, key=done.key, status="failed", step="train", error="NotFinite: at\n step 3")
    study = parse({"name": "s", "dataset": {"name": "birds"}, "methods": {"eil": {}}, "backbones": ["vgg_small"]}, "s")
    texts = tables.write(study, [failed], 3, [])
    assert {name.split(".")[0] for name in texts} == {"failures"}
    assert "| vgg_small-eil-seed0 | train | NotFinite: at step 3 |" in texts["failures.md"]


def test_columns_of_several_kinds_are_kept_as_text(tmp_path: Path) -> None:
    content = {"name": "s", "dataset": {"name": "birds"}, "methods": {"cam": {}}, "seeds": 1}
    content["backbones"] = {"vgg_small": {}, "resnet50": {"pretrained": True}, "vgg16": {"pretrained": "v1"}}
    runs = [run for run in parse(content, "s").runs() if not run.control]
    found = [Record(run=run, key=run.key, status="failed") for run in runs]
    mixed = [
        run.model_copy(update={"settings": {"rate": value}}) for run, value in zip(runs, (True, 1.5), strict=False)
    ]
    found += [Record(run=run, key=run.key, status="failed") for run in mixed]
    frame = results.table(found)
    frame.to_parquet(tmp_path / "records.parquet")
    assert frame["pretrained"].tolist()[:3] == ["False", "True", "v1"]
    assert frame["setting.rate"].dropna().tolist() == ["True", "1.5"]


def test_what_makes_no_sense_is_neither_to_do_nor_whose_network_controls_take(tmp_path: Path) -> None:
    methods = {"eil": {"at": ["block1", "head"], "attention": ["mean"]}, "cam": {}}
    content = {
        "name": "s",
        "dataset": {"name": "birds"},
        "backbones": ["efficientnet_lite0"],
        "methods": methods,
        "controls": ["full_image"],
    }
    study = parse(content | {"seeds": 1}, "s")
    runs, dropped = study.expand("s")
    assert dropped
    assert [study.find_run(run.name) for run in runs] == runs
    assert status.status(runs, tmp_path, {})[0].endswith(f"{len(runs)} to do")
    assert collect.collect(runs, tmp_path) == []


def test_a_table_says_what_pretrained_weights_have_seen() -> None:
    record = scored({}, 0)
    named = [(name, pretrained) for name in ("vgg_small", "resnet_small", "vgg16") for pretrained in (True, False)]
    found = [
        record.model_copy(update={"run": record.run.model_copy(update={"backbone": name, "pretrained": pretrained})})
        for name, pretrained in named
    ]
    assert notes._pretrained(found) == (
        "resnet_small, vgg_small: pretrained on drawn birds of kinds 6 to 10, with their labels; "
        "vgg16: pretrained on ImageNet, with the labels of its 1,000 classes"
    )
    assert notes._pretrained(found[1::2]) == ""
