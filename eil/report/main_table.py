"""The main table, with published scores beside ours, and the table of every setting."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from eil.core.metric_definitions import COLUMNS, GT_KNOWN_LOC, MAIN, MAIN_ORACLE, ScoreKey
from eil.data import class_subset
from eil.evaluation import protocols, statistics
from eil.report import convergence, published
from eil.report.configurations import Configuration, by_backbone, chosen, eligible, interval, over_seeds
from eil.report.differences import as_good_as_the_best, compared
from eil.report.notes import Notes, unequal
from eil.report.published import Published
from eil.report.table import Cell, Number, Probability, Table, Value
from eil.study import precedence
from eil.study.study import Study

Columns = Mapping[str, ScoreKey]  # header -> score
_AGAINST_FIRST = (
    "Δ: GT-known Loc minus that of the first method on the backbone (of a grid, its setting chosen on val), on the "
    "same images and on the seeds that both have, in points; p: of this difference, corrected for all settings on the "
    "backbone (Holm)"
)


def columns_of(study: Study) -> dict[str, ScoreKey]:
    """The main table's columns: those that the study names, or those that the metrics declare."""
    keys = (*MAIN, *MAIN_ORACLE) if study.columns is None else [COLUMNS[label] for label in study.columns]
    return {key.heading: key for key in keys}


def main_table(study: Study, configurations: Sequence[Configuration], notes: Notes) -> Table:
    """Methods x backbones, of a grid the settings chosen on val; a backbone's controls below its methods.

    Other maps of the same networks have a table of their own (:mod:`eil.report.map_table`).
    """
    configurations = [each for each in configurations if not each.extractor]
    best = chosen(configurations)
    shown = [
        each
        for _, of_backbone in by_backbone(best)
        for each in sorted(of_backbone, key=lambda each: each.control is not None)
    ]
    kinds = Counter((each.backbone, each.method, each.control) for each in configurations)
    many = {each.label for each in shown if kinds[each.backbone, each.method, each.control] > 1}
    classifiers = ", ".join(sorted({each.method for each in shown if each.control}))
    notes = replace(
        notes,
        choice=f"settings chosen on val by GT-known Loc: {', '.join(sorted(many))}{_lacking(configurations)}"
        if many
        else "",
        controls=f"controls are not trained: their own maps with the classification of {classifiers}; they are never "
        "bold; the oracle box is the true one, random class the map of another class"
        if classifiers
        else "",
        unequal=unequal(best),
    )
    title = f"{study.name}: methods on {study.dataset.data_name}"
    return _beside_published(scores_table(title, shown, columns_of(study), notes), study, shown)


def _lacking(configurations: Sequence[Configuration]) -> str:
    """How many settings could not be chosen, since they lack seeds; "" for none."""
    kinds: dict[tuple[str, str], list[Configuration]] = {}
    for each in configurations:
        if not each.reuses_network:
            kinds.setdefault((each.backbone, each.method), []).append(each)
    found = [
        f"{method} on {backbone}: {len(every) - len(few)} of {len(every)} settings lack seeds"
        for (backbone, method), every in kinds.items()
        if len(few := eligible(every)) < len(every)
    ]
    return f" (not chosen from all: {', '.join(found)})" if found else ""


def grid_table(study: Study, configurations: Sequence[Configuration], notes: Notes) -> Table:
    """Every configuration of the grid, with its difference from the first method on its backbone."""
    table = scores_table(
        f"{study.name}: every setting on {study.dataset.data_name}", configurations, columns_of(study), notes
    )
    against: dict[Configuration, Sequence[Cell]] = {}
    for _, of_backbone in by_backbone(configurations):
        first = chosen(of_backbone)[0]
        others = [each for each in of_backbone if each is not first]
        against |= zip((first, *others), against_first([first, *others]), strict=True)
    *scores, seeds = table.header
    rows = [[*row[:-1], *against[each], row[-1]] for row, each in zip(table.rows, configurations, strict=True)]
    header = [*scores, f"Δ {GT_KNOWN_LOC.label}", "p (Holm)", seeds]
    return replace(table, header=header, rows=rows, notes=replace(table.notes, columns=_AGAINST_FIRST))


def against_first(group: Sequence[Configuration]) -> list[tuple[Cell, Cell]]:
    """Difference of each from the first in GT-known Loc, and its p-value; – for the first and where none is known."""
    first, *others = group
    found = [compared(each, first, GT_KNOWN_LOC) for each in others]
    p_values = statistics.holm({str(k): each.p_value() for k, each in enumerate(found) if each is not None})
    cells: list[tuple[Cell, Cell]] = [("–", "–")]
    for k, each in enumerate(found):
        cells.append((Value(each.mean, each.half_width()), Probability(p_values[str(k)])) if each else ("–", "–"))
    return cells


