"""Every figure of a study, as PNG and SVG: those of scores are declared in :data:`DECLARED`."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.core.files import InputError, atomic_write, read_arrays
from eil.core.metric_definitions import GT_KNOWN_LOC, ScoreKey
from eil.core.records import Record
from eil.core.run import file_name
from eil.evaluation import example_images
from eil.evaluation.errors import KINDS
from eil.report import ablation, example_figures, figure_selection, map_figures, score_figures
from eil.report.configurations import Configuration, by_backbone, chosen, group, other_maps
from eil.report.figure_style import STYLE, save

_log = logging.getLogger(__name__)
Draw = Callable[[Sequence[Configuration]], Figure]


def _always(record: Record) -> list[ScoreKey]:
    return [ScoreKey("gt_known_loc")]


def _errors(record: Record) -> list[ScoreKey]:
    return [ScoreKey("box_kind", kind) for kind in KINDS]


def _sizes(record: Record) -> list[ScoreKey]:
    return [ScoreKey("gt_known_loc", subset) for subset in record.subsets("images")]


def _parts(record: Record) -> list[ScoreKey]:
    return [ScoreKey("part_coverage", part) for part in record.subsets("part_coverage")]


def _protocols(record: Record) -> list[ScoreKey]:
    others = [name for name in record.threshold_from if name != record.protocol]
    return [ScoreKey("gt_known_loc", protocol=name) for name in others]


# name, what draws it, and the scores of the first record that all configurations must have, at least one
DECLARED: tuple[tuple[str, Draw, Callable[[Record], list[ScoreKey]]], ...] = (
    ("thresholds", score_figures.over_thresholds, _always),
    ("errors", score_figures.errors, _errors),
    ("sizes", score_figures.sizes, _sizes),
    ("part_coverage", score_figures.part_coverage, _parts),
    ("protocols", score_figures.protocols, _protocols),
)


def write(records: Sequence[Record], results: Path, data: Path) -> None:
    """Draw every figure that the records allow into ``results/figures``, whole or not at all.

    Args:
        records: of a study, done.
        results: its folder, which has ``runs/{run}/examples.npz`` too, and maps if they were kept.
        data: folder in which the decoded images' folders are; some figures need them.
    """
    every = group(records)
    methods = [each for each in every if not each.reuses_network]
    with atomic_write(results / "figures") as beside, plt.rc_context(STYLE):
        beside.mkdir()
        for name, draw in drawable(methods, results / "runs", data) if methods else ():
            save(draw(), beside / name)
        for name, draw in of_other_maps(every, results / "runs"):
            save(draw(), beside / name)


def drawable(methods: Sequence[Configuration], runs: Path, data: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Name of each figure that the records allow, and what draws it."""
    best, left_out = figure_selection.methods_shown(chosen(methods))
    grids, note = figure_selection.grids_shown(ablation.gamma_sigma_grids(methods), "grids over γ and σ")
    for name, grid in grids.items():
        draw = partial(score_figures.gamma_sigma, grid, best)
        yield f"gamma_sigma_{name}", partial(figure_selection.with_note, draw, note)
    own_of = defaultdict(list)
    for each in methods:
        own_of[f"{file_name(each.backbone)}_{each.method}"].append(each)
    effects = ablation.effects(methods)
    of_settings, note = figure_selection.grids_shown({name: own_of[name] for name in effects}, "methods with a grid")
    for name, of_method in of_settings.items():
        draw = partial(score_figures.ablation, effects[name], of_method)
        yield f"ablation_{name}", partial(figure_selection.with_note, draw, note)
    for name, draw_scores in of_scores(best):
        yield name, partial(figure_selection.with_note, draw_scores, left_out)
    for name, draw_images in _of_images(best, runs, data):
        yield name, partial(figure_selection.with_note, draw_images, left_out)


def _of_images(best: Sequence[Configuration], runs: Path, data: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Maps of the examples, and of images that are picked by the methods' scores."""
    for backbone, of_backbone in by_backbone(best):
        shown = {each: read_arrays(runs / each.records[0].run.name / "examples.npz") for each in of_backbone}
        yield f"examples_{file_name(backbone)}", partial(example_figures.qualitative, shown)
        inside = {each: found for each, found in shown.items() if example_figures.extra_maps_of(found)}
        if inside:
            yield f"extra_maps_{file_name(backbone)}", partial(example_figures.qualitative, inside, extra_maps=True)
        if len(of_backbone) > 1:
            yield from _picked(of_backbone, runs, data)


def of_scores(best: Sequence[Configuration]) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Those of :data:`DECLARED` whose scores all have, training, and the improvement of one method over another."""
    for name, draw, needed in DECLARED:
        keys = needed(best[0].records[0])
        if keys and all(each.has(key) for each in best for key in keys):
            yield name, partial(draw, best)
    trained = [each for each in best if each.records[0].history]
    if trained:
        yield "training", partial(score_figures.training_curves, trained)
    if trained and all("val_top1" in record.history for each in trained for record in each.records):
        yield "val_accuracy", partial(score_figures.val_accuracy, trained)
    if len(best) > len(by_backbone(best)) and best[0].replicates(GT_KNOWN_LOC) is not None:
        yield "improvement", partial(score_figures.improvement, best)


def of_other_maps(every: Sequence[Configuration], runs: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Scores of the extractors' maps beside the methods' own, and the maps themselves for each method."""
    groups, left_out = figure_selection.kinds_shown(other_maps(every))
    if groups:
        yield "maps", partial(figure_selection.with_note, partial(map_figures.other_maps_figure, groups), left_out)
    few = f"the first {figure_selection.MOST_FIGURES} of {len(groups)} methods are drawn"
    note = "; ".join(filter(None, [left_out, few if len(groups) > figure_selection.MOST_FIGURES else ""]))
    for same in groups[: figure_selection.MOST_FIGURES]:
        shown = {each: read_arrays(runs / each.records[0].run.name / "examples.npz") for each in same}
        draw = partial(example_figures.qualitative, shown)
        yield f"maps_{file_name(same[0].backbone)}_{same[0].method}", partial(figure_selection.with_note, draw, note)


def _picked(of_backbone: Sequence[Configuration], runs: Path, data: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Images picked by how well the methods do on them, if maps and images are still there."""
    try:
        for name, positions in example_figures.picks(of_backbone, runs).items():
            first = [each.records[0] for each in of_backbone]
            folders = [(data / record.run.cache, runs / record.run.name) for record in first]
            shown = {
                each: example_images.of_run(record, *where, positions)
                for each, record, where in zip(of_backbone, first, folders, strict=True)
            }
            yield f"examples_{file_name(of_backbone[0].backbone)}_{name}", partial(example_figures.qualitative, shown)
    except InputError as error:
        _log.info("no picked examples: %s", error)
