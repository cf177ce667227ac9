"""Draw what a figure of scores shows into given axes: panels of a figure of one's own.

:mod:`eil.report.score_figures` lays the same panels out as a study's figures, with legend and caption. Here these are
the caller's: ``axes.legend()`` finds the labels. The configurations of a panel are of one backbone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eil.core.metric_definitions import GT_KNOWN_LOC, METRICS, ScoreKey
from eil.core.run import format_value
from eil.evaluation import statistics
from eil.evaluation.box_conventions import N_THRESHOLDS
from eil.evaluation.errors import KIND_LABELS, KINDS, SIZE_SUBSETS
from eil.report import convergence
from eil.report.ablation import SIGNS, Effect
from eil.report.configurations import Configuration, Floats, interval, over_seeds, shared_label
from eil.report.differences import compared
from eil.report.figure_style import colors_of, error_bars, method_colors, within_percent
from eil.report.table import Value

GT_KNOWN_LABEL = f"{GT_KNOWN_LOC.label} (%)"
STREAMS: tuple[str, ...] = ("unerased", "erased")
LONGEST_LABELS = 30  # letters that fit side by side under a panel
MOST_CELLS = 8  # values of a setting up to which each has its numbers and its label
MOST_BANDS = 3  # methods up to which a panel has room for more than a line of each
MINIMUM_COLOUR_RANGE = 2.0  # points on each side of a heat map's middle


def over_thresholds(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """GT-known Loc over the threshold: mean of the seeds, band from the lowest to the highest."""
    colors = colors_of(configurations)
    for each in configurations:
        curves = np.array([record.curves[GT_KNOWN_LOC.metric] for record in each.records])  # (seeds, 255)
        level = np.arange(N_THRESHOLDS) / N_THRESHOLDS
        mean = curves.mean(axis=0)
        axes.plot(level, mean, color=colors[each.method], label=each.method)
        if len(configurations) <= MOST_BANDS:  # more bands would hide one another
            axes.fill_between(level, curves.min(axis=0), curves.max(axis=0), color=colors[each.method], alpha=0.2)
        for key, marker in (
            (ScoreKey("threshold", threshold_from="val"), "o"),
            (ScoreKey("threshold", threshold_from="oracle"), "*"),
        ):
            threshold = round(each.mean(key))
            axes.plot(threshold / N_THRESHOLDS, mean[threshold], marker, color=colors[each.method], ms=6, clip_on=False)
    axes.set(xlabel="threshold (share of the map's maximum)", ylabel=GT_KNOWN_LABEL, xlim=(0, 1), ylim=(0, None))


def training_curves(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """Loss over epochs, mean of the seeds: of both streams where a method erases, else the total."""
    colors = colors_of(configurations)
    for each in configurations:
        streams = [part for part in STREAMS if part in each.records[0].history]
        for part, dashes in zip(streams or ["total"], ("-", "--"), strict=False):
            epochs = min(len(record.history[part]) for record in each.records)
            curve = np.mean([record.history[part][:epochs] for record in each.records], axis=0)
            label = f"{each.method}: {part if len(streams) > 1 else 'loss'}{_mark(each)}"
            style = {"color": colors[each.method], "label": label, "marker": ".", "markersize": 3}
            axes.plot(np.arange(1, epochs + 1), curve, dashes, **style)
    axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, 1.08 * axes.dataLim.y1))
    axes.set_xlim(0.5, axes.dataLim.x1 + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def val_accuracy(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """Accuracy on val after each epoch, mean of the seeds: whether the networks had learnt to classify."""
    colors = colors_of(configurations)
    for each in configurations:
        curves = [record.history["val_top1"] for record in each.records]
        epochs = min(map(len, curves))
        mean = 100 * np.mean([curve[:epochs] for curve in curves], axis=0)
        style = {"color": colors[each.method], "label": f"{each.method}{_mark(each)}", "marker": ".", "markersize": 3}
        axes.plot(np.arange(1, epochs + 1), mean, **style)
    axes.set(xlabel="epoch", ylabel="Top-1 Cls on val (%)", ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def errors(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """Stacked bars of what the scored box gets right and wrong, a bar a method."""
    left = np.zeros(len(configurations))
    for kind, shade in zip(KINDS, sns.color_palette("colorblind", len(KINDS)), strict=True):
        widths = np.array([each.mean(ScoreKey("box_kind", kind)) for each in configurations])
        axes.barh(np.arange(len(configurations)), widths, 0.7, left, color=shade, label=KIND_LABELS[kind])
        left += widths
    names = [each.method for each in configurations]
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 100), xlabel="share of the test images (%)")
    axes.invert_yaxis()


def sizes(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """GT-known Loc by the share of the image that the object covers."""
    shown = configurations[0].records[0].subsets("images")
    columns = {SIZE_SUBSETS[subset]: ScoreKey("gt_known_loc", subset) for subset in shown}
    _points(axes, configurations, columns, ("share of the image that the object covers", GT_KNOWN_LABEL))


def protocols(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """GT-known Loc of the same maps by protocol."""
    columns = {name: ScoreKey("gt_known_loc", protocol=name) for name in configurations[0].records[0].threshold_from}
    _points(axes, configurations, columns, ("protocol, each with its own threshold", GT_KNOWN_LABEL))


def part_coverage(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """Share of each part that the map covers at the protocol's own threshold."""
    parts = configurations[0].records[0].subsets("part_coverage")
    columns = {part: ScoreKey("part_coverage", part) for part in parts}
    _points(axes, configurations, columns, ("part of the object", f"{METRICS['part_coverage'].label} (%)"))