def scores_table(
    title: str, configurations: Sequence[Configuration], columns: Columns, notes: Notes, seeds_alone: bool = False
) -> Table:
    """A row a configuration, a column a score that all of them have; the best on each backbone in bold.

    Args:
        title: of the table.
        configurations: a row each.
        columns: header -> score.
        notes: of the table.
        seeds_alone: intervals over seeds alone, and nothing in bold; for scores of which some have no replicates.
    """
    shown = {name: key for name, key in columns.items() if configurations and all(c.has(key) for c in configurations)}
    best: dict[ScoreKey, set[Configuration]] = {key: set() for key in shown.values()}
    for _, of_backbone in by_backbone(configurations) if not seeds_alone else ():
        rivals = [each for each in of_backbone if not each.control]
        for key, winners in best.items():
            winners.update(as_good_as_the_best(rivals, key))
    rows: list[list[Cell]] = []
    for each in configurations:
        found = {key: over_seeds(each, key) if seeds_alone else interval(each, key) for key in best}
        values = [Value(*found[key], each in winners, percent=True) for key, winners in best.items()]
        rows.append([each.backbone, each.marked_label, *values, str(len(each.records))])
    kinds = [(each.backbone, each.control is None) for each in configurations]
    blocks = [k for k in range(1, len(kinds)) if kinds[k] != kinds[k - 1]]
    marked = not all(each.converged for each in configurations)
    notes = replace(
        notes,
        interval=notes.interval + ("" if seeds_alone else _without_images(configurations, shown)),
        convergence=convergence.RULE if marked else "",
    )
    return Table(title, ["Backbone", "Method", *shown, "Seeds"], rows, notes, blocks)


def _without_images(configurations: Sequence[Configuration], shown: Columns) -> str:
    """Which columns have intervals over seeds alone, if others have theirs over images too; all oracles do."""
    own = {name: key for name, key in shown.items() if key.threshold_from != "oracle"}
    lacking = [
        name
        for name, key in own.items()
        if any(record.replicates_of(key) is None for each in configurations for record in each.records)
    ]
    return f"; {', '.join(lacking)}: over seeds alone" if 0 < len(lacking) < len(own) else ""


def _beside_published(table: Table, study: Study, shown: Sequence[Configuration]) -> Table:
    """Columns more for each metric that has published scores: of the same network, with ours minus it; of another."""
    header, rows, sources = list(table.header), [list(row) for row in table.rows], []
    for key in MAIN:
        scores = [_published(study, c, key.label) for c in shown]
        same = [s if s and _same_network_and_recipe(study, c, s) else None for c, s in zip(shown, scores, strict=True)]
        others = [s if s is not found else None for s, found in zip(scores, same, strict=True)]
        if any(same):
            header += [f"published {key.label}", f"Δ vs. published {key.label}"]
            for row, each, score in zip(rows, shown, same, strict=True):
                row.extend(
                    [Number(score.value), Number(each.mean(key) - score.value, signed=True)] if score else ["–", "–"]
                )
        if any(others):
            header.append(f"published, other network or recipe: {key.label}")
            for row, score in zip(rows, others, strict=True):
                row.append(Number(score.value) if score else "–")
        sources += sorted({_source(key.label, score) for score in scores if score})
    return replace(table, header=header, rows=rows, notes=replace(table.notes, published=tuple(sources)))


def _source(label: str, score: Published) -> str:
    where = f"; threshold chosen on {score.threshold}" if score.threshold in ("val", "test") else ""
    return f"published {label}: {score.source}{where}"


def _published(study: Study, c: Configuration, label: str) -> Published | None:
    if not _as_published(study, c):
        return None
    return published.find(study.dataset.data_name, c.backbone, c.control or c.method, label, study.protocols[0])


def _same_network_and_recipe(study: Study, configuration: Configuration, score: Published) -> bool:
    """Whether a run has the published score's network and recipe: its layout and a preset, nothing changed or added.

    All published networks start from torchvision's first weights; what a local file holds is not known.
    """
    run = configuration.records[0].run
    found = precedence.resolve(study, run.backbone, run.method)
    unchanged_preset = found.preset is not None and not (found.replaced or found.changed or found.added)
    return unchanged_preset and run.layout == score.layout and run.pretrained in (True, "IMAGENET1K_V1")


def _as_published(study: Study, configuration: Configuration) -> bool:
    """Published scores are of networks pretrained on ImageNet, of all test images, in the protocol's own geometry.

    None stands beside an imported network, whose recipe is not known.
    """
    run = configuration.records[0].run
    if run.checkpoint:
        return False
    limited = {"classes", "images_per_class", "test_per_class"} & study.dataset.settings.keys()
    whole = class_subset.FULL_SIZES.get(study.dataset.data_name)  # a folder may hold only some classes
    few = whole is not None and any(r.provenance.get("images") != whole.test for r in configuration.records)
    same = run.recipe.geometry == protocols.find(study.protocols[0]).geometry and run.recipe.crops == 1
    return bool(run.pretrained) and not limited and not few and same
