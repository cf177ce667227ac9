"""What a setting does: the mean score at each of its values, over all that is otherwise in the grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.evaluation import statistics
from eil.report.cells import Cell
from eil.report.figures import COLUMN, METRIC, about, caption, method_colors, within_percent
from eil.report.layout import Table, Value
from eil.run import readable
from eil.study import Study

SIGNS = {"gamma": "γ", "sigma": "σ"}
Effect = tuple[Any, float, float, int]  # a value, its mean score, half its interval, how many cells


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
        [f"{SIGNS.get(setting, setting)} = {readable(value)}", Value(mean, half), str(count)]
        for setting, at in found.items()
        for value, mean, half, count in at
    ]
    header = ["setting", "GT-known Loc ↑", "cells"]
    return Table(f"{study.name}: marginal effects of {name.replace('_', ' ')}", header, rows, notes)


def curves(name: str, found: dict[str, list[Effect]], cells: Sequence[Cell]) -> Figure:
    """A panel a setting: a curve over numbers, points over names."""
    drawn, panels = plt.subplots(
        1,
        len(found),
        figsize=(COLUMN * max(1, 0.75 * len(found)), 2.6),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    backbone, method = next((c.backbone, c.method) for c in cells if f"{c.backbone}_{c.method}" == name)
    color = method_colors([method])[method]
    for axes, (setting, at) in zip(panels[0], found.items(), strict=True):
        values, means, halves, _ = zip(*at, strict=True)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        places = values if numbers else range(len(values))
        axes.errorbar(
            places, means, np.nan_to_num(halves), fmt="o-" if numbers else "o", ms=4, lw=1, capsize=2, color=color
        )
        axes.set(xlabel=SIGNS.get(setting, setting), xticks=places)
        axes.set_xticklabels([readable(value) for value in values])
        axes.margins(x=0.2)
    panels[0][0].set_ylabel("GT-known Loc (%)")
    within_percent(panels[0][0])
    drawn.suptitle(f"{method} on {backbone}", fontsize=8)
    own = [cell for cell in cells if (cell.backbone, cell.method) == (backbone, method)]
    what = "mean over the rest of the grid ± half-width of the 95 % interval (images and seeds)"
    caption(drawn, about(own, what, chosen=False))
    return drawn


def _effect(cells: Sequence[Cell], setting: str) -> list[Effect]:
    by_value: dict[str, list[Cell]] = {}
    for cell in cells:
        by_value.setdefault(readable(cell.settings[setting]), []).append(cell)
    found: list[Effect] = []
    for own in by_value.values():
        runs = [each for cell in own if (each := cell.replicates(METRIC)) is not None]
        if runs and len({len(each) for each in runs}) == 1:
            mean, half = statistics.interval(np.mean(runs, axis=0))
            found.append((own[0].settings[setting], mean, half, len(own)))
    numbers = all(isinstance(each[0], int | float) for each in found)
    return sorted(found, key=lambda each: each[0]) if numbers else found
