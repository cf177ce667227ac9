"""A contact sheet: images of a data set as they are, with their boxes, and with their parts where it has them."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from eil.core.files import atomic_write
from eil.data import IGNORED, Dataset, Image, decode
from eil.data.decode import Annotation

matplotlib.use("agg")
COLUMNS, ROWS = 8, 3
BOX = "#ffb000"
LETTERS, TITLE_LINES = 18, 2  # of a class's name, a line and in all


def write(dataset: Dataset, path: Path) -> None:
    """Draw test images spread over the classes, with the boxes that a study would use, then a row with parts.

    Args:
        dataset: from its reader; images are decoded here.
        path: of the PNG.

    Raises:
        InputError: an image that cannot be used.
    """
    test = dataset.splits["test"]
    count = min(len(test.ids), COLUMNS * ROWS)
    indices = np.linspace(0, len(test.ids) - 1, count).round().astype(int).tolist()
    rows = -(-count // COLUMNS)
    figure, grid = plt.subplots(
        rows + (test.masks is not None),
        COLUMNS,
        figsize=(1.25 * COLUMNS, 1.5 * (rows + (test.masks is not None)) + 0.2),
        squeeze=False,
        layout="constrained",
        dpi=130,
    )
    try:
        images = [test.image(index) for index in indices]
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        found = [decode.annotation(test, i, size, scored=True) for i, size in zip(indices, sizes, strict=True)]
        titles = [dataset.classes[test.labels[index]] for index in indices]
        _draw_images(list(grid[:rows].T.flat), images, found, titles)  # a class's images stand below each other
        if test.masks is not None:
            _draw_parts(figure, grid[-1], found[::rows], dataset.parts or ("object",))
        with atomic_write(path) as beside:
            figure.savefig(beside)
    finally:
        plt.close(figure)


def _draw_images(
    panels: Sequence[Axes], images: Sequence[Image], found: Sequence[Annotation], titles: Sequence[str]
) -> None:
    for axes in panels:
        axes.set_axis_off()
    for axes, image, each, title in zip(panels, images, found, titles, strict=False):
        _show(axes, image)
        for x0, y0, x1, y1 in each.boxes:
            axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0 + 1, y1 - y0 + 1, fill=False, ec=BOX, lw=1.2))
        name = textwrap.wrap(title.replace("_", " "), LETTERS, max_lines=TITLE_LINES, placeholder=" …")
        axes.set_title("\n".join(name), fontsize=6.5, pad=2)


def _draw_parts(figure: Figure, panels: Sequence[Axes], found: Sequence[Annotation], names: Sequence[str]) -> None:
    colors = np.array([(0, 0, 0), *sns.color_palette("colorblind", len(names))])
    for axes in panels:
        axes.set_axis_off()
    for axes, each in zip(panels, found, strict=False):
        assert each.mask is not None  # where there are masks, every image has one
        part = np.where(each.mask == IGNORED, 0, np.minimum(each.mask, len(names)))  # objects share a colour
        _show(axes, np.dstack([colors[part], np.where(part > 0, 0.85, 0.45)]))
    patches = [Patch(color=color, label=name) for name, color in zip(names, colors[1:], strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=7, frameon=False)


def _show(axes: Axes, image: Image | Any) -> None:
    """An image at the top of a square, so that panels of photos of all shapes have one size."""
    height, width = image.shape[:2]
    side = max(height, width)
    axes.imshow(image)
    axes.set_xlim(width / 2 - side / 2 - 0.5, width / 2 + side / 2 - 0.5)
    axes.set_ylim(side - 0.5, -0.5)
