"""Figures of scores: over thresholds, epochs, sizes, parts, protocols and settings; kinds of error; who is better.

Each lays out the panels of :mod:`eil.report.panels`, a backbone each, and adds legend and caption.
"""

from collections.abc import Callable, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eil.core.metric_definitions import GT_KNOWN_LOC, ScoreKey
from eil.evaluation.errors import SIZE_SUBSETS
from eil.report import convergence, panels
from eil.report.ablation import Effect
from eil.report.configurations import Configuration, by_backbone, chosen
from eil.report.figure_style import (
    ACROSS,
    COLUMN,
    about,
    caption,
    legend,
    panel_grid,
    per_backbone,
    threshold,
    within_percent,
)

SEEDS_ALONE = "mean and 95 % interval over seeds (Student's t, variance pooled over methods), clipped to 0 to 100"
IMPROVEMENT = (
    "that the true difference in GT-known Loc is above 0, by the tables' model over images and seeds; 0.5: no "
    "difference; *: significant at 5 % after Holm's correction for all pairs"
)


def gamma_sigma(grid: Sequence[Configuration], configurations: Sequence[Configuration]) -> Figure:
    """Heat map of mean GT-known Loc over gamma and sigma; the caption gives the other methods' scores.

    Args:
        grid: configurations that differ in gamma and sigma alone.
        configurations: all of the study; of several settings of one method those chosen on val are told.
    """
    rivals = [each for each in chosen(configurations) if each.backbone == grid[0].backbone]
    shown = ", ".join(f"{c.method} {c.mean(GT_KNOWN_LOC):.1f}" for c in rivals if c.method != grid[0].method)
    gammas = {float(each.settings["gamma"]) for each in grid}
    few = panels.fits_text(grid)
    figure, axes = plt.subplots(figsize=(COLUMN, (0.6 if few else 0.09) * len(gammas) + 1.3), layout="constrained")
    panels.gamma_sigma(axes, grid)
    numbers = f"mean of the seeds, {len(grid)} settings, in numbers in the table of this name"
    description = about(grid, grid_of_settings=True) if few else about(grid, numbers, grid_of_settings=True)
    caption(figure, (f"for comparison: {shown}; " if shown else "") + description)
    return figure


def over_thresholds(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc over the threshold: mean of the seeds, band from the lowest to the highest."""
    most = max(len(of_backbone) for _, of_backbone in by_backbone(configurations))
    band = ", band: lowest to highest" if most <= panels.MOST_BANDS else ""
    what = f"line: mean{band}; ● threshold chosen on val, ★ oracle (mean over seeds)"
    return _figure(panels.over_thresholds, configurations, what)


def training_curves(configurations: Sequence[Configuration]) -> Figure:
    """Loss over epochs, mean of the seeds: of both streams where a method erases, else the total."""
    several = any(key.startswith("erased_fraction_") for each in configurations for key in each.records[0].history)
    what = "line: mean" + ("; of several erased streams the first" if several else "")
    return _figure(panels.training_curves, configurations, what + _of_marks(configurations))


def val_accuracy(configurations: Sequence[Configuration]) -> Figure:
    """Accuracy on val after each epoch, mean of the seeds: whether the networks had learnt to classify."""
    return _figure(panels.val_accuracy, configurations, "line: mean" + _of_marks(configurations))


def errors(configurations: Sequence[Configuration]) -> Figure:
    """Stacked bars of what the scored box gets right and wrong, a bar a method."""
    what = f"scored box, {threshold(configurations)}; mean of the seeds"
    return _figure(panels.errors, configurations, what)


def sizes(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc by the share of the image that the object covers."""
    record = configurations[0].records[0]
    shown = {subset: SIZE_SUBSETS[subset] for subset in record.subsets("images")}
    counts = ", ".join(f"{label}: {record.value(ScoreKey('images', subset)):.0f}" for subset, label in shown.items())
    return _figure(panels.sizes, configurations, f"{SEEDS_ALONE}; images: {counts}")


def protocols(configurations: Sequence[Configuration]) -> Figure:
    """GT-known Loc of the same maps by protocol."""
    return _figure(panels.protocols, configurations, f"the same maps; {SEEDS_ALONE}")


def part_coverage(configurations: Sequence[Configuration]) -> Figure:
    """Share of each part that the map covers at the protocol's own threshold."""
    return _figure(panels.part_coverage, configurations, f"{threshold(configurations)}; {SEEDS_ALONE}")


def improvement(configurations: Sequence[Configuration]) -> Figure:
    """Probability that the row's method is better than the column's, over images and seeds, a panel a backbone."""
    backbones = by_backbone(configurations)
    size = COLUMN * 1.15
    figure, found = panel_grid(len(backbones), (size, size))
    for axes, (name, of_backbone) in zip(found, backbones, strict=True):
        panels.improvement(axes, of_backbone)
        axes.set_title(name)
    caption(figure, about(configurations, IMPROVEMENT))
    return figure


def ablation(found: dict[str, list[Effect]], configurations: Sequence[Configuration]) -> Figure:
    """Marginal effects, a panel a setting: a curve over numbers, points over names.

    Args:
        found: the effects of each setting.
        configurations: of one method on one backbone.
    """
    width = COLUMN * min(2, max(1, 0.6 * len(found)))
    drawn, grid = panel_grid(len(found), (width / min(len(found), ACROSS), 2.6), sharey=True)
    backbone, method = configurations[0].backbone, configurations[0].method
    for axes, (setting, effects) in zip(grid, found.items(), strict=True):
        panels.effects(axes, setting, effects, method)
    grid[0].set_ylabel(panels.GT_KNOWN_LABEL)
    within_percent(grid[0])
    drawn.suptitle(f"{method} on {backbone}", fontsize=8)
    what = "mean over the rest of the grid and its 95 % interval (images and seeds)"
    caption(drawn, about(configurations, what, grid_of_settings=True))
    return drawn


def _of_marks(configurations: Sequence[Configuration]) -> str:
    marked = not all(each.converged for each in configurations)
    return f"; {convergence.MARK} had not converged by the tables' rule" if marked else ""


def _figure(
    draw: Callable[[Axes, Sequence[Configuration]], None], configurations: Sequence[Configuration], what: str
) -> Figure:
    """A panel a backbone, one legend, and a caption that says what is shown."""
    figure, found = per_backbone(configurations)
    for axes, of_backbone in found:
        draw(axes, of_backbone)
    legend(figure)
    caption(figure, about(configurations, what))
    return figure