def gamma_sigma(axes: Axes, grid: Sequence[Configuration]) -> None:
    """Heat map of mean GT-known Loc over gamma and sigma, of configurations that differ in these alone."""
    gammas, sigmas = (sorted({float(each.settings[key]) for each in grid}) for key in SIGNS)
    values = np.full((len(gammas), len(sigmas)), np.nan)
    labels = np.full(values.shape, "", dtype=object)
    for each in grid:
        cell = gammas.index(float(each.settings["gamma"])), sigmas.index(float(each.settings["sigma"]))
        mean, half = interval(each, GT_KNOWN_LOC)
        values[cell], labels[cell] = mean, str(Value(mean, half, percent=True)).replace(" ", "\n", 1)
    middle = float(np.nanmean(values))
    spread = max(float(np.nanmax(np.abs(values - middle))), MINIMUM_COLOUR_RANGE)
    sns.heatmap(
        values, annot=labels if fits_text(grid) else None, fmt="", cmap="cividis", ax=axes,
        cbar_kws={"label": GT_KNOWN_LABEL}, vmin=middle - spread, vmax=middle + spread,
        xticklabels=_ticks(sigmas), yticklabels=_ticks(gammas),
    )  # fmt: skip
    axes.tick_params(labelrotation=0)  # seaborn turns labels that it takes to overlap
    axes.set(xlabel="σ (weight of the erased loss)", ylabel="γ (erasing threshold)", title=shared_label(grid))


def fits_text(grid: Sequence[Configuration]) -> bool:
    """Whether the cells of a heat map over gamma and sigma have room for their numbers."""
    return all(len({float(each.settings[key]) for each in grid}) <= MOST_CELLS for key in SIGNS)


def improvement(axes: Axes, configurations: Sequence[Configuration]) -> None:
    """Probability that the row's method is better than the column's, over images and seeds."""
    values, texts = _improvement_cells(configurations)
    labels = [each.method for each in configurations]
    sns.heatmap(
        values, annot=texts, fmt="", annot_kws={"size": 6}, cmap="cividis", vmin=0, vmax=1, square=True, ax=axes,
        cbar=False, xticklabels=labels, yticklabels=labels,
    )  # fmt: skip
    axes.set(xlabel="… than this", ylabel="probability that this is better …")


def effects(axes: Axes, setting: str, found: Sequence[Effect], method: str) -> None:
    """Marginal effect of a method's setting: a curve over numbers, points over names."""
    values = [each.value for each in found]
    means, halves = zip(*(each.score for each in found), strict=True)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = values if numbers else range(len(values))
    style = {"fmt": "o-" if numbers else "o", "ms": 4, "lw": 1, "capsize": 2, "color": method_colors([method])[method]}
    axes.errorbar(places, means, error_bars(means, halves), **style)
    axes.set(xlabel=SIGNS.get(setting, setting))
    if not numbers or len(values) <= MOST_CELLS:
        axes.set_xticks(
            places, [format_value(value) for value in values], rotation=90 if len(values) > MOST_CELLS else 0
        )
    axes.margins(x=0.2 if numbers else 0.4)


def _ticks(values: Sequence[float]) -> list[str]:
    """A label a value, of many values every second, third … one, rounded to three digits so that they fit."""
    every = -(-len(values) // MOST_CELLS)
    digits = "g" if every == 1 else ".3g"
    return [f"{value:{digits}}" if k % every == 0 else "" for k, value in enumerate(values)]


def _mark(configuration: Configuration) -> str:
    return "" if configuration.converged else f" {convergence.MARK}"


def _improvement_cells(configurations: Sequence[Configuration]) -> tuple[Floats, npt.NDArray[np.object_]]:
    """P(better) of each pair and its text, (C, C); a star where the pair differs significantly.

    Holm's correction for all pairs of methods is stricter than that of `main` and `comparisons`: they deny no star.
    """
    values = np.full((len(configurations), len(configurations)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    pairs = {
        (i, j): found
        for i, one in enumerate(configurations)
        for j, other in enumerate(configurations[:i])
        if (found := compared(one, other, GT_KNOWN_LOC)) is not None
    }
    corrected = statistics.holm({f"{i} {j}": found.p_value() for (i, j), found in pairs.items()})
    for (i, j), found in pairs.items():
        star = "*" if corrected[f"{i} {j}"] <= 0.05 else ""
        better = found.probability_of_improvement()
        for cell, value in (((i, j), better), ((j, i), 1 - better)):
            values[cell], texts[cell] = value, f"{value:.2f}{star}"
    return values, texts


def _points(
    axes: Axes, configurations: Sequence[Configuration], columns: Mapping[str, ScoreKey], labels: tuple[str, str]
) -> None:
    """A point a method in each column, side by side, with its interval over seeds.

    Args:
        axes: where to draw.
        configurations: contestants.
        columns: label on the x axis -> score.
        labels: of the axes.
    """
    colors, width = colors_of(configurations), 0.7 / len(configurations)
    for k, each in enumerate(configurations):
        means, halves = np.array([over_seeds(each, key) for key in columns.values()]).T
        x = np.arange(len(columns)) + (k - (len(configurations) - 1) / 2) * width
        style = {"color": colors[each.method], "label": each.method}
        axes.errorbar(x, means, error_bars(means, halves), fmt="o", ms=3, lw=0.8, **style)
    axes.set(xticks=range(len(columns)), xlabel=labels[0], ylabel=labels[1])
    axes.set_xticklabels(list(columns), rotation=60 if sum(map(len, columns)) > LONGEST_LABELS else 0)
    within_percent(axes)
