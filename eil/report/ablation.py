"""What a setting does: the mean score at each of its values, over all that is otherwise in the grid."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.core.records import settings_label
from eil.core.run import readable
from eil.evaluation import statistics
from eil.report.configurations import Cell, Floats, common_repetitions
from eil.report.figures import COLUMN, METRIC, about, caption, method_colors, within_percent
from eil.report.table import Table, Value
from eil.study.study import Study

SIGNS = {"gamma": "γ", "sigma": "σ"}


class Effect(NamedTuple):
    """A setting's value with the mean score of the cells that have it, and its difference from the first value's.

    Each score is a mean and half the width of its 95 % interval over images and seeds. The difference is of the same
    images and seeds, so it is told more sharply than the two scores; the first value has none. All values of a setting
    are compared over the same other settings and seeds: cells without a counterpart at each value are left out.
    """

    value: Any
    score: tuple[float, float]
    change: tuple[float, float] | None
    cells: int
    of: int
    seeds: int


def effects(cells: Sequence[Cell]) -> dict[str, dict[str, list[Effect]]]:
    """Of each method on each backbone, ``{backbone}_{method}``, the effect of every setting that has several values."""
    found: dict[str, dict[str, list[Effect]]] = {}
    for backbone, method in dict.fromkeys((cell.backbone, cell.method) for cell in cells):
        own = [cell for cell in cells if (cell.backbone, cell.method) == (backbone, method)]
        for setting in dict.fromkeys(key for cell in own for key in cell.settings):
            at = _effect([cell for cell in own if setting in cell.settings], setting)
            if len(at) > 1:
                found.setdefault(f"{backbone}_{method}", {})[setting] = at
    return found


def marginal(study: Study, name: str, found: dict[str, list[Effect]], notes: Sequence[str]) -> Table:
    """Mean GT-known Loc at each value of each setting, over the rest of the grid."""
    rows: list[list[str | Value]] = [
        [
            *(f"{SIGNS.get(setting, setting)} = {readable(each.value)}", Value(*each.score)),
            *(Value(*each.change) if each.change else "–", _counted(each, study.seeds)),
        ]
        for setting, at in found.items()
        for each in at
    ]
    blocks = list(itertools.accumulate(map(len, found.values())))[:-1]
    header = ["setting", "GT-known Loc ↑", "less the first value's", "cells"]
    more = "mean over the cells of the grid that have the value, and counterparts at the setting's other values; "
    more += "differences are of the same images and seeds"
    return Table(f"{study.name}: marginal effects, {name}", header, rows, [more, *notes], blocks)


def curves(name: str, found: dict[str, list[Effect]], cells: Sequence[Cell]) -> Figure:
    """A panel a setting: a curve over numbers, points over names."""
    drawn, panels = plt.subplots(
        1,
        len(found),
        figsize=(COLUMN * min(2, max(1, 0.6 * len(found))), 2.6),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    backbone, method = next((c.backbone, c.method) for c in cells if f"{c.backbone}_{c.method}" == name)
    color = method_colors([method])[method]
    for axes, (setting, at) in zip(panels[0], found.items(), strict=True):
        values = [each.value for each in at]
        means, halves = zip(*(each.score for each in at), strict=True)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        places = values if numbers else range(len(values))
        axes.errorbar(
            places, means, np.nan_to_num(halves), fmt="o-" if numbers else "o", ms=4, lw=1, capsize=2, color=color
        )
        axes.set(xlabel=SIGNS.get(setting, setting), xticks=places)
        axes.set_xticklabels([readable(value) for value in values])
        axes.margins(x=0.2 if numbers else 0.4)
    panels[0][0].set_ylabel("GT-known Loc (%)")
    within_percent(panels[0][0])
    drawn.suptitle(f"{method} on {backbone}", fontsize=8)
    own = [cell for cell in cells if (cell.backbone, cell.method) == (backbone, method)]
    what = "mean over the rest of the grid ± half-width of the 95 % interval (images and seeds)"
    caption(drawn, about(own, what, grid_of_settings=True))
    return drawn


def _effect(cells: Sequence[Cell], setting: str) -> list[Effect]:
    by_value: dict[str, dict[str, Cell]] = {}  # cells by the value, and by their other settings
    for cell in cells:
        rest = settings_label({key: value for key, value in cell.settings.items() if key != setting})
        by_value.setdefault(readable(cell.settings[setting]), {})[rest] = cell
    shared = set.intersection(*map(set, by_value.values()))
    compared = [[own[rest] for rest in own if rest in shared] for own in by_value.values()]
    if not shared or not (seeds := common_repetitions(itertools.chain(*compared))):
        return []
    found: list[tuple[Any, Floats, int]] = []  # a value, the mean replicates of its cells, how many cells have it
    for own, every in zip(compared, by_value.values(), strict=True):
        runs = [each for cell in own if (each := cell.replicates(METRIC, seeds)) is not None]
        if len(runs) == len(own) and len({each.shape for each in runs}) == 1:
            found.append((own[0].settings[setting], np.mean(runs, axis=0), len(every)))
    if all(isinstance(value, int | float) for value, *_ in found):
        found.sort(key=lambda each: each[0])
    return [
        Effect(
            value,
            statistics.interval(runs),
            _change(runs, found[0][1]) if k else None,
            cells=len(shared),
            of=count,
            seeds=len(seeds),
        )
        for k, (value, runs, count) in enumerate(found)
    ]


def _change(runs: Floats, first: Floats) -> tuple[float, float] | None:
    """Paired, where both have the same resamples."""
    return statistics.interval(runs - first) if runs.shape == first.shape else None


def _counted(effect: Effect, seeds: int) -> str:
    """How many cells, and what of them or of the study's seeds is left out."""
    cells = str(effect.cells) if effect.cells == effect.of else f"{effect.cells} of {effect.of}"
    return cells if effect.seeds == seeds else f"{cells}, {effect.seeds} of {seeds} seeds"
