"""Figures of timings: iterations by part, time ratios over operation ratios, GT-known Loc over cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.core.provenance import device_name
from eil.profiling.timing import PARTS, Timing
from eil.report import figure_style

matplotlib.use("agg")
Accuracy = Mapping[tuple[str, str], float]  # backbone and method -> GT-known Loc


def write(found: Sequence[Timing], accuracy: Accuracy, stem: Path) -> list[Path]:
    """Write every figure as ``{stem}-{name}``; the paths of the PNG files."""
    paths = []
    with plt.rc_context(figure_style.STYLE):
        for name, figure in drawn(found, accuracy).items():
            figure_style.save(figure, stem.with_name(f"{stem.name}-{name}"))
            paths.append(stem.with_name(f"{stem.name}-{name}.png"))
    return paths


def drawn(found: Sequence[Timing], accuracy: Accuracy) -> dict[str, Figure]:
    """Every figure that the timings, and scores if there are any, allow."""
    shown = {"iteration": iterations(found), "time_ratio": time_ratios(found)}
    if any((each.backbone, each.method) in accuracy for each in found):
        shown["pareto"] = pareto(found, accuracy)
    return shown


def iterations(found: Sequence[Timing]) -> Figure:
    """Bars of the median time of an iteration by part, with the quartiles of the whole, a panel a backbone."""
    figure, panels = figure_style.per_backbone(found)
    shades = plt.get_cmap("cividis")(np.linspace(0.1, 0.9, len(PARTS)))
    for axes, of_backbone in panels:
        x = np.arange(len(of_backbone))
        base = np.zeros(len(of_backbone))
        for part, shade in zip(PARTS, shades, strict=True):
            heights = np.array([1000 * each.seconds[part][1] for each in of_backbone])
            axes.bar(x, heights, 0.7, base, color=shade, label=part)
            base += heights
        q1, middle, q3 = 1000 * np.array([each.seconds["total"] for each in of_backbone]).T
        axes.errorbar(x, middle, [middle - q1, q3 - middle], fmt="none", ecolor="black", lw=0.8, capsize=2)
        axes.set(ylabel="time of an iteration (ms)", xticks=x)
        axes.set_xticklabels([_label(each, of_backbone) for each in of_backbone], rotation=90)
    panels[0][0].legend(fontsize=6)
    figure_style.caption(figure, f"bars: medians of the parts; whiskers: quartiles of the whole; {device_name()}")
    return figure


def time_ratios(found: Sequence[Timing]) -> Figure:
    """Time relative to the first method's over operations relative to the first method's; equal on the diagonal."""
    figure, panels = figure_style.per_backbone(found)
    colors = figure_style.method_colors([each.method for each in found])
    for axes, of_backbone in panels:
        limit = 1.1 * max(max(each.time_ratio[2], each.operation_ratio) for each in of_backbone)
        axes.plot([0, limit], [0, limit], color="0.7", lw=0.8, zorder=0)
        for each in of_backbone:
            low, middle, high = each.time_ratio
            error = [[middle - low], [high - middle]]
            axes.errorbar(
                each.operation_ratio, middle, error, fmt="o", ms=4, color=colors[each.method], label=each.method
            )
        axes.set(
            xlabel="operations / first method's",
            ylabel="time / first method's",
            xlim=(0, limit),
            ylim=(0, limit),
            aspect="equal",
        )
        _legend_once(axes)
    figure_style.caption(figure, f"time of an iteration over the first method's, median and quartiles; {device_name()}")
    return figure


def pareto(found: Sequence[Timing], accuracy: Accuracy) -> Figure:
    """GT-known Loc over the time of an iteration."""
    figure, panels = figure_style.per_backbone(found)
    colors = figure_style.method_colors([each.method for each in found])
    for axes, of_backbone in panels:
        for each in (each for each in of_backbone if (each.backbone, each.method) in accuracy):
            score = accuracy[each.backbone, each.method]
            axes.plot(1000 * each.seconds["total"][1], score, "o", color=colors[each.method], label=each.method)
        axes.set(xlabel="time of an iteration (ms)", ylabel="GT-known Loc (%)", xlim=(0, None))
        _legend_once(axes)
    figure_style.caption(figure, f"left and up is better; settings chosen on val; {device_name()}")
    return figure


def _label(timing: Timing, of_backbone: Sequence[Timing]) -> str:
    """The method, and what tells it from others of the panel."""
    several = {key for key in ("batch_size", "precision") if len({getattr(each, key) for each in of_backbone}) > 1}
    return ", ".join([timing.method, *(str(getattr(timing, key)) for key in sorted(several))])


def _legend_once(axes: Any) -> None:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles, fontsize=6)
