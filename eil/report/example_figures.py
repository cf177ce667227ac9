"""Figures of images: each method's map, its boxes and the true ones, and what it erased."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eil.core.files import InputError
from eil.core.records import Record
from eil.data import cache
from eil.evaluation import example_images
from eil.report.configurations import Configuration, group
from eil.report.figure_style import STYLE, caption, save, threshold

TRUE_BOX, PREDICTED_BOX, OUTLINE = "#ffffff", "#ffb000", "#56b4e9"
ERASED = "extra_erased region"
EXAMPLES_SHOWN = 6
DOTS = 80  # an inch: a small photo's own pixels, so that a page of such figures stays light


def qualitative(examples: Mapping[Configuration, Mapping[str, Any]], extra_maps: bool = False) -> Figure:
    """Image and each method's map with the predicted and the true box, a row an image, of the first seed.

    Args:
        examples: what evaluate kept of each configuration's first repetition.
        extra_maps: show the methods' extra maps beside their maps.
    """
    configurations = list(examples)
    columns: list[tuple[Configuration, str, str]] = [(configurations[0], "images", "image")]
    for each, arrays in examples.items():
        erases = "extra_erased map" in arrays
        columns.append((each, "maps", each.extractor or f"{each.method}: {'unerased ' if erases else ''}map"))
        shown = extra_maps_of(arrays) if extra_maps else []
        columns += [(each, name, f"{each.method}: {name.removeprefix('extra_')}") for name in shown]
    count = len(examples[configurations[0]]["ids"])
    rows = np.unique(np.linspace(0, count - 1, EXAMPLES_SHOWN).round().astype(int))
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(max(1.15 * len(columns), 3.0), 1.15 * len(rows) + 0.6),
        squeeze=False,
        layout="constrained",
        dpi=DOTS,
    )
    for row, panels in zip(rows, grid, strict=True):
        for axes, (each, name, title) in zip(panels, columns, strict=True):
            arrays = examples[each]
            axes.imshow(arrays["images"][row])
            if name != "images":
                axes.imshow(arrays[name][row], cmap="inferno", alpha=0.55, vmin=0, vmax=255)
            _boxes(axes, arrays, "true", row, TRUE_BOX)
            if name == "maps":
                _boxes(axes, arrays, "predicted", row, PREDICTED_BOX)
                if ERASED in arrays:
                    axes.contour(arrays[ERASED][row], [127], colors=OUTLINE, linewidths=0.7)
            axes.set_axis_off()
            if row == rows[0]:
                axes.set_title(title, fontsize=7)
    labels = ", ".join(each.label for each in configurations)
    erased = (
        "; blue outline: what training would erase" if any(ERASED in arrays for arrays in examples.values()) else ""
    )
    more = any(len(arrays.get(f"further_{name}", ())) for arrays in examples.values() for name in ("true", "predicted"))
    rest = "; solid: the pair that is scored, dashed: the others" if more else ""
    boxes = f"box: white true, orange predicted ({threshold(configurations)}){rest}{erased}"
    seeds = "/".join(dict.fromkeys(str(each.records[0].run.repetition) for each in configurations))
    caption(figure, f"{configurations[0].backbone}, seed {seeds}: {labels}; {boxes}")
    return figure


def picks(configurations: Sequence[Configuration], runs: Path, count: int = EXAMPLES_SHOWN) -> dict[str, list[int]]:
    """Positions of the test images that the methods' first repetitions get best and worst, and disagree on most.

    Args:
        configurations: contestants on one backbone, two or more.
        runs: in which their runs' folders are.
        count: of each.
    """
    found = np.stack(
        [example_images.ious_of_run(each.records[0], runs / each.records[0].run.name) for each in configurations]
    )  # (M, N)
    mean, apart = found.mean(axis=0), np.abs(found[0] - found[1])
    order = np.argsort(mean, kind="stable")
    return {
        "best": order[::-1][:count].tolist(),
        "worst": order[:count].tolist(),
        f"{configurations[0].method}_against_{configurations[1].method}": np.argsort(-apart, kind="stable")[
            :count
        ].tolist(),
    }


def draw_one(record: Record, image: str, data: Path, folder: Path, path: Path) -> Path:
    """Draw one test image of a run as :func:`qualitative` does, to ``path``, a PNG file; the path.

    Raises:
        InputError: no such image, or no maps any more.
    """
    ids = cache.open_split(data, "test").ids
    if image not in ids:
        raise InputError(f"--image {image}: not among the {len(ids)} test images, of which {ids[0]} is the first")
    (configuration,) = group([record])
    with plt.rc_context(STYLE):
        save(
            qualitative({configuration: example_images.of_run(record, data, folder, [ids.index(image)])}),
            path.with_suffix(""),
        )
    return path.with_suffix(".png")


def extra_maps_of(arrays: Mapping[str, Any]) -> list[str]:
    """Names of a method's extra maps."""
    return sorted(name for name in arrays if name.startswith("extra_"))


def _boxes(axes: Axes, arrays: Mapping[str, Any], name: str, row: int, color: str) -> None:
    """Draw an image's true or predicted boxes: solid the one that is scored, dashed the others."""
    image_of_box = arrays.get(f"further_{name}_of", np.empty(0))
    for corners in arrays.get(f"further_{name}", np.empty((0, 4)))[image_of_box == row]:
        _box(axes, corners, color, lw=0.6, ls="--")
    if np.isfinite(arrays[name][row]).all():  # else the map has no contrast, and no box
        _box(axes, arrays[name][row], color, lw=1.2)


def _box(axes: Axes, corners: Any, color: str, **style: Any) -> None:
    x0, y0, x1, y1 = corners
    axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=color, **style))
