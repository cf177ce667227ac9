"""Reports of many records: nothing is done once a pair of configurations, and figures say what they leave out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import whole_record
from matplotlib import pyplot as plt

from eil.core import records
from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.core.records import Record
from eil.evaluation import seed_variance
from eil.report import configurations, figure_selection, results, score_figures, tables
from eil.study.study import Study, parse


@pytest.fixture
def grid(content: dict[str, Any]) -> tuple[Study, list[Record]]:
    content["methods"] = {"cam": {}, "eil": {"gamma": [0.1, 0.2, 0.3, 0.4], "sigma": [0.1, 0.2, 0.3, 0.4]}}
    study = parse(content | {"seeds": 2}, "x")
    rng = np.random.default_rng(0)
    return study, [whole_record(run, rng.normal(size=50), rng) for run in study.runs()]


def test_the_variance_of_a_grid_is_pooled_once_a_score(
    grid: tuple[Study, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, pool = list[tuple[int, ...]](), seed_variance.pool
    monkeypatch.setattr(seed_variance, "pool", lambda scores: calls.append(scores.shape) or pool(scores))
    study, found = grid
    assert "grid.csv" in tables.write(study, found, len(found), [])
    assert calls.count((16, 2)) < 10  # a score each, whatever the number of configurations
    assert len(calls) < 50


@pytest.mark.parametrize("holes", [0, 5])
def test_the_pooled_variance_is_that_of_the_whole_layout(holes: int) -> None:
    """Against least squares with a column for every configuration and every seed."""
    rng = np.random.default_rng(holes)
    scores = rng.normal(40, 4, (12, 4))
    scores.flat[rng.choice(scores.size, holes, replace=False)] = np.nan
    row, column = np.nonzero(np.isfinite(scores))
    found = scores[row, column]
    design = np.hstack([np.eye(12)[row], np.eye(4)[column]])
    fitted, _, rank, _ = np.linalg.lstsq(design, found, rcond=None)
    model = seed_variance.pool(scores)
    assert model is not None
    assert model.residual_df == len(found) - rank
    assert model.residual == pytest.approx(float(np.square(found - design @ fitted).sum()) / model.residual_df)
    assert (model.configurations, model.blocks_df) == (12, 3)


def test_a_record_is_small_in_memory_and_the_same_from_a_file(grid: tuple[Study, list[Record]], tmp_path: Path) -> None:
    record = grid[1][0]
    record.save(tmp_path / "record.json")
    read = records.read(tmp_path / "record.json")
    assert read == record
    values = read.replicates_of(GT_KNOWN_LOC)
    assert memoryview(values).nbytes == 50 * 8  # type: ignore[arg-type]
    assert not hasattr(read.scores[0], "__dict__")
    assert len(results.table([read, record])) == 2 * len(record.scores)


def test_figures_show_the_first_method_and_the_best_and_name_the_rest(grid: tuple[Study, list[Record]]) -> None:
    first, rng = grid[1][0], np.random.default_rng(1)
    runs = [first.run.model_copy(update={"method": f"m{k}"}) for k in range(30)]
    every = [whole_record(run, rng.normal(size=50), rng) for run in runs]
    best = configurations.chosen(configurations.group(every))
    shown, note = figure_selection.methods_shown(best)
    order = sorted(best[1:], key=figure_selection.rank, reverse=True)
    assert {each.method for each in shown} == {"m0", *(each.method for each in order[:11])}
    assert "the best 11 others (GT-known Loc on val, mean of the backbones); left out, in the main table: " in note
    assert note.endswith(" and 12 more")
    figure = figure_selection.with_note(lambda: score_figures.errors(shown), note)
    assert " ".join(figure.get_supxlabel().split()).endswith(note)
    plt.close(figure)
    assert figure_selection.methods_shown(best[:12]) == (best[:12], "")


def test_of_many_grids_the_best_are_drawn(grid: tuple[Study, list[Record]]) -> None:
    each = configurations.group(grid[1])[1:]
    shown, note = figure_selection.grids_shown({str(k): [each[k]] for k in range(10)}, "grids")
    assert set(shown) == {str(k) for k in sorted(range(10), key=lambda k: figure_selection.rank(each[k]))[2:]}
    assert note.startswith("the 8 of 10 grids with the best scores on val are drawn; left out: ")
