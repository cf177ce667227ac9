"""Every figure of a study, as PNG and SVG, from its records and what evaluating kept beside them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.core.files import InputError, read_arrays, replacing
from eil.core.records import Record
from eil.evaluation import example_images
from eil.report import ablation, bars, examples, figures
from eil.report.configurations import Cell, chosen, group
from eil.report.figures import STYLE, save
from eil.report.tables import gamma_sigma_grids

_log = logging.getLogger(__name__)


def write(records: Sequence[Record], results: Path, data: Path) -> None:
    """Draw every figure that the records allow into ``results/figures``, whole or not at all.

    Args:
        records: of a study, done.
        results: its folder, which has ``runs/{run}/examples.npz`` too, and maps if they were kept.
        data: folder in which the decoded images' folders are; some figures need them.
    """
    cells = [cell for cell in group(records) if not cell.control]
    with replacing(results / "figures") as beside, plt.rc_context(STYLE):
        beside.mkdir()
        for name, drawn in _drawn(cells, results / "runs", data):
            save(drawn(), beside / name)


def _drawn(cells: Sequence[Cell], runs: Path, data: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Name of each figure and what draws it."""
    if not cells:
        return
    best = chosen(cells)
    for name, grid in gamma_sigma_grids(cells).items():
        yield f"gamma_sigma_{name}", partial(figures.gamma_sigma, grid, cells)
    for name, found in ablation.effects(cells).items():
        yield f"ablation_{name}", partial(ablation.curves, name, found, cells)
    yield from _of_scores(best)
    for backbone in dict.fromkeys(cell.backbone for cell in best):
        own = [cell for cell in best if cell.backbone == backbone]
        shown = {cell: read_arrays(runs / cell.records[0].run.name / "examples.npz") for cell in own}
        yield f"examples_{backbone}", partial(examples.qualitative, shown)
        inside = {cell: found for cell, found in shown.items() if examples.views_of(found)}
        if inside:
            yield f"views_{backbone}", partial(examples.qualitative, inside, views=True)
        if len(own) > 1:
            yield from _picked(own, runs, data)


def _picked(own: Sequence[Cell], runs: Path, data: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Images that were picked by how well the methods do on them, if maps and images are still there."""
    try:
        for name, positions in examples.picks(own, runs).items():
            first = [cell.records[0] for cell in own]
            folders = [(data / record.run.cache, runs / record.run.name) for record in first]
            shown = {
                cell: example_images.of_run(record, *where, positions)
                for cell, record, where in zip(own, first, folders, strict=True)
            }
            yield f"examples_{own[0].backbone}_{name}", partial(examples.qualitative, shown)
    except InputError as error:
        _log.info("no picked examples: %s", error)


def _of_scores(best: Sequence[Cell]) -> Iterator[tuple[str, Callable[[], Figure]]]:
    yield "thresholds", partial(figures.over_thresholds, best)
    yield "training", partial(figures.training_curves, best)
    if all(cell.has("error.correct") for cell in best):
        yield "errors", partial(bars.errors, best)
    if any(key.startswith("size.") for key in best[0].records[0].metrics):
        yield "sizes", partial(bars.sizes, best)
    parts = [key for key in best[0].records[0].metrics if key.startswith("coverage.")]
    if parts and all(cell.has(key) for cell in best for key in parts):
        yield "part_coverage", partial(figures.part_coverage, best)
    others = [name for name in best[0].records[0].others if all(cell.has(f"gt_known_loc@{name}") for cell in best)]
    if others:
        names = [best[0].records[0].protocol, *others]
        yield "protocols", partial(bars.protocols, best, names, figures.METRIC)
    if len(best) > len({cell.backbone for cell in best}) and best[0].replicates(figures.METRIC) is not None:
        yield "improvement", partial(bars.improvement, best)
