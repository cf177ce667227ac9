"""Figures of scores: over thresholds, epochs, sizes, parts, protocols and settings; kinds of error; who is better."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eil.core.metrics import GT_KNOWN_LOC, METRICS, ScoreKey
from eil.core.run import readable
from eil.evaluation import statistics
from eil.evaluation.errors import KINDS, SIZE_SUBSETS
from eil.evaluation.union_find import N_THRESHOLDS
from eil.report import convergence
from eil.report.ablation import SIGNS, Effect
from eil.report.configurations import (
    Configuration,
    Floats,
    by_backbone,
    chosen,
    compared,
    interval,
    over_seeds,
    shared_label,
)
from eil.report.figure_style import (
    COLUMN,
    about,
    caption,
    colors_of,
    error_bars,
    legend,
    method_colors,
    per_backbone,
    threshold,
    within_percent,
)
from eil.report.table import Value

GT_KNOWN_LABEL = f"{GT_KNOWN_LOC.label} (%)"
KIND_LABELS = {"cls": "wrong class", "multi_instance": "several objects", "part": "part of it", "more": "more than it"}
STREAMS: tuple[str, ...] = ("unerased", "erased")
SEEDS_ALONE = "mean and 95 % interval over seeds (Student's t, variance pooled over methods), clipped to 0 to 100"
IMPROVEMENT = (
    "that the true difference in GT-known Loc is above 0, by the tables' model over images and seeds; 0.5: no "
    "difference; *: significant at 5 % after Holm's correction for all pairs"
)
LONGEST_LABELS = 30  # letters that fit side by side under a panel
MOST_BANDS = 3  # methods up to which a panel has room for more than a line of each
MINIMUM_COLOUR_RANGE = 2.0  # points on each side of a heat map's middle


def gamma_sigma(grid: Sequence[Configuration], configurations: Sequence[Configuration]) -> Figure:
    """Heat map of mean GT-known Loc over gamma and sigma; the caption gives the other methods' scores.

    Args:
        grid: configurations that differ in gamma and sigma alone.
        configurations: all of the study; of several settings of one method those chosen on val are told.
    """
    gammas, sigmas = (sorted({float(each.settings[key]) for each in grid}) for key in SIGNS)
    values = np.full((len(gammas), len(sigmas)), np.nan)
    labels = np.full(values.shape, "", dtype=object)
    for each in grid:
        at = gammas.index(float(each.settings["gamma"])), sigmas.index(float(each.settings["sigma"]))
        mean, half = interval(each, GT_KNOWN_LOC)
        values[at], labels[at] = mean, str(Value(mean, half, percent=True)).replace(" ", "\n", 1)
    rivals = [each for each in chosen(configurations) if each.backbone == grid[0].backbone]
    shown = ", ".join(f"{c.method} {c.mean(GT_KNOWN_LOC):.1f}" for c in rivals if c.method != grid[0].method)
    figure, axes = plt.subplots(figsize=(COLUMN, 0.6 * len(gammas) + 1.3), layout="constrained")
    middle = float(np.nanmean(values))
    spread = max(float(np.nanmax(np.abs(values - middle))), MINIMUM_COLOUR_RANGE)
    sns.heatmap(
        values, annot=labels, fmt="", cmap="cividis", ax=axes, cbar_kws={"label": GT_KNOWN_LABEL},
        vmin=middle - spread, vmax=middle + spread,
        xticklabels=[f"{s:g}" for s in sigmas], yticklabels=[f"{g:g}" for g in gammas],
    )  # fmt: skip
    axes.set(xlabel="σ (weight of the erased loss)", ylabel="γ (erasing threshold)", title=shared_label(grid))
    caption(figure, (f"for comparison: {shown}; " if shown else "") + about(grid, grid_of_settings=True))
    return figure


def over_thresholds(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc over the threshold: mean of the seeds, band from the lowest to the highest."""
    figure, panels = per_backbone(configurations)
    colors = colors_of(configurations)
    for axes, own in panels:
        for each in own:
            curves = np.array([record.curves[GT_KNOWN_LOC.metric] for record in each.records])  # (seeds, 255)
            level = np.arange(N_THRESHOLDS) / N_THRESHOLDS
            mean = curves.mean(axis=0)
            axes.plot(level, mean, color=colors[each.method], label=each.method)
            if len(own) <= MOST_BANDS:  # more bands would hide one another
                axes.fill_between(level, curves.min(axis=0), curves.max(axis=0), color=colors[each.method], alpha=0.2)
            for key, marker in (
                (ScoreKey("threshold", threshold_from="val"), "o"),
                (ScoreKey("threshold", threshold_from="oracle"), "*"),
            ):
                at = round(each.mean(key))
                axes.plot(at / N_THRESHOLDS, mean[at], marker, color=colors[each.method], ms=6, clip_on=False)
        axes.set(xlabel="threshold (share of the map's maximum)", ylabel=GT_KNOWN_LABEL, xlim=(0, 1), ylim=(0, None))
    legend(figure)
    band = ", band: lowest to highest" if max(len(own) for _, own in panels) <= MOST_BANDS else ""
    what = f"line: mean{band}; ● threshold chosen on val, ★ oracle (mean over seeds)"
    caption(figure, about(configurations, what))
    return figure


