"""Figures of scores, and what all figures share: one style, a method keeps its colour, error bars say what they are."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eil.core import registry
from eil.core.files import replacing
from eil.evaluation import protocols
from eil.evaluation.union_find import N_THRESHOLDS
from eil.report.configurations import Cell, chosen, interval, shared_label

matplotlib.use("agg")  # files, never a window
METRIC = "test.own.gt_known_loc"


class _OfBackbone(Protocol):
    @property
    def backbone(self) -> str: ...


B = TypeVar("B", bound=_OfBackbone)
STYLE: Any = {
    "figure.dpi": 150,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "eil",  # the same records give the same file
    "svg.fonttype": "none",
}
COLUMN = 3.4  # inches, a column of a two-column paper
LETTERS = 20  # of 6 points, an inch
THRESHOLDS = {
    "val": "threshold chosen on val",
    "oracle": "threshold chosen on test",
    "fixed": "fixed threshold",
    "otsu": "threshold of Otsu",
}
FEW = 3  # methods up to which a panel has room for more than a line of each
LEAST_SPREAD = 2.0  # points each way in a heat map, so that colours do not shout over noise


def gamma_sigma(grid: Sequence[Cell], cells: Sequence[Cell]) -> Figure:
    """Heat map of mean GT-known Loc over gamma and sigma; the caption gives the methods without them.

    Args:
        grid: cells that differ in gamma and sigma alone.
        cells: among which are the other methods; of several settings of one those chosen on val are told.
    """
    gammas = sorted({float(cell.settings["gamma"]) for cell in grid})
    sigmas = sorted({float(cell.settings["sigma"]) for cell in grid})
    values = np.full((len(gammas), len(sigmas)), np.nan)
    labels = np.full(values.shape, "", dtype=object)
    for cell in grid:
        at = gammas.index(float(cell.settings["gamma"])), sigmas.index(float(cell.settings["sigma"]))
        mean, half = interval(cell, METRIC)
        values[at], labels[at] = mean, f"{mean:.1f}\n± {half:.1f}"
    of_backbone = [cell for cell in cells if cell.backbone == grid[0].backbone]
    rivals = [cell for cell in chosen(of_backbone) if cell.method != grid[0].method]
    shown = ", ".join(f"{cell.method} {_mean(cell, METRIC):.1f}" for cell in rivals)
    figure, axes = plt.subplots(figsize=(COLUMN, 0.6 * len(gammas) + 1.3), layout="constrained")
    middle = float(np.nanmean(values))
    spread = max(float(np.nanmax(np.abs(values - middle))), LEAST_SPREAD)
    sns.heatmap(
        values, annot=labels, fmt="", cmap="cividis", ax=axes, cbar_kws={"label": "GT-known Loc (%)"},
        vmin=middle - spread, vmax=middle + spread,
        xticklabels=[f"{s:g}" for s in sigmas], yticklabels=[f"{g:g}" for g in gammas],
    )  # fmt: skip
    axes.set(xlabel="σ (weight of the erased loss)", ylabel="γ (erasing threshold)", title=shared_label(grid))
    caption(figure, (f"for comparison: {shown}; " if shown else "") + about(grid, grid_of_settings=True))
    return figure


def over_thresholds(cells: Sequence[Cell]) -> Figure:
    """GT-known Loc over the threshold: mean of the seeds, band from the lowest to the highest."""
    figure, panels = per_backbone(cells)
    colors = colors_of(cells)
    for axes, own in panels:
        for cell in own:
            curves = np.array([record.curves["gt_known_loc"] for record in cell.records])  # (seeds, 255)
            level = np.arange(N_THRESHOLDS) / N_THRESHOLDS
            mean = curves.mean(axis=0)
            axes.plot(level, mean, color=colors[cell.method], label=cell.method)
            if len(own) <= FEW:  # more bands would hide one another
                axes.fill_between(level, curves.min(axis=0), curves.max(axis=0), color=colors[cell.method], alpha=0.2)
            for name, marker in (("val", "o"), ("oracle", "*")):
                at = round(_mean(cell, f"threshold.{name}"))
                axes.plot(at / N_THRESHOLDS, mean[at], marker, color=colors[cell.method], ms=6, clip_on=False)
        axes.set(
            xlabel="threshold (share of the map's maximum)",
            ylabel="GT-known Loc (%)",
            xlim=(0, 1),
            ylim=(0, None),
        )
    legend(figure)
    band = ", band: lowest to highest" if max(len(own) for _, own in panels) <= FEW else ""
    what = f"line: mean{band}; ● threshold chosen on val, ★ oracle (mean over seeds)"
    caption(figure, about(cells, what))
    return figure


def training_curves(cells: Sequence[Cell]) -> Figure:
    """Loss over epochs, of both streams where a method erases, else the total that it minimises: mean of the seeds."""
    figure, panels = per_backbone(cells)
    colors = colors_of(cells)
    for axes, own in panels:
        for cell in own:
            parts = [part for part in ("unerased", "erased") if f"history.{part}" in cell.records[0].curves] or [
                "total"
            ]
            for part, dashes in zip(parts, ("-", "--"), strict=False):
                epochs = min(len(record.curves[f"history.{part}"]) for record in cell.records)
                curve = np.mean([record.curves[f"history.{part}"][:epochs] for record in cell.records], axis=0)
                label = f"{cell.method}: {part if len(parts) > 1 else 'loss'}"
                axes.plot(
                    np.arange(1, epochs + 1),
                    curve,
                    dashes,
                    color=colors[cell.method],
                    label=label,
                    marker=".",
                    markersize=3,
                )
        axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, 1.08 * axes.dataLim.y1))
        axes.set_xlim(0.5, axes.dataLim.x1 + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(figure)
    several = any(key.startswith("history.erased_fraction_") for cell in cells for key in cell.records[0].curves)
    caption(figure, about(cells, "line: mean" + ("; of several erased streams the first" if several else "")))
    return figure


def part_coverage(cells: Sequence[Cell]) -> Figure:
    """Share of each part that the map covers at the protocol's own threshold."""
    figure, panels = per_backbone(cells)
    colors = colors_of(cells)
    names = [key.removeprefix("coverage.") for key in cells[0].records[0].metrics if key.startswith("coverage.")]
    for axes, own in panels:
        width = 0.8 / len(own)
        for k, cell in enumerate(own):
            means, halves = zip(*(interval(cell, f"coverage.{name}") for name in names), strict=True)
            at = np.arange(len(names)) + (k - (len(own) - 1) / 2) * width
            axes.bar(
                at,
                means,
                width,
                yerr=halves,
                color=colors[cell.method],
                label=cell.method,
                error_kw={"lw": 0.8},
            )
        axes.set(
            xticks=range(len(names)),
            xticklabels=names,
            ylabel="share of the part covered (%)",
            ylim=(0, 100),
        )
    legend(figure)
    what = f"{threshold(cells)}; bars: mean ± half-width of the 95 % interval (Student's t)"
    caption(figure, about(cells, what))
    return figure


