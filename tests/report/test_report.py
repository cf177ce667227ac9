"""Tables and figures from made-up records."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_records import made_record, score_rows
from matplotlib import pyplot as plt
from scipy import stats

from eil.core import provenance, records
from eil.core.files import InputError, write_arrays
from eil.core.metric_definitions import GT_KNOWN_LOC, MAIN, MAIN_ORACLE, SELECTION, ScoreKey
from eil.core.records import Record, Replicates, Score
from eil.evaluation import protocols, statistics
from eil.evaluation.errors import KINDS
from eil.execution import collect
from eil.report import (
    ablation,
    configurations,
    convergence,
    differences,
    figures,
    main_table,
    provenance_tables,
    published,
    results,
    score_figures,
    status,
    tables,
)
from eil.report.catalogue import FIGURES, TABLES, kind_of
from eil.report.figure_style import method_colors
from eil.report.notes import Notes
from eil.report.table import Number, Probability, Table, Value
from eil.study.study import Study, parse

SIZE = "object size 0-1 %"


def _identity(row: Score) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(row).items() if key != "value"}


@pytest.fixture
def study(content: dict[str, Any]) -> Study:
    content |= {"name": "made_up", "seeds": 3, "backbones": ["vgg_small", "resnet_small"]}
    content["methods"]["eil"] = {"gamma": [0.6, 0.8], "sigma": [0.5, 1.0]}
    return parse(content, "made_up.yaml")


@pytest.fixture
def made_up(study: Study) -> list[Record]:
    """EIL 0.8/1 is best on val and EIL 0.6/0.5 on test; CAM is 20 points behind."""
    found = []
    for k, run in enumerate(study.runs()):
        base = 40.0 if run.method == "cam" else 60.0
        val, test = base + 10 * run.settings.get("gamma", 0), base - 10 * run.settings.get("gamma", 0)
        noise = np.random.default_rng(k).normal()
        values = {key: test + noise + run.repetition for key in (*MAIN, *MAIN_ORACLE)} | {SELECTION: val}
        values |= {ScoreKey("threshold"): 90.0, ScoreKey("threshold", threshold_from="oracle"): 100.0}
        values |= {ScoreKey("part_coverage", part): 30.0 + k for part in ("body", "head")}
        curves = {"gt_known_loc": np.linspace(60, 5, 255).tolist()}
        history = {part: [2.0, *[1.0] * 5] for part in ("total", "unerased", "erased")} | {"val_top1": [0.5] * 6}
        fields: dict[str, Any] = {"curves": curves, "history": history, "provenance": {"images": 8}}
        found.append(made_record(run, score_rows(values), **fields))
    return found


@pytest.fixture
def resampled(made_up: list[Record]) -> list[Record]:
    """The same with all that an evaluation leaves: replicates, threshold sources, errors, sizes, another protocol."""
    shared = np.random.default_rng(9).normal(0, 2, 500)  # what the images have in common
    found = []
    for k, record in enumerate(made_up):
        names = ("map_loss", "threshold_loss", "px_ap", "pixel_iou")
        values = dict.fromkeys(map(ScoreKey, names), 40.0)
        values |= {ScoreKey("gt_known_loc", threshold_from=name): 40.0 for name in ("fixed", "otsu")}
        values |= {ScoreKey("box_kind", kind): 100 / len(KINDS) for kind in KINDS}
        values |= {ScoreKey("gt_known_loc", SIZE): 5.0, ScoreKey("images", SIZE): 8.0}
        values[ScoreKey("gt_known_loc", protocol="ts-cam", threshold_from="fixed")] = 7.0
        own = np.random.default_rng(k).normal(0, 0.5, 500)
        replicates = [
            Replicates(**_identity(row), values=(row.value + shared + own).round(3).tolist())
            for row in record.scores
            if any(record.value(key) is not None and row.identity == record._complete(key) for key in MAIN)
        ]
        update = {
            "scores": [*record.scores, *score_rows(values)],
            "replicates": replicates,
            "threshold_from": {"val-threshold": "val", "ts-cam": "fixed"},
        }
        found.append(record.model_copy(update=update))
    return found


def test_intervals_hold_images_and_seeds(study: Study, resampled: list[Record]) -> None:
    cam = configurations.group(resampled)[0]
    runs = np.array([record.replicates_of(GT_KNOWN_LOC) for record in cam.records])
    scores = np.array(cam.values(GT_KNOWN_LOC))
    mean, half = configurations.interval(cam, GT_KNOWN_LOC)
    assert mean == pytest.approx(scores.mean())
    centred = runs - runs.mean(axis=1, keepdims=True)
    shared = centred.mean(axis=0).var(ddof=1) - centred.var(axis=0, ddof=1).mean() / 3
    model = cam.seed_variance(GT_KNOWN_LOC)
    assert model is not None
    variance, df = model.of_mean()
    expected = np.hypot(1.96 * np.sqrt(shared), stats.t.ppf(0.975, df) * np.sqrt(variance / 3))
    assert half == pytest.approx(expected, rel=0.02)
    assert "over images (bootstrap" in tables.write(study, resampled, 30, [])["main.md"]


def test_a_column_whose_intervals_are_over_seeds_alone_is_named(study: Study, resampled: list[Record]) -> None:
    columns = ("GT-known Loc", "PxAP", "GT-known Loc (oracle)")
    with_px_ap, plain = (
        tables.write(each, resampled, 30, []) for each in (study.model_copy(update={"columns": columns}), study)
    )
    for table in ("main.md", "grid.md"):
        assert "where that shortens them; PxAP ↑: over seeds alone\n" in with_px_ap[table]
        assert "where that shortens them\n" in plain[table]


def test_what_images_share_does_not_hide_a_difference(resampled: list[Record]) -> None:
    own = {cell.label: cell for cell in configurations.group(resampled) if cell.backbone == "vgg_small"}
    a, b = own["cam"], own["eil (gamma=0.6, sigma=0.5)"]
    paired = differences.difference(b, a, GT_KNOWN_LOC)
    assert paired is not None
    assert paired.shape == (3, 500)
    mean, half = statistics.interval(paired)
    assert mean == pytest.approx(b.mean(GT_KNOWN_LOC) - a.mean(GT_KNOWN_LOC))
    assert half < np.hypot(configurations.interval(a, GT_KNOWN_LOC)[1], configurations.interval(b, GT_KNOWN_LOC)[1])


def test_bold_after_holms_correction(resampled: list[Record]) -> None:
    rivals = [cell for cell in configurations.group(resampled) if cell.backbone == "resnet_small"]
    winners = differences.as_good_as_the_best(rivals, GT_KNOWN_LOC)
    best = max(rivals, key=lambda cell: cell.mean(GT_KNOWN_LOC))
    rest = [cell for cell in rivals if cell is not best]
    compared = [differences.compared(best, cell, GT_KNOWN_LOC) for cell in rest]
    p = statistics.holm({str(k): d.p_value() for k, d in enumerate(compared) if d is not None})
    assert winners[0] is best
    assert winners[1:] == [cell for k, cell in enumerate(rest) if p[str(k)] > 0.05]
    chosen = configurations.chosen(rivals)  # CAM is 20 points behind; of five rivals Holm's correction asks for more
    assert [each.method for each in differences.as_good_as_the_best(chosen, GT_KNOWN_LOC)] == ["eil"]


def test_comparisons_say_how_sure_and_what_could_have_been_found(study: Study, resampled: list[Record]) -> None:
    table = tables.comparisons(study, configurations.chosen(configurations.group(resampled)), Notes())
    assert [row[:3] for row in table.rows] == [
        [backbone, "eil (gamma=0.8, sigma=0.5)", "cam"] for backbone in ("vgg_small", "resnet_small")
    ]
    for row in table.rows:
        difference, better, p, least = row[3:]
        assert isinstance(difference, Value)
        assert isinstance(better, Probability)
        assert isinstance(p, Probability)
        assert p.value < 0.05
        assert better.value > 0.97
        assert isinstance(least, Number)
        assert difference.half < least.value < 2 * difference.half
    unrounded = pd.read_csv(io.StringIO(table.csv()))
    assert unrounded["smallest detectable"].tolist() == pytest.approx([row[-1].value for row in table.rows], rel=1e-12)


def test_marginal_effects_average_the_others(study: Study, resampled: list[Record]) -> None:
    grouped = configurations.group(resampled)
    grid = next(iter(ablation.gamma_sigma_grids(grouped).values()))
    name, settings = next(iter(ablation.effects(grouped).items()))
    table = ablation.marginal(study, name, settings, Notes())
    assert [row[0] for row in table.rows] == ["γ = 0.6", "γ = 0.8", "σ = 0.5", "σ = 1"]
    expected = np.mean([cell.mean(GT_KNOWN_LOC) for cell in grid if cell.settings["gamma"] == 0.6])
    assert isinstance(table.rows[0][1], Value)
    assert table.rows[0][1].mean == pytest.approx(expected)
    other = np.mean([cell.mean(GT_KNOWN_LOC) for cell in grid if cell.settings["gamma"] == 0.8])
    change, score = table.rows[1][2], table.rows[1][1]
    assert isinstance(change, Value)
    assert isinstance(score, Value)
    assert change.mean == pytest.approx(other - expected)
    assert change.half < score.half  # what the images have in common does not count
    assert (table.rows[0][2], table.blocks) == ("–", [2])


def test_every_table_is_written_and_protocols_stand_side_by_side(study: Study, resampled: list[Record]) -> None:
    both = study.model_copy(update={"protocols": ("val-threshold", "ts-cam")})
    texts = tables.write(both, resampled, len(resampled), [])
    names = {"main", "grid", "threshold_sources", "errors", "sizes", "comparisons", "masks", "protocols"}
    written = {name.removesuffix(".md") for name in texts if name.endswith(".md")}
    assert names < written
    assert [name for name in written if kind_of(name, TABLES) is None] == []
    assert "| Backbone | Method | val-threshold | ts-cam | Seeds |" in texts["protocols.md"]
    assert "| 7.0 ± 0.0 |" in texts["protocols.md"]
    assert "protocols.md" not in tables.write(study, resampled, len(resampled), [])
    assert "0-1 % (n = 8)" in texts["sizes.md"]
    assert all(
        "smallest detectable difference in GT-known Loc" in text
        for name, text in texts.items()
        if ".md" in name and name != "settings.md"
    )


def test_a_table_never_mixes_protocols(study: Study, resampled: list[Record]) -> None:
    resampled[3] = resampled[3].model_copy(update={"protocol": "ts-cam"})
    with pytest.raises(InputError, match="records of protocol ts-cam, val-threshold: evaluate again"):
        tables.write(study, resampled, len(resampled), [])
    other = study.model_copy(update={"protocols": ("wsoleval-v2",)})
    with pytest.raises(InputError, match="records of protocol val-threshold: evaluate again"):
        tables.write(other, resampled[:3], 3, [])


def test_main_table_takes_settings_chosen_on_val(study: Study, made_up: list[Record]) -> None:
    table = main_table.main_table(study, configurations.group(made_up), Notes())
    assert [row[:2] for row in table.rows] == [
        ["vgg_small", "cam"],
        ["vgg_small", "eil (gamma=0.8, sigma=0.5)"],
        ["resnet_small", "cam"],
        ["resnet_small", "eil (gamma=0.8, sigma=0.5)"],
    ]
    assert "settings chosen on val by GT-known Loc: eil (gamma=0.8, sigma=0.5)" in table.notes.choice


@pytest.mark.parametrize("first", ["cam", "eil"])
def test_every_setting_is_compared_with_the_first_method_at_its_chosen_setting(
    study: Study, resampled: list[Record], first: str
) -> None:
    every = sorted(configurations.group(resampled), key=lambda each: (each.backbone, each.method != first))
    table = main_table.grid_table(study, every, Notes())
    change, p_value = table.header.index("Δ GT-known Loc"), table.header.index("p (Holm)")
    assert table.header[-1] == "Seeds"
    for backbone, group in configurations.by_backbone(every):
        base = next(each for each in configurations.chosen(group) if each.method == first)
        others = [each for each in group if each is not base]
        found = {each.marked_label: differences.compared(each, base, GT_KNOWN_LOC) for each in others}
        expected = statistics.holm({label: each.p_value() for label, each in found.items() if each})
        rows = {row[1]: row for row in table.rows if row[0] == backbone}
        assert rows.keys() == found.keys() | {base.marked_label}
        assert rows[base.marked_label][change] == rows[base.marked_label][p_value] == "–"
        for label, each in found.items():
            cell = rows[label][change]
            assert isinstance(cell, Value)
            assert each is not None
            assert (cell.mean, cell.half) == (each.mean, each.half_width())
            assert rows[label][p_value] == Probability(expected[label])


def test_controls_stand_below_the_methods_and_are_never_bold(study: Study, made_up: list[Record]) -> None:
    found = []
    for record in made_up:
        run = record.run.model_copy(update={"control": "oracle_box"})
        if run.method == "cam":
            scores = [dataclasses.replace(row, value=100.0) for row in record.scores]
            found.append(record.model_copy(update={"run": run, "key": run.key, "scores": scores, "curves": {}}))
    table = main_table.main_table(study, configurations.group([*found, *made_up]), Notes())
    assert [row[1] for row in table.rows] == 2 * ["cam", "eil (gamma=0.8, sigma=0.5)", "control: oracle box"]
    alone = main_table.main_table(study, configurations.group(made_up), Notes())
    metric = table.header.index("GT-known Loc ↑")
    bold = {row[1]: value.best for row in table.rows if isinstance(value := row[metric], Value)}
    assert bold == {"cam": False, "eil (gamma=0.8, sigma=0.5)": True, "control: oracle box": False}
    assert [row for row in table.rows if "control" not in str(row[1])] == list(alone.rows)
    assert "classification of cam" in table.notes.controls
    assert "| control" not in tables.write(study, [*found, *made_up], 30, [])["grid.md"]


def test_values_are_means_with_students_interval(study: Study, made_up: list[Record]) -> None:
    table = main_table.main_table(study, configurations.group(made_up), Notes())
    values = [r.value(GT_KNOWN_LOC) for r in made_up if r.run.name.startswith("vgg_small-cam")]
    model = configurations.group(made_up)[0].seed_variance(GT_KNOWN_LOC)
    assert model is not None
    variance, df = model.of_mean()
    low, high = stats.t.interval(0.95, df, np.mean(values), np.sqrt(variance / 3))
    value = table.rows[0][table.header.index("GT-known Loc ↑")]
    assert isinstance(value, Value)
    assert (value.mean - value.half, value.mean + value.half) == pytest.approx((low, high))
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert float(rows[0]["GT-known Loc ↑"]) == pytest.approx(np.mean(values))


def test_without_replicates_a_paired_t_test_over_seeds_decides(made_up: list[Record]) -> None:
    cam, *eils = (cell for cell in configurations.group(made_up) if cell.backbone == "vgg_small")
    winners = differences.as_good_as_the_best([cam, *eils], GT_KNOWN_LOC)
    best = winners[0]
    assert cam not in winners
    methods, grid = cam.seed_design.variance(GT_KNOWN_LOC), best.grid_design.variance(GT_KNOWN_LOC)
    assert methods is not None
    assert grid is not None
    assert (methods.residual_df, grid.residual_df) == (2, 6)  # two methods and four settings of EIL, three seeds
    p = {
        str(k): 2
        * stats.t.sf(
            (best.mean(GT_KNOWN_LOC) - cell.mean(GT_KNOWN_LOC)) / np.sqrt(2 * model.residual / 3), model.residual_df
        )
        for k, cell in enumerate([cam, *eils])
        for model in [methods if cell is cam else grid]
        if cell is not best
    }
    corrected = statistics.holm(p)
    assert [cell in winners for cell in eils if cell is not best] == [
        corrected[str(k)] > 0.05 for k, cell in enumerate([cam, *eils]) if cell is not best and cell is not cam
    ]


def test_one_seed_without_replicates_has_no_interval_and_tells_nothing(made_up: list[Record]) -> None:
    first = [cell for cell in configurations.group([r for r in made_up if r.run.repetition == 0])]
    mean, half = configurations.interval(first[0], ScoreKey("top1_loc"))
    assert np.isnan(half)
    assert str(Value(mean, half)) == f"{mean:.1f}"
    assert len(differences.as_good_as_the_best(first[:2], ScoreKey("top1_loc"))) == 2


def test_gamma_sigma_table_has_every_cell_at_its_place(study: Study, made_up: list[Record]) -> None:
    found = ablation.gamma_sigma_tables(study, configurations.group(made_up), Notes())
    assert list(found) == ["vgg_small_eil", "resnet_small_eil"]
    table = found["vgg_small_eil"]
    assert list(table.header) == ["γ", "σ = 0.5", "σ = 1"]
    assert [row[0] for row in table.rows] == ["0.6", "0.8"]
    values = [r.value(GT_KNOWN_LOC) for r in made_up if "vgg_small-eil-gamma0.8-sigma0.5" in r.run.name]
    assert table.rows[1][1].mean == pytest.approx(np.mean(values))  # type: ignore[union-attr]


def test_holes_are_shown_with_their_reason(study: Study, made_up: list[Record]) -> None:
    run = made_up[-1].run
    failed = Record(run=run, key=run.key, status="failed", error="NotFinite: at\n  step 3")
    texts = tables.write(study, [*made_up[:-2], failed], len(made_up), [])
    assert "2 runs are missing from this table" in texts["main.md"]
    assert "failed: resnet_small-eil-gamma0.8-sigma1-seed2: NotFinite: at step 3" in texts["main.md"]
    assert (
        "left out: x: because" in tables.write(study, made_up, len(study.runs()), ["left out: x: because"])["main.md"]
    )


def test_a_grid_with_a_missing_cell_has_a_dash(study: Study, made_up: list[Record]) -> None:
    some = [r for r in made_up if "vgg_small-eil-gamma0.8-sigma1" not in r.run.name]
    table = ablation.gamma_sigma_tables(study, configurations.group(some), Notes())["vgg_small_eil"]
    assert table.rows[1][2] == "–"
    assert "–" in table.markdown()
    frame = pd.read_csv(io.StringIO(table.csv()))
    assert list(frame) == ["γ", "σ = 0.5", "σ = 0.5 ±", "σ = 1", "σ = 1 ±"]
    assert np.isnan(frame["σ = 1"][1])
    assert frame["σ = 1"][0] == pytest.approx(table.rows[0][2].mean)  # type: ignore[union-attr]


def test_no_records_give_no_tables_and_no_error(study: Study, tmp_path: Path) -> None:
    assert tables.write(study, [], 0, []) == {}
    figures.write([], tmp_path, tmp_path)
    assert not list((tmp_path / "figures").iterdir())


def test_settings_in_effect_are_listed_with_where_they_hold(content: dict[str, Any]) -> None:
    content |= {"backbones": {"vgg_small": None, "resnet_small": {"recipe": {"epochs": 9}}}, "controls": ["gaussian"]}
    content["methods"] = {"cam": {"recipe": {"warmup": 2.0}}, "eil": {"gamma": [0.6, 0.8]}}
    content["recipe"] |= {"epochs": 3}
    study = parse(content, "made_up.yaml")
    rows = [tuple(row) for row in provenance_tables.settings(study, study.runs()).rows]
    assert {("recipe.epochs", "3", "vgg_small"), ("recipe.epochs", "9", "resnet_small")} <= set(rows)
    assert {("recipe.warmup", "2", "cam"), ("recipe.warmup", "0", "eil")} <= set(rows)
    assert {("eil.gamma", "0.6", "all"), ("eil.gamma", "0.8", "all")} <= set(rows)
    assert ("eil.gamma_mode", "relative", "all") in rows  # a default of the method's own
    assert not any("gaussian" in where for _, _, where in rows)
    content["backbones"]["vgg_small"] = {"methods": {"eil": {"gamma": [0.5]}}}
    study = parse(content, "made_up.yaml")
    rows = [tuple(row) for row in provenance_tables.settings(study, study.runs()).rows]
    assert {("eil.gamma", "0.5", "vgg_small"), ("eil.gamma", "0.6", "resnet_small")} <= set(rows)


def test_provenance_has_a_line_for_each_commit_and_machine(study: Study, made_up: list[Record]) -> None:
    def trained(record: Record, commit: str, gpu: dict[str, str] | None) -> Record:
        where = provenance.provenance() | {"commit": commit, "gpu": gpu, "peak_bytes": 2**21, "joules": 500.0}
        return record.model_copy(
            update={
                "training": {"seconds": 1800.0, "provenance": where},
                "provenance": {"images": 8, "data_sha256": "ab12"},
            }
        )

    gpu = {"name": "H200", "driver": "1.2", "cuda": "13"}
    rivals = [record for record in made_up if not record.run.control]
    found = [trained(record, "aaa", None) for record in rivals[:4]] + [trained(rivals[4], "bbb+", gpu)]
    table = provenance_tables.provenance(study, found)
    first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert (first["Trainings"], first["commit"], first["hours"], first["energy (kJ)"]) == ("4", "aaa", "2.00", "2.0")
    assert (second["Trainings"], second["device"]) == ("1", "H200, driver 1.2, CUDA 13")
    assert first["torch"] == version("torch")
    assert "ab12" in table.notes.other[-1]
    texts = tables.write(study, found, len(found), [])
    assert "bbb+" in texts["provenance.md"]
    assert "recipe.epochs" in texts["settings.html"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(study: Study, resampled: list[Record], tmp_path: Path) -> None:
    texts = tables.write(study, resampled, len(study.runs()), [r"a_b: 5 % & {more} ~ ^ \ $"])
    body = "".join(text for name, text in texts.items() if name.endswith(".tex"))
    (tmp_path / "t.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{body}\end{{document}}"
    )
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_latex_is_escaped_and_balanced(study: Study, resampled: list[Record]) -> None:
    for name, text in tables.write(study, resampled, len(study.runs()), [r"a_b: 5 % & {more} ~ ^ \ $"]).items():
        if name.endswith(".tex"):
            assert text.count("{") == text.count("}")
            assert text.isascii()
            assert r"vgg\_small" in text or r"$\gamma$" in text or r"batch\_size" in text
            columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
            assert all(row.count("&") == len(columns) - 1 for row in text.splitlines() if row.endswith(r"\\"))


def test_every_figure_is_drawn_as_png_and_svg(made_up: list[Record], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for record in made_up:
        extra_maps = (
            {} if record.run.method == "cam" else {"extra_erased map": rng.integers(0, 255, (4, 8, 8), np.uint8)}
        )
        arrays = {
            "ids": np.array(list("abcd")),
            "images": rng.integers(0, 255, (4, 8, 8, 3), np.uint8),
            "maps": rng.integers(0, 255, (4, 8, 8), np.uint8),
            "predicted": np.tile([1.0, 1, 5, 5], (4, 1)),
            "true": np.tile([2.0, 2, 6, 6], (4, 1)),
        }
        write_arrays(tmp_path / "runs" / record.run.name / "examples.npz", arrays | extra_maps)
    figures.write(made_up, tmp_path, tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = ["thresholds", "training", "val_accuracy", "part_coverage"]
    stems += [f"{kind}_{b}" for b in ("vgg_small", "resnet_small") for kind in ("examples", "extra_maps")]
    stems += [f"gamma_sigma_{b}_eil" for b in ("vgg_small", "resnet_small")]
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert [stem for stem in stems if kind_of(stem, FIGURES) is None] == []
    assert all(path.stat().st_size > 2000 for path in (tmp_path / "figures").iterdir())
    assert not plt.get_fignums()


def test_the_heat_map_shows_the_means(made_up: list[Record]) -> None:
    contestants = configurations.group(made_up)
    grid = next(iter(ablation.gamma_sigma_grids(contestants).values()))
    figure = score_figures.gamma_sigma(grid, contestants)
    assert figure.axes[0].get_title() == "eil on vgg_small"
    shown = [float(text.get_text().split("\n")[0]) for text in figure.axes[0].texts]
    assert shown == [round(float(np.mean(cell.values(GT_KNOWN_LOC))), 1) for cell in grid]
    plt.close(figure)


def test_only_records_of_the_present_settings_are_collected(
    study: Study, made_up: list[Record], tmp_path: Path
) -> None:
    for record in made_up[:3]:
        record.save(tmp_path / record.run.name / "record.json")
    stale = made_up[3].model_copy(update={"key": "other"})
    stale.save(tmp_path / stale.run.name / "record.json")
    failed = Record(run=made_up[4].run, key=made_up[4].key, status="failed", error="x")
    failed.save(tmp_path / failed.run.name / "failure.json")
    found = collect.collect(study.runs(), tmp_path)
    assert [record.run.name for record in found] == [record.run.name for record in [*made_up[:3], failed]]
    line = f"left out, made with different settings: 1 runs, first {stale.run.name}"
    assert collect.outdated(study.runs(), found, tmp_path) == [line]
    assert line in status.status(study.runs(), tmp_path, {})
    stale.model_copy(update={"key": stale.run.key}).save(tmp_path / stale.run.name / "record.json")
    assert collect.outdated(study.runs(), collect.collect(study.runs(), tmp_path), tmp_path) == []
    frame = results.table(found)
    assert frame.drop_duplicates("run")["status"].tolist() == ["done"] * 3 + ["failed"]
    assert frame["setting.gamma"].dropna().tolist() == [0.6]


def test_published_scores_are_as_their_schema_says(tmp_path: Path) -> None:
    rows = published.read()
    assert len(rows) > 150
    assert {row.protocol for row in rows} & set(protocols.read()) == {"wsoleval-v2"}
    bad = tmp_path / "p.csv"
    bad.write_text(
        "dataset,backbone,method,metric,value,protocol,source,status,layout,threshold\n"
        "CUB,vgg16,CAM,Top-1,163,x,y,read,wsoleval,test\n"
    )
    with pytest.raises(InputError, match=r"p\.csv:2: metric = 'Top-1'.*\n.*p\.csv:2: value = '163'"):
        published.read(bad)
    assert published.read(tmp_path / "none.csv") == ()


def test_published_scores_stand_beside_ours_where_all_agrees_and_nowhere_else(
    content: dict[str, Any], made_up: list[Record]
) -> None:
    content |= {
        "dataset": {"name": "cub"},
        "backbones": {"vgg16": {"pretrained": True}},
        "methods": {"cam": {"preset": "wsoleval-tuned", "layout": "wsoleval"}, "eil": {}},
        "recipe": {},
    }
    content["protocols"] = ["wsoleval-v2"]

    def main(**changes: Any) -> Table:
        study = parse(content | changes, "x")
        whole = {"images": 5794}  # of CUB's test images
        found = [
            made_up[0].model_copy(update={"run": run, "key": run.key, "provenance": whole}) for run in study.runs()
        ]
        return main_table.main_table(study, configurations.group(found), Notes())

    table = main()
    assert list(table.header[-2:]) == ["published MaxBoxAccV2", "Δ vs. published MaxBoxAccV2"]
    ours = made_up[0].value(ScoreKey("max_box_acc_v2"))
    assert list(table.rows[0][-2:]) == [Number(63.7), Number(ours - 63.7, signed=True)]
    assert list(table.rows[1][-2:]) == ["–", "–"]  # EIL's is not there
    assert "published MaxBoxAccV2: clovaai/wsolevaluation" in table.notes.published[-1]
    assert table.notes.published[-1].endswith("threshold chosen on test")
    assert table.notes.unequal == (
        "methods on vgg16 are trained unequally: epochs 50 (cam), 80 (eil); "  # 16 is VGG16's default stride
        "learning_rate 1.268269e-05 (cam), 0.001 (eil)",
    )
    tuned = {"preset": "wsoleval-tuned"}
    whole = tuned | {"layout": "wsoleval"}
    of_execution = {"compile": True, "devices": 2}
    assert "published MaxBoxAccV2" in main(methods={"cam": whole | {"recipe": of_execution}, "eil": {}}).header
    partly = [
        whole | {"recipe": {key: value}} for key, value in (("epochs", 9), ("flip", False), ("precision", "bf16"))
    ]
    for cam in (tuned, {"layout": "wsoleval"}, whole | {"network": {"head_dropout": 0.1}}, *partly):
        header = main(methods={"cam": cam, "eil": {}}).header
        assert header[-1] == "published, other network or recipe: MaxBoxAccV2"
        assert not [name for name in header if "published Max" in name]
    for weights in ("IMAGENET1K_V1", f"mine.pth@sha256:{'0' * 64}"):
        header = main(backbones={"vgg16": {"pretrained": weights}}).header
        assert ("published MaxBoxAccV2" in header) == (weights == "IMAGENET1K_V1"), weights
    scratch = {"backbones": ["vgg16"]}
    checkpoint = {"methods": {"cam": {"checkpoint": f"best.pth@sha256:{'0' * 64}"}}}
    for other in (
        {"backbones": {"vgg16": {"pretrained": True} | checkpoint}, "methods": {"cam": whole}},
        {"protocols": ["val-threshold"]},
        {"dataset": {"name": "birds"}},
        {"backbones": ["vgg_small"]},
        scratch,
    ):
        header = main(**{"methods": {"cam": {}, "eil": {}}} | other).header
        assert not [name for name in header if "published" in name or "network" in name]


def test_settings_of_several_types_fit_into_one_table(made_up: list[Record], tmp_path: Path) -> None:
    def with_(record: Record, **settings: Any) -> Record:
        return record.model_copy(update={"run": record.run.model_copy(update={"settings": settings})})

    found = [
        with_(made_up[0], at="pool3", sigma=1.0),
        with_(made_up[1], at=["pool3", "pool4"], sigma=[0.5, 1.0]),
        made_up[2],
    ]
    results.table(found).to_parquet(tmp_path / "r.parquet")
    frame = pd.read_parquet(tmp_path / "r.parquet")
    frame = frame.drop_duplicates("run")
    assert frame["setting.at"].fillna("").tolist() == ["pool3", "pool3+pool4", ""]
    assert frame["setting.sigma"].fillna("").tolist() == ["1", "0.5+1", ""]


def test_a_record_survives_json(made_up: list[Record], tmp_path: Path) -> None:
    made_up[0].save(tmp_path / "record.json")
    assert records.read(tmp_path / "record.json") == made_up[0]
    content = json.loads((tmp_path / "record.json").read_text())
    content["unknown"] = 1
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(records.InputError, match="not a record of version 2"):
        records.read(tmp_path / "record.json")


def test_a_dagger_marks_what_had_not_converged(study: Study, made_up: list[Record]) -> None:
    rising = [0.1 * k for k in range(6)]
    found = [
        record.model_copy(update={"history": record.history | {"val_top1": rising}})
        if record.run.method == "eil"
        else record
        for record in made_up
    ]
    table = main_table.main_table(study, configurations.group(found), Notes())
    assert [row[1] for row in table.rows] == 2 * ["cam", "eil (gamma=0.8, sigma=0.5) †"]
    assert table.notes.convergence == convergence.RULE
    assert r"eil (gamma=0.8, sigma=0.5) \dag{}" in table.latex()
    assert not main_table.main_table(study, configurations.group(made_up), Notes()).notes.convergence
    figure = dict(figures.of_scores(configurations.chosen(configurations.group(found))))["val_accuracy"]()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cam", "eil †"]
    plt.close(figure)


def test_every_installed_method_has_a_colour_of_its_own() -> None:
    colors = method_colors(["cam", "mine"])
    assert len(colors) == len(set(colors.values())) > 10
    assert len(method_colors([f"m{k}" for k in range(30)])) >= 30