def training_curves(configurations: Sequence[Configuration]) -> Figure:
    """Loss over epochs, mean of the seeds: of both streams where a method erases, else the total."""
    figure, panels = per_backbone(configurations)
    colors = colors_of(configurations)
    for axes, own in panels:
        for each in own:
            streams = [part for part in STREAMS if part in each.records[0].history]
            for part, dashes in zip(streams or ["total"], ("-", "--"), strict=False):
                epochs = min(len(record.history[part]) for record in each.records)
                curve = np.mean([record.history[part][:epochs] for record in each.records], axis=0)
                mark = "" if each.converged else f" {convergence.MARK}"
                label = f"{each.method}: {part if len(streams) > 1 else 'loss'}{mark}"
                style = {"color": colors[each.method], "label": label, "marker": ".", "markersize": 3}
                axes.plot(np.arange(1, epochs + 1), curve, dashes, **style)
        axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, 1.08 * axes.dataLim.y1))
        axes.set_xlim(0.5, axes.dataLim.x1 + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(figure)
    several = any(key.startswith("erased_fraction_") for each in configurations for key in each.records[0].history)
    what = "line: mean" + ("; of several erased streams the first" if several else "")
    caption(figure, about(configurations, what + _of_marks(configurations)))
    return figure


def val_accuracy(configurations: Sequence[Configuration]) -> Figure:
    """Accuracy on val after each epoch, mean of the seeds: whether the networks had learnt to classify."""
    figure, panels = per_backbone(configurations)
    colors = colors_of(configurations)
    for axes, own in panels:
        for each in own:
            curves = [record.history["val_top1"] for record in each.records]
            epochs = min(map(len, curves))
            mean = 100 * np.mean([curve[:epochs] for curve in curves], axis=0)
            label = each.method if each.converged else f"{each.method} {convergence.MARK}"
            axes.plot(np.arange(1, epochs + 1), mean, label=label, color=colors[each.method], marker=".", markersize=3)
        axes.set(xlabel="epoch", ylabel="Top-1 Cls on val (%)", ylim=(0, 100))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(figure)
    caption(figure, about(configurations, "line: mean" + _of_marks(configurations)))
    return figure


def _of_marks(configurations: Sequence[Configuration]) -> str:
    marked = not all(each.converged for each in configurations)
    return f"; {convergence.MARK} had not converged by the tables' rule" if marked else ""


def errors(configurations: Sequence[Configuration]) -> Figure:
    """Stacked bars of what the largest contour's box gets right and wrong, a bar a method."""
    figure, panels = per_backbone(configurations)
    shades = sns.color_palette("colorblind", len(KINDS))
    for axes, own in panels:
        left = np.zeros(len(own))
        for kind, shade in zip(KINDS, shades, strict=True):
            widths = np.array([each.mean(ScoreKey("box_kind", kind)) for each in own])
            axes.barh(np.arange(len(own)), widths, 0.7, left, color=shade, label=KIND_LABELS.get(kind, kind))
            left += widths
        names = [each.method for each in own]
        axes.set(yticks=range(len(own)), yticklabels=names, xlim=(0, 100), xlabel="share of the test images (%)")
        axes.invert_yaxis()
    legend(figure)
    what = f"box of the largest contour, {threshold(configurations)}; mean of the seeds"
    caption(figure, about(configurations, what))
    return figure


def sizes(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc by the share of the image that the object covers."""
    record = configurations[0].records[0]
    shown = {subset: SIZE_SUBSETS[subset] for subset in record.subsets("images")}
    columns = {label: ScoreKey("gt_known_loc", subset) for subset, label in shown.items()}
    counts = ", ".join(f"{label}: {record.value(ScoreKey('images', subset)):.0f}" for subset, label in shown.items())
    what = f"{SEEDS_ALONE}; images: {counts}"
    return _points(configurations, columns, ("share of the image that the object covers", GT_KNOWN_LABEL), what)


def protocols(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc of the same maps by protocol."""
    columns = {name: ScoreKey("gt_known_loc", protocol=name) for name in configurations[0].records[0].threshold_from}
    labels = ("protocol, each with its own threshold", GT_KNOWN_LABEL)
    return _points(configurations, columns, labels, f"the same maps; {SEEDS_ALONE}")


def part_coverage(configurations: Sequence[Configuration]) -> Figure:
    """Share of each part that the map covers at the protocol's own threshold."""
    parts = configurations[0].records[0].subsets("part_coverage")
    columns = {part: ScoreKey("part_coverage", part) for part in parts}
    labels = ("part of the object", f"{METRICS['part_coverage'].label} (%)")
    return _points(configurations, columns, labels, f"{threshold(configurations)}; {SEEDS_ALONE}")


def improvement(configurations: Sequence[Configuration]) -> Figure:
    """Probability that the row's method is better than the column's, over images and seeds, a panel a backbone."""
    backbones = by_backbone(configurations)
    size = COLUMN * 1.15
    figure, grid = plt.subplots(
        1, len(backbones), figsize=(size * len(backbones), size), squeeze=False, layout="constrained"
    )
    for axes, (name, own) in zip(grid[0], backbones, strict=True):
        values, texts = _improvement_cells(own)
        labels = [each.method for each in own]
        sns.heatmap(
            values, annot=texts, fmt="", annot_kws={"size": 6}, cmap="cividis", vmin=0, vmax=1, square=True, ax=axes,
            cbar=False, xticklabels=labels, yticklabels=labels,
        )  # fmt: skip
        axes.set(title=name, xlabel="… than this", ylabel="probability that this is better …")
    caption(figure, about(configurations, IMPROVEMENT))
    return figure


def _improvement_cells(configurations: Sequence[Configuration]) -> tuple[Floats, npt.NDArray[np.object_]]:
    """P(better) of each pair and its text, (C, C); a star where the pair differs significantly.

    Holm's correction for all pairs is stricter than the tables', so that a star is never denied by them.
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
        for at, value in (((i, j), better), ((j, i), 1 - better)):
            values[at], texts[at] = value, f"{value:.2f}{star}"
    return values, texts


def ablation(found: dict[str, list[Effect]], configurations: Sequence[Configuration]) -> Figure:
    """Marginal effects, a panel a setting: a curve over numbers, points over names.

    Args:
        found: the effects of each setting.
        configurations: of one method on one backbone.
    """
    width = COLUMN * min(2, max(1, 0.6 * len(found)))
    drawn, panels = plt.subplots(1, len(found), figsize=(width, 2.6), squeeze=False, sharey=True, layout="constrained")
    backbone, method = configurations[0].backbone, configurations[0].method
    color = method_colors([method])[method]
    for axes, (setting, effects) in zip(panels[0], found.items(), strict=True):
        values = [each.value for each in effects]
        means, halves = zip(*(each.score for each in effects), strict=True)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        places = values if numbers else range(len(values))
        axes.errorbar(
            places, means, error_bars(means, halves), fmt="o-" if numbers else "o", ms=4, lw=1, capsize=2, color=color
        )
        axes.set(xlabel=SIGNS.get(setting, setting), xticks=places)
        axes.set_xticklabels([readable(value) for value in values])
        axes.margins(x=0.2 if numbers else 0.4)
    panels[0][0].set_ylabel(GT_KNOWN_LABEL)
    within_percent(panels[0][0])
    drawn.suptitle(f"{method} on {backbone}", fontsize=8)
    what = "mean over the rest of the grid and its 95 % interval (images and seeds)"
    caption(drawn, about(configurations, what, grid_of_settings=True))
    return drawn


def _points(
    configurations: Sequence[Configuration], columns: Mapping[str, ScoreKey], labels: tuple[str, str], what: str
) -> Figure:
    """A point a method in each column, side by side, with its interval over seeds.

    Args:
        configurations: contestants.
        columns: label on the x axis -> score.
        labels: of the axes.
        what: the caption says.
    """
    figure, panels = per_backbone(configurations)
    colors = colors_of(configurations)
    for axes, own in panels:
        width = 0.7 / len(own)
        for k, each in enumerate(own):
            means, halves = np.array([over_seeds(each, key) for key in columns.values()]).T
            at = np.arange(len(columns)) + (k - (len(own) - 1) / 2) * width
            style = {"color": colors[each.method], "label": each.method}
            axes.errorbar(at, means, error_bars(means, halves), fmt="o", ms=3, lw=0.8, **style)
        axes.set(xticks=range(len(columns)), xlabel=labels[0], ylabel=labels[1])
        axes.set_xticklabels(list(columns), rotation=60 if sum(map(len, columns)) > LONGEST_LABELS else 0)
        within_percent(axes)
    legend(figure)
    caption(figure, about(configurations, what))
    return figure
