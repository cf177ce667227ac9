"""Tables and figures from made-up records."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from eil import records
from eil.files import write_arrays
from eil.records import Record
from eil.report import cells, figures, tables
from eil.study import Study, parse


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
        metrics = {metric: test + noise + run.repetition for metric in tables.MAIN.values()}
        metrics |= {"val.val.gt_known_loc": val, "threshold.val": 90.0, "threshold.oracle": 100.0}
        metrics |= {f"coverage.{part}": 30.0 + k for part in ("body", "head")}
        curves = {"gt_known_loc": np.linspace(60, 5, 255).tolist()}
        curves |= {f"history.{part}": [2.0, 1.0] for part in ("total", "unerased", "erased")}
        record = Record(run=run, key=run.key, status="done", metrics=metrics, curves=curves, provenance={"images": 8})
        found.append(record)
    return found


def test_main_table_takes_settings_chosen_on_val(study: Study, made_up: list[Record]) -> None:
    table = tables.main_table(study, cells.group(made_up), [])
    assert [row[:2] for row in table.rows] == [
        ["vgg_small", "cam"],
        ["vgg_small", "eil (gamma=0.8, sigma=0.5)"],
        ["resnet_small", "cam"],
        ["resnet_small", "eil (gamma=0.8, sigma=0.5)"],
    ]
    assert "settings chosen on val by GT-known Loc: eil (gamma=0.8, sigma=0.5)" in table.notes[-1]


def test_controls_stand_below_the_methods_and_are_never_bold(study: Study, made_up: list[Record]) -> None:
    found = []
    for record in made_up:
        run = record.run.model_copy(update={"control": "oracle_box"})
        if run.method == "cam":
            metrics = dict.fromkeys(record.metrics, 100.0)
            found.append(record.model_copy(update={"run": run, "key": run.key, "metrics": metrics, "curves": {}}))
    table = tables.main_table(study, cells.group([*found, *made_up]), [])
    assert [row[1] for row in table.rows] == 2 * ["cam", "eil (gamma=0.8, sigma=0.5)", "control: oracle box"]
    alone = tables.main_table(study, cells.group(made_up), [])
    metric = table.header.index("GT-known Loc ↑")
    bold = {row[1]: value.best for row in table.rows if isinstance(value := row[metric], tables.Value)}
    assert bold == {"cam": False, "eil (gamma=0.8, sigma=0.5)": True, "control: oracle box": False}
    assert [row for row in table.rows if "control" not in str(row[1])] == list(alone.rows)
    assert "classification of cam" in table.notes[-1]
    assert "| control" not in tables.write(study, [*found, *made_up], 30, [])["grid.md"]


def test_values_are_means_with_students_interval(study: Study, made_up: list[Record]) -> None:
    table = tables.main_table(study, cells.group(made_up), [])
    metric = "test.val.gt_known_loc"
    values = [r.metrics[metric] for r in made_up if r.run.name.startswith("vgg_small-cam")]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    value = table.rows[0][table.header.index("GT-known Loc ↑")]
    assert isinstance(value, tables.Value)
    assert (value.mean - value.half, value.mean + value.half) == pytest.approx((low, high))
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert float(rows[0]["GT-known Loc ↑"]) == pytest.approx(np.mean(values))


def test_bold_is_the_best_and_what_cannot_be_told_from_it(study: Study, made_up: list[Record]) -> None:
    contestants = cells.group(made_up)
    cam, *eils = (cell for cell in contestants if cell.backbone == "vgg_small")
    metric = "test.val.gt_known_loc"
    best = max(eils, key=lambda cell: np.mean(cell.values(metric)))
    assert cells.as_good(best, best, metric)
    assert not cells.as_good(cam, best, metric)
    for cell in eils:
        difference = np.subtract(best.values(metric), cell.values(metric))
        if cell is not best:
            assert cells.as_good(cell, best, metric) == (stats.ttest_1samp(difference, 0).pvalue > 0.05)


def test_one_seed_has_no_interval_and_no_rival_is_its_equal(made_up: list[Record]) -> None:
    first = [
        cell for cell in cells.group([r for r in made_up if r.run.repetition == 0]) if cell.backbone == "vgg_small"
    ]
    mean, half = cells.interval(first[0].values("test.val.top1_loc"))
    assert np.isnan(half)
    assert tables._markdown(tables.Value(mean, half)) == f"{mean:.1f}"
    assert not cells.as_good(first[0], first[1], "test.val.top1_loc")


def test_gamma_sigma_table_has_every_cell_at_its_place(study: Study, made_up: list[Record]) -> None:
    found = tables.gamma_sigma_tables(study, cells.group(made_up), [])
    assert list(found) == ["vgg_small_eil", "resnet_small_eil"]
    table = found["vgg_small_eil"]
    assert list(table.header) == ["γ", "σ = 0.5", "σ = 1"]
    assert [row[0] for row in table.rows] == ["0.6", "0.8"]
    values = [r.metrics["test.val.gt_known_loc"] for r in made_up if "vgg_small-eil-gamma0.8-sigma0.5" in r.run.name]
    assert table.rows[1][1].mean == pytest.approx(np.mean(values))  # type: ignore[union-attr]


def test_holes_are_shown_with_their_reason(study: Study, made_up: list[Record]) -> None:
    run = made_up[-1].run
    failed = Record(run=run, key=run.key, status="failed", error="NotFinite: at step 3")
    texts = tables.write(study, [*made_up[:-2], failed], len(made_up), [])
    assert "2 runs are missing from this table" in texts["main.md"]
    assert "failed: resnet_small-eil-gamma0.8-sigma1-seed2: NotFinite: at step 3" in texts["main.md"]
    assert "left out: x: because" in tables.write(study, made_up, len(study.runs()), ["x: because"])["main.md"]


def test_a_grid_with_a_missing_cell_has_a_dash(study: Study, made_up: list[Record]) -> None:
    some = [r for r in made_up if "vgg_small-eil-gamma0.8-sigma1" not in r.run.name]
    table = tables.gamma_sigma_tables(study, cells.group(some), [])["vgg_small_eil"]
    assert table.rows[1][2] == "–"
    assert "–" in table.markdown()


def test_no_records_give_no_tables_and_no_error(study: Study, tmp_path: Path) -> None:
    assert tables.write(study, [], 0, []) == {}
    figures.write([], tmp_path)
    assert not list((tmp_path / "figures").iterdir())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(study: Study, made_up: list[Record], tmp_path: Path) -> None:
    texts = tables.write(study, made_up, len(study.runs()), [])
    body = "".join(text for name, text in texts.items() if name.endswith(".tex"))
    (tmp_path / "t.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_latex_is_escaped_and_balanced(study: Study, made_up: list[Record]) -> None:
    for name, text in tables.write(study, made_up, len(study.runs()), ["a_b: 5 % & more"]).items():
        if name.endswith(".tex"):
            assert text.count("{") == text.count("}")
            assert r"vgg\_small" in text or r"$\gamma$" in text
            columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
            assert all(row.count("&") == len(columns) - 1 for row in text.splitlines() if row.endswith(r"\\"))


def test_every_figure_is_drawn_as_png_and_svg(made_up: list[Record], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for record in made_up:
        views = {} if record.run.method == "cam" else {"view_erased map": rng.integers(0, 255, (4, 8, 8), np.uint8)}
        arrays = {
            "ids": np.array(list("abcd")),
            "images": rng.integers(0, 255, (4, 8, 8, 3), np.uint8),
            "maps": rng.integers(0, 255, (4, 8, 8), np.uint8),
            "predicted": np.tile([1.0, 1, 5, 5], (4, 1)),
            "true": np.tile([2.0, 2, 6, 6], (4, 1)),
        }
        write_arrays(tmp_path / "runs" / record.run.name / "examples.npz", arrays | views)
    figures.write(made_up, tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = ["thresholds", "training", "part_coverage"]
    stems += [f"{kind}_{b}" for b in ("vgg_small", "resnet_small") for kind in ("examples", "views")]
    stems += [f"gamma_sigma_{b}_eil" for b in ("vgg_small", "resnet_small")]
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert all(path.stat().st_size > 2000 for path in (tmp_path / "figures").iterdir())
    assert not plt.get_fignums()


def test_the_heat_map_shows_the_means(made_up: list[Record]) -> None:
    contestants = cells.group(made_up)
    name, grid = next(iter(tables.gamma_sigma_grids(contestants).items()))
    figure = figures.gamma_sigma(name, grid, contestants)
    shown = [float(text.get_text().split("\n")[0]) for text in figure.axes[0].texts]
    assert shown == [round(float(np.mean(cell.values(figures.METRIC))), 1) for cell in grid]
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
    found = records.collect(study.runs(), tmp_path)
    assert [record.run.name for record in found] == [record.run.name for record in [*made_up[:3], failed]]
    frame = records.table(found)
    assert frame["status"].tolist() == ["done"] * 3 + ["failed"]
    assert frame["setting.gamma"].dropna().tolist() == [0.6]


def test_a_record_survives_json(made_up: list[Record], tmp_path: Path) -> None:
    made_up[0].save(tmp_path / "record.json")
    assert records.read(tmp_path / "record.json") == made_up[0]
    content = json.loads((tmp_path / "record.json").read_text())
    content["unknown"] = 1
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(records.InputError, match="not a record of this version"):
        records.read(tmp_path / "record.json")
