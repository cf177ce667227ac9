"""Figures beside the scores: kinds of error, object sizes, protocols on the same maps, who beats whom."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.evaluation import statistics
from eil.evaluation.errors import KINDS
from eil.report.configurations import Cell, difference, step, students
from eil.report.figures import (
    COLUMN,
    METRIC,
    about,
    caption,
    colors_of,
    legend,
    per_backbone,
    threshold,
    within_percent,
)

NAMES = {"cls": "wrong class", "multi_instance": "several objects", "part": "part of it", "more": "more than it"}

ROOM = 30  # letters that fit under a panel


def errors(cells: Sequence[Cell]) -> Figure:
    """Stacked bars of what the largest contour's box gets right and wrong, a bar a method."""
    figure, panels = per_backbone(cells)
    shades = sns.color_palette("colorblind", len(KINDS))
    for axes, own in panels:
        left = np.zeros(len(own))
        for kind, shade in zip(KINDS, shades, strict=True):
            widths = np.array([cell.mean(f"error.{kind}") for cell in own])
            axes.barh(np.arange(len(own)), widths, 0.7, left, color=shade, label=NAMES.get(kind, kind))
            left += widths
        names = [cell.method for cell in own]
        axes.set(yticks=range(len(own)), yticklabels=names, xlim=(0, 100), xlabel="share of the test images (%)")
        axes.invert_yaxis()
    legend(figure)
    caption(figure, about(cells, f"box of the largest contour, {threshold(cells)}; mean of the seeds"))
    return figure


def sizes(cells: Sequence[Cell]) -> Figure:
    """GT-known Loc by the share of the image that the object covers."""
    known = cells[0].records[0].metrics
    bins = [key.removeprefix("size.") for key in known if key.startswith("size.")]
    columns = {each: f"size.{each}" for each in bins}
    figure = _points(cells, columns, "share of the image that the object covers (%)")
    counts = ", ".join(f"{each} %: {known[f'size_images.{each}']:.0f}" for each in bins)
    caption(figure, about(cells, f"mean ± half-width of the 95 % interval over seeds (Student's t); images: {counts}"))
    return figure


def protocols(cells: Sequence[Cell], names: Sequence[str], own: str) -> Figure:
    """GT-known Loc of the same maps by protocol.

    Args:
        cells: contestants.
        names: of the protocols, the record's own first.
        own: metric of the first.
    """
    columns = {names[0]: own} | {name: f"gt_known_loc@{name}" for name in names[1:]}
    figure = _points(cells, columns, "protocol, each with its own threshold")
    caption(figure, about(cells, "the same maps; mean ± half-width of the 95 % interval over seeds (Student's t)"))
    return figure


def improvement(cells: Sequence[Cell]) -> Figure:
    """Probability that the row's method is better than the column's, over images and seeds, a panel a backbone."""
    names = list(dict.fromkeys(cell.backbone for cell in cells))
    size = COLUMN * 1.15
    figure, grid = plt.subplots(1, len(names), figsize=(size * len(names), size), squeeze=False, layout="constrained")
    for axes, name in zip(grid[0], names, strict=True):
        own = [cell for cell in cells if cell.backbone == name]
        values = np.full((len(own), len(own)), np.nan)
        for i, one in enumerate(own):
            for j, other in enumerate(own):
                runs = None if one is other else difference(one, other, METRIC)
                values[i, j] = np.nan if runs is None else statistics.probability_of_improvement(runs, step(one))
        labels = [cell.method for cell in own]
        sns.heatmap(
            values, annot=True, fmt=".2f", annot_kws={"size": 6}, cmap="cividis", vmin=0, vmax=1, square=True, ax=axes,
            cbar=False, xticklabels=labels, yticklabels=labels,
        )  # fmt: skip
        axes.set(title=name, xlabel="… than this", ylabel="probability that this is better …")
    caption(figure, about(cells, "in GT-known Loc, over images and seeds; 0.5: nothing is told"))
    return figure


def _points(cells: Sequence[Cell], columns: Mapping[str, str], label: str) -> Figure:
    """A point a method in each column, side by side, with its interval."""
    figure, panels = per_backbone(cells)
    colors = colors_of(cells)
    for axes, own in panels:
        width = 0.7 / len(own)
        for k, cell in enumerate(own):
            means, halves = np.array([students(cell.values(metric)) for metric in columns.values()]).T
            at = np.arange(len(columns)) + (k - (len(own) - 1) / 2) * width
            axes.errorbar(
                at, means, np.nan_to_num(halves), fmt="o", ms=3, lw=0.8, color=colors[cell.method], label=cell.method
            )
        axes.set(xticks=range(len(columns)), xlabel=label, ylabel="GT-known Loc (%)")
        crowded = sum(map(len, columns)) > ROOM
        axes.set_xticklabels(list(columns), rotation=60 if crowded else 0)
        within_percent(axes)
    legend(figure)
    return figure
