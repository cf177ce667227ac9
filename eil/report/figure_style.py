"""What all figures share: one style, one colour per method, captions, and files as PNG and SVG."""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import matplotlib
import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eil.core import registry
from eil.core.files import atomic_write
from eil.report.configurations import Configuration

matplotlib.use("agg")  # files, never a window


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
ACROSS = 4  # panels side by side
COLUMN = 3.4  # inches, a column of a two-column paper
LETTERS = 20  # of 6 points, an inch
THRESHOLDS = {
    "val": "threshold chosen on val",
    "oracle": "threshold chosen on test",
    "fixed": "fixed threshold",
    "otsu": "threshold of Otsu",
}


def per_backbone(items: Sequence[B]) -> tuple[Figure, list[tuple[Axes, list[B]]]]:
    """A panel a backbone with the configurations (or anything else that has a backbone) that belong there."""
    names = list(dict.fromkeys(each.backbone for each in items))
    figure, panels = panel_grid(len(names), (COLUMN, 3.2))
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name)
    return figure, [
        (panel, [each for each in items if each.backbone == name]) for panel, name in zip(panels, names, strict=True)
    ]


def panel_grid(count: int, size: tuple[float, float], **options: Any) -> tuple[Figure, list[Axes]]:
    """So many panels, at most :data:`ACROSS` side by side.

    Args:
        count: of panels.
        size: width and height of one, in inches.
        options: of ``plt.subplots``.
    """
    across = min(count, ACROSS)
    down = -(-count // ACROSS)
    figure, axes = plt.subplots(
        down, across, figsize=(size[0] * across, size[1] * down), squeeze=False, layout="constrained", **options
    )
    panels = list(axes.flat)
    for empty in panels[count:]:
        empty.set_axis_off()
    return figure, panels[:count]


def colors_of(configurations: Sequence[Configuration]) -> dict[str, Any]:
    """:func:`method_colors` of these configurations' methods."""
    return method_colors([each.method for each in configurations])


def method_colors(methods: Sequence[str]) -> dict[str, Any]:
    """A colour a method, by its place among all that are installed: the same in every figure and study."""
    names = list(dict.fromkeys([*registry.available(registry.METHODS), *methods]))
    # Ten that colour-blind readers can tell apart, then their dark shades; after twenty they begin again.
    palette = [*sns.color_palette("colorblind"), *sns.color_palette("dark")]
    return dict(zip(names, itertools.cycle(palette), strict=False))


def about(
    configurations: Sequence[Configuration],
    what: str = "mean ± half-width of the 95 % interval (images and seeds)",
    grid_of_settings: bool = False,
) -> str:
    """A caption: what is shown, over how many seeds and images; of a grid, where the chosen settings are listed."""
    seeds = sorted({len(each.records) for each in configurations})
    images = sorted({record.provenance["images"] for each in configurations for record in each.records})
    counts = f"{what}; {'/'.join(map(str, seeds))} seeds, {'/'.join(map(str, images))} test images"
    return counts if grid_of_settings else f"{counts}; settings: main table"


def threshold(configurations: Sequence[Configuration]) -> str:
    """In words, where the threshold of the drawn boxes comes from: the own one of the records' protocol."""
    used = [record.threshold_from[record.protocol] for each in configurations for record in each.records]
    return " or ".join(dict.fromkeys(THRESHOLDS[name] for name in used))


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


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``path``.png and ``path``.svg, each whole or not at all, and close it."""
    for suffix in (".png", ".svg"):
        with atomic_write(path.with_name(path.name + suffix)) as beside:
            figure.savefig(beside, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(figure)


def error_bars(means: npt.ArrayLike, halves: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Lengths of error bars below and above, (2, N): those of a percentage end at 0 and 100; none for NaN."""
    middle, half = np.asarray(means, float), np.nan_to_num(np.asarray(halves, float))
    room = np.clip([middle, 100 - middle], 0, None)
    return np.asarray(np.minimum(np.stack([half, half]), room))
