"""Figures from records alone, as PNG and SVG: one style, a method keeps its colour, error bars say what they are."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from eil import plugins
from eil.evaluation.pixels import LEVELS
from eil.files import read_arrays, replacing
from eil.records import Record
from eil.report.cells import Cell, chosen, group, interval
from eil.report.tables import gamma_sigma_grids

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
TRUE_BOX, PREDICTED_BOX = "#ffffff", "#ffb000"
EXAMPLES_SHOWN = 6
FEW = 3  # methods up to which a panel has room for more than a line of each
LEAST_SPREAD = 2.0  # points each way in a heat map, so that colours do not shout over noise


def write(records: Sequence[Record], results: Path) -> None:
    """Draw every figure that the records allow into ``results/figures``, whole or not at all.

    Args:
        records: of a study, done.
        results: its folder, which has ``runs/{run}/examples.npz`` too.
    """
    cells = [cell for cell in group(records) if not cell.control]
    with replacing(results / "figures") as beside, plt.rc_context(STYLE):
        beside.mkdir()
        if not cells:
            return
        for name, grid in gamma_sigma_grids(cells).items():
            save(gamma_sigma(name, grid, cells), beside / f"gamma_sigma_{name}")
        best = chosen(cells)
        save(over_thresholds(best), beside / "thresholds")
        save(training_curves(best), beside / "training")
        if all(cell.has("coverage.head") for cell in best):
            save(part_coverage(best), beside / "part_coverage")
        for backbone in dict.fromkeys(cell.backbone for cell in best):
            own = [cell for cell in best if cell.backbone == backbone]
            examples = {cell: read_arrays(results / "runs" / cell.records[0].run.name / "examples.npz") for cell in own}
            save(qualitative(examples), beside / f"examples_{backbone}")
            inside = {cell: found for cell, found in examples.items() if _views(found)}
            if inside:
                save(qualitative(inside, views=True), beside / f"views_{backbone}")


def gamma_sigma(name: str, grid: Sequence[Cell], cells: Sequence[Cell]) -> Figure:
    """Heat map of mean GT-known Loc over gamma and sigma; the caption gives the methods without them."""
    gammas = sorted({float(cell.settings["gamma"]) for cell in grid})
    sigmas = sorted({float(cell.settings["sigma"]) for cell in grid})
    values = np.full((len(gammas), len(sigmas)), np.nan)
    labels = np.full(values.shape, "", dtype=object)
    for cell in grid:
        at = gammas.index(float(cell.settings["gamma"])), sigmas.index(float(cell.settings["sigma"]))
        mean, half = interval(cell, METRIC)
        values[at], labels[at] = mean, f"{mean:.1f}\n± {half:.1f}"
    rivals = [cell for cell in cells if cell.backbone == grid[0].backbone and not cell.settings]
    shown = ", ".join(f"{cell.method} {_mean(cell, METRIC):.1f}" for cell in rivals)
    figure, axes = plt.subplots(figsize=(COLUMN, 0.6 * len(gammas) + 1.3), layout="constrained")
    middle = float(np.nanmean(values))
    spread = max(float(np.nanmax(np.abs(values - middle))), LEAST_SPREAD)
    sns.heatmap(
        values, annot=labels, fmt="", cmap="cividis", ax=axes, cbar_kws={"label": "GT-known Loc (%)"},
        vmin=middle - spread, vmax=middle + spread,
        xticklabels=[f"{s:g}" for s in sigmas], yticklabels=[f"{g:g}" for g in gammas],
    )  # fmt: skip
    title = name.replace("_", " ")
    axes.set(xlabel="σ (weight of the erased loss)", ylabel="γ (erasing threshold)", title=title)
    caption(figure, f"for comparison: {shown}; {_caption(grid)}")
    return figure


def over_thresholds(cells: Sequence[Cell]) -> Figure:
    """GT-known Loc over the threshold: mean of the seeds, band from the lowest to the highest."""
    figure, panels = per_backbone(cells)
    colors = _colors(cells)
    for axes, own in panels:
        for cell in own:
            curves = np.array([record.curves["gt_known_loc"] for record in cell.records])  # (seeds, 255)
            level = np.arange(LEVELS) / LEVELS
            mean = curves.mean(axis=0)
            axes.plot(level, mean, color=colors[cell.method], label=cell.method)
            if len(own) <= FEW:  # more bands would hide one another
                axes.fill_between(level, curves.min(axis=0), curves.max(axis=0), color=colors[cell.method], alpha=0.2)
            for name, marker in (("val", "o"), ("oracle", "*")):
                at = round(_mean(cell, f"threshold.{name}"))
                axes.plot(at / LEVELS, mean[at], marker, color=colors[cell.method], ms=6, clip_on=False)
        axes.set(
            xlabel="threshold (share of the map's maximum)",
            ylabel="GT-known Loc (%)",
            xlim=(0, 1),
            ylim=(0, None),
        )
        _legend(axes)
    band = ", band: lowest to highest" if max(len(own) for _, own in panels) <= FEW else ""
    what = f"line: mean{band}; ● threshold chosen on val, ★ oracle (mean over seeds)"
    caption(figure, _caption(cells, what))
    return figure


def training_curves(cells: Sequence[Cell]) -> Figure:
    """Loss over epochs, of both streams where a method erases, else the total that it minimises: mean of the seeds."""
    figure, panels = per_backbone(cells)
    colors = _colors(cells)
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
                )
        axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, 1.08 * axes.dataLim.y1))
        axes.set_xlim(0.5, len(own[0].records[0].curves["history.total"]) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(axes)
    caption(figure, _caption(cells, "line: mean"))
    return figure


def part_coverage(cells: Sequence[Cell]) -> Figure:
    """Share of each part that the map covers at the threshold chosen on val."""
    figure, panels = per_backbone(cells)
    colors = _colors(cells)
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
        _legend(axes)
    caption(figure, _caption(cells, "bars: mean ± half-width of the 95 % interval (Student's t)"))
    return figure


def qualitative(examples: Mapping[Cell, Mapping[str, Any]], views: bool = False) -> Figure:
    """Image and each method's map with the predicted and the true box, a row an image, of the first seed.

    Args:
        examples: what evaluate kept of each cell's first repetition.
        views: show the methods' further views beside their maps.
    """
    cells = list(examples)
    columns: list[tuple[Cell, str, str]] = [(cells[0], "images", "image")]
    for cell, own in examples.items():
        erases = "view_erased map" in own
        columns.append((cell, "maps", f"{cell.method}: {'unerased ' if erases else ''}map"))
        columns += [(cell, name, f"{cell.method}: {name.removeprefix('view_')}") for name in _views(own) if views]
    count = len(examples[cells[0]]["ids"])
    rows = np.unique(np.linspace(0, count - 1, EXAMPLES_SHOWN).round().astype(int))
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(1.15 * len(columns), 1.15 * len(rows) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for row, panels in zip(rows, grid, strict=True):
        for axes, (cell, name, title) in zip(panels, columns, strict=True):
            own = examples[cell]
            axes.imshow(own["images"][row])
            if name != "images":
                axes.imshow(own[name][row], cmap="inferno", alpha=0.55, vmin=0, vmax=255)
            _box(axes, own["true"][row], TRUE_BOX)
            if name == "maps":
                _box(axes, own["predicted"][row], PREDICTED_BOX)
            axes.set_axis_off()
            if row == rows[0]:
                axes.set_title(title, fontsize=7)
    labels = ", ".join(cell.label for cell in cells)
    caption(figure, f"{cells[0].backbone}, seed 0: {labels}; box: white true, orange predicted (threshold from val)")
    return figure


def _views(own: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in own if name.startswith("view_"))


def per_backbone(cells: Sequence[B]) -> tuple[Figure, list[tuple[Axes, list[B]]]]:
    """A panel a backbone with the cells (or what else has a backbone) that belong there."""
    names = list(dict.fromkeys(cell.backbone for cell in cells))
    figure, axes = plt.subplots(1, len(names), figsize=(COLUMN * len(names), 3.2), squeeze=False, layout="constrained")
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    return figure, [
        (panel, [cell for cell in cells if cell.backbone == name]) for panel, name in zip(axes[0], names, strict=True)
    ]


def _colors(cells: Sequence[Cell]) -> dict[str, Any]:
    return method_colors([cell.method for cell in cells])


def method_colors(methods: Sequence[str]) -> dict[str, Any]:
    """A colour a method, by its place among all that are installed: the same in every figure and study."""
    names = list(dict.fromkeys([*plugins.available(plugins.METHODS), *methods]))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _caption(cells: Sequence[Cell], what: str = "mean ± half-width of the 95 % interval (images and seeds)") -> str:
    seeds = sorted({len(cell.records) for cell in cells})
    images = sorted({record.provenance["images"] for cell in cells for record in cell.records})
    return f"{what}; {'/'.join(map(str, seeds))} seeds, {'/'.join(map(str, images))} test images; settings: main table"


def _legend(axes: Axes) -> None:
    """A small legend below the panel, as many labels side by side as fit."""
    longest = max(map(len, axes.get_legend_handles_labels()[1]))
    columns = max(1, min(4, 52 // (longest + 8)))
    axes.legend(fontsize=6, handlelength=2, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.24))


def caption(figure: Figure, text: str) -> None:
    """A caption under the figure, broken to its width."""
    letters = int(figure.get_figwidth() * 20)  # 6-point letters an inch
    figure.supxlabel(textwrap.fill(text, letters), fontsize=6)


def _mean(cell: Cell, metric: str) -> float:
    return float(np.mean(cell.values(metric)))


def _box(axes: Axes, corners: Any, color: str) -> None:
    x0, y0, x1, y1 = corners
    axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=color, lw=1.2))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``path``.png and ``path``.svg, each whole or not at all, and close it."""
    for suffix in (".png", ".svg"):
        with replacing(path.with_name(path.name + suffix)) as beside:
            figure.savefig(beside, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)