def per_backbone(cells: Sequence[B]) -> tuple[Figure, list[tuple[Axes, list[B]]]]:
    """A panel a backbone with the cells (or what else has a backbone) that belong there."""
    names = list(dict.fromkeys(cell.backbone for cell in cells))
    figure, axes = plt.subplots(1, len(names), figsize=(COLUMN * len(names), 3.2), squeeze=False, layout="constrained")
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    return figure, [
        (panel, [cell for cell in cells if cell.backbone == name]) for panel, name in zip(axes[0], names, strict=True)
    ]


def colors_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """:func:`method_colors` of these cells' methods."""
    return method_colors([cell.method for cell in cells])


def method_colors(methods: Sequence[str]) -> dict[str, Any]:
    """A colour a method, by its place among all that are installed: the same in every figure and study."""
    names = list(dict.fromkeys([*registry.available(registry.METHODS), *methods]))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def about(
    cells: Sequence[Cell],
    what: str = "mean ± half-width of the 95 % interval (images and seeds)",
    grid_of_settings: bool = False,
) -> str:
    """A caption: what is shown, of how many seeds and images, and where settings stand that were chosen of a grid."""
    seeds = sorted({len(cell.records) for cell in cells})
    images = sorted({record.provenance["images"] for cell in cells for record in cell.records})
    counts = f"{what}; {'/'.join(map(str, seeds))} seeds, {'/'.join(map(str, images))} test images"
    return counts if grid_of_settings else f"{counts}; settings: main table"


def threshold(cells: Sequence[Cell]) -> str:
    """In words, where the threshold comes from at which boxes are drawn: by the protocol that the records are of."""
    used = dict.fromkeys(record.protocol for cell in cells for record in cell.records)
    return " or ".join(dict.fromkeys(THRESHOLDS[protocols.find(name).threshold_from] for name in used))


def legend(figure: Figure) -> None:
    """One small legend above all panels, as many labels side by side as fit."""
    found = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {label: handle for axes in found for handle, label in zip(*axes, strict=True)}
    columns = max(1, int(figure.get_figwidth() * LETTERS) // (max(map(len, handles)) + 6))
    figure.legend(
        handles.values(), handles.keys(), fontsize=6, handlelength=2, ncols=columns, loc="outside upper center"
    )


def within_percent(axes: Axes) -> None:
    """Cut what intervals have below 0 and above 100 percent."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))


def caption(figure: Figure, text: str) -> None:
    """A caption under the figure, broken to its width."""
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * LETTERS)), fontsize=6)


def _mean(cell: Cell, metric: str) -> float:
    return float(np.mean(cell.values(metric)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``path``.png and ``path``.svg, each whole or not at all, and close it."""
    for suffix in (".png", ".svg"):
        with replacing(path.with_name(path.name + suffix)) as beside:
            figure.savefig(beside, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
