"""A contact sheet: images of a data set as they are, with their boxes, and with their parts where it has them."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from eil.data import IGNORED, Dataset
from eil.files import replacing

matplotlib.use("agg")
COLUMNS, ROWS = 8, 3
BOX = "#ffb000"


def write(dataset: Dataset, path: Path) -> None:
    """Draw test images spread over the classes: rows with boxes, then a row with parts.

    Args:
        dataset: from its reader; images are decoded here.
        path: of the PNG.
    """
    test = dataset.splits["test"]
    rows = ROWS + (test.masks is not None)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(COLUMNS, rows + 0.4), squeeze=False, layout="constrained", dpi=110
    )
    try:
        _draw(dataset, figure, grid)
        with replacing(path) as beside:
            figure.savefig(beside)
    finally:
        plt.close(figure)


def _draw(dataset: Dataset, figure: Figure, grid: Any) -> None:
    test = dataset.splits["test"]
    shown = np.linspace(0, len(test.ids) - 1, COLUMNS * ROWS).round().astype(int).reshape(COLUMNS, ROWS).T
    for panels, indices in zip(grid, [*shown, shown[0]], strict=False):
        for axes, index in zip(panels, indices, strict=True):
            axes.imshow(test.image(index))
            axes.set_axis_off()
            for x0, y0, x1, y1 in test.boxes[index]:
                box = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=BOX, lw=1)
                axes.add_patch(box)
    for axes, index in zip(grid[0], shown[0], strict=True):
        axes.set_title(dataset.classes[test.labels[index]][:14], fontsize=7)
    if test.masks is not None:
        names = dataset.parts or ("object",)
        colors = np.array([(0, 0, 0), *sns.color_palette("colorblind", len(names))])
        for axes, index in zip(grid[-1], shown[0], strict=True):
            mask = test.mask(index)
            assert mask is not None  # where there are masks, every image has one
            part = np.where(mask == IGNORED, 0, np.minimum(mask, len(names)))  # objects share a colour
            axes.imshow(np.dstack([colors[part], np.where(part > 0, 0.85, 0.45)]))
        patches = [Patch(color=color, label=name) for name, color in zip(names, colors[1:], strict=True)]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=7, frameon=False)
