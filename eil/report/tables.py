"""Every table of a study, declared in :data:`DECLARED`, and the code of those that are not just scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eil.core.metric_definitions import GT_KNOWN_LOC, METRICS, THRESHOLD_SOURCES, ScoreKey
from eil.core.records import Record
from eil.evaluation import statistics
from eil.evaluation.errors import KIND_LABELS, SIZE_SUBSETS
from eil.report import ablation, convergence, map_table, notes, provenance_tables
from eil.report.configurations import Configuration, by_backbone, chosen, group
from eil.report.differences import compared
from eil.report.main_table import Columns, grid_table, main_table, scores_table
from eil.report.notes import Notes
from eil.report.table import Cell, Number, Probability, Table, Value
from eil.study.study import Study

THRESHOLD_LABELS = {"val": "val", "fixed": "fixed", "otsu": "Otsu", "oracle": "oracle"}


@dataclass(frozen=True)
class ScoresTable:
    """A table of scores: a row a configuration, of a grid the one chosen on val.

    Attributes:
        name: of its files.
        title: what it shows.
        columns: by the study and one of its records, header -> score; columns that a configuration lacks are left out.
        explanation: what the columns mean.
    """

    name: str
    title: str
    columns: Callable[[Study, Record], Columns]
    explanation: str = ""


def threshold_sources(study: Study, record: Record) -> Columns:
    """GT-known Loc by each threshold, and the images that are missed."""
    arrow = METRICS["gt_known_loc"].arrow
    found = {f"{THRESHOLD_LABELS[t]}{arrow}": ScoreKey("gt_known_loc", threshold_from=t) for t in THRESHOLD_SOURCES}
    return found | {key.heading: key for key in (ScoreKey("map_loss"), ScoreKey("threshold_loss"))}


def errors(study: Study, record: Record) -> Columns:
    """Each kind of error."""
    return {label: ScoreKey("box_kind", kind) for kind, label in KIND_LABELS.items()}


def sizes(study: Study, record: Record) -> Columns:
    """Each range of sizes that holds images, with their number."""
    counts = {subset: record.value(ScoreKey("images", subset)) for subset in SIZE_SUBSETS}
    return {
        f"{SIZE_SUBSETS[subset]} (n = {count:.0f})": ScoreKey("gt_known_loc", subset)
        for subset, count in counts.items()
        if count is not None
    }


def masks(study: Study, record: Record) -> Columns:
    """Scores of pixels, and how much of each part is covered."""
    found = {key.heading: key for key in (ScoreKey("px_ap"), ScoreKey("pixel_iou"))}
    return found | {f"{part} covered": ScoreKey("part_coverage", part) for part in record.subsets("part_coverage")}


def protocols(study: Study, record: Record) -> Columns:
    """GT-known Loc by each protocol, if there are several."""
    names = study.protocols
    return {name: ScoreKey("gt_known_loc", protocol=name) for name in names} if len(names) > 1 else {}


DECLARED = (
    ScoresTable(
        "threshold_sources",
        "GT-known Loc by where the threshold comes from",
        threshold_sources,
        "missed at every threshold: none makes the box good enough; missed by this threshold: another one does",
    ),
    ScoresTable(
        "errors",
        "kinds of error",
        errors,
        "of the box that the protocol scores; a wrong class comes first, then IoU above 0.5 (correct), then the others "
        "from left to right, as SPA has them",
    ),
    ScoresTable("sizes", "GT-known Loc by the share of the image that the object covers", sizes),
    ScoresTable("masks", "pixels", masks, "pixel IoU: pooled over images, at the threshold that is best on val"),
    ScoresTable("protocols", "GT-known Loc of the same maps by protocol, each with its own threshold", protocols),
)


def write(study: Study, records: Sequence[Record], planned: int, left_out: Sequence[str]) -> dict[str, str]:
    """Every table of a study in every format, file name -> content.

    Args:
        study: what was compared.
        records: of the runs that there are.
        planned: how many runs there should be.
        left_out: what else every table says of itself, a line each.
    """
    shared = notes.of_study(study, records, planned, left_out)
    found = {
        name: table
        for name, table in _of_scores(study, group(records), shared).items()
        if any(isinstance(cell, Value) for row in table.rows for cell in row)
    }
    done = [record for record in records if record.status == "done"]
    if any(not record.run.reuses_network for record in done):
        found["settings"] = provenance_tables.settings(study, [record.run for record in done])
        found["provenance"] = provenance_tables.provenance(study, done)
    failed = [[r.run.name, r.step or "–", " ".join((r.error or "").split())] for r in records if r.status == "failed"]
    if failed:
        found["failures"] = Table(f"{study.name}: runs that failed", ["Run", "Step", "Error"], failed)
    return {
        f"{name}.{suffix}": text
        for name, table in found.items()
        if table.rows
        for suffix, text in table.formats().items()
    }


def comparisons(study: Study, configurations: Sequence[Configuration], shared: Notes) -> Table:
    """Each method against the first on its backbone, in GT-known Loc."""
    rows: list[list[Cell]] = []
    for backbone, (base, *others) in by_backbone(configurations):
        found = {each.marked_label: compared(each, base, GT_KNOWN_LOC) for each in others}
        known = {label: estimate for label, estimate in found.items() if estimate is not None}
        corrected = statistics.holm({label: estimate.p_value() for label, estimate in known.items()})
        for label, each in known.items():
            better, least = each.probability_of_improvement(), each.minimum_detectable_effect()
            numbers = Probability(better), Probability(corrected[label]), Number(least)
            rows.append([backbone, label, base.marked_label, Value(each.mean, each.half_width()), *numbers])
    header = ["Backbone", "Method", "against", "difference", "P(better)", "p (Holm)", "smallest detectable"]
    explanation = (
        "difference in points of GT-known Loc; its interval and P(better) are of this comparison alone, p is "
        "corrected for all on the backbone; P(better): that the true difference is above 0, 1 - p/2 before the "
        "correction; smallest detectable: the true difference that this study would find significant at 5 %, "
        "before the correction, with a power of 80 %"
    )
    marked = not all(each.converged for each in configurations)
    table_notes = replace(shared, columns=explanation, convergence=convergence.RULE if marked else "")
    return Table(f"{study.name}: against the first method", header, rows, table_notes)


def _of_scores(study: Study, configurations: Sequence[Configuration], shared: Notes) -> dict[str, Table]:
    """Every table that the records allow, by its file's name."""
    methods = [each for each in configurations if not each.reuses_network]
    if not methods:
        return {}
    best = chosen(methods)
    shared = replace(shared, detectable=notes.detectable(best), outlying=notes.outlying(best))
    found = {"main": main_table(study, configurations, shared), "grid": grid_table(study, methods, shared)}
    found |= {f"gamma_sigma_{name}": t for name, t in ablation.gamma_sigma_tables(study, methods, shared).items()}
    for declared in DECLARED:
        table_notes = replace(shared, columns=declared.explanation, interval=notes.seeds_alone(study))
        if declared.name == "protocols":
            table_notes = replace(
                table_notes, geometry=notes.other_geometry(study.protocols, [r for c in best for r in c.records])
            )
        columns = declared.columns(study, best[0].records[0])
        found[declared.name] = scores_table(
            f"{study.name}: {declared.title}", best, columns, table_notes, seeds_alone=True
        )
    found["comparisons"] = comparisons(study, best, shared)
    found["maps"] = map_table.other_maps_table(study, configurations, shared)
    for name, settings in ablation.effects(methods).items():
        found[f"marginal_{name}"] = ablation.marginal(study, name, settings, shared)
    return found
