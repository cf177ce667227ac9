"""The main table, the grid, and gamma over sigma, from records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eil.core.run import readable
from eil.data import class_subset
from eil.evaluation import protocols
from eil.report import published
from eil.report.configurations import OWN, Cell, as_good_as_the_best, chosen, interval, shared_label
from eil.report.table import Table, Value
from eil.study.study import Study

# column -> metric; the threshold is the protocol's unless the column says oracle
MAIN = {
    "Top-1 Loc ↑": "test.own.top1_loc",
    "GT-known Loc ↑": "test.own.gt_known_loc",
    "MaxBoxAccV2 ↑": "test.own.max_box_acc_v2",
    "Top-1 Cls ↑": "test.own.top1_cls",
    "GT-known Loc (oracle) ↑": "test.oracle.gt_known_loc",
    "MaxBoxAccV2 (oracle) ↑": "test.oracle.max_box_acc_v2",
}
METRIC = MAIN["GT-known Loc ↑"]
FURTHER = {
    "Top-5 Loc ↑": "test.own.top5_loc",
    "Top-5 Cls ↑": "test.own.top5_cls",
    "Top-1 Loc (oracle) ↑": "test.oracle.top1_loc",
    "PxAP ↑": "test.px_ap",
    "pixel IoU ↑": "test.pixel_iou",
}


def columns_of(study: Study) -> dict[str, str]:
    """The main table's columns, column -> metric: those that the study names, or the field's."""
    if study.columns is None:
        return MAIN
    known = MAIN | FURTHER
    by_name = {name.removesuffix(" ↑"): name for name in known}
    return {by_name[name]: known[by_name[name]] for name in study.columns}


def main_table(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Methods x backbones, of a grid the settings chosen on val; a backbone's controls below its methods."""
    backbones = list(dict.fromkeys(cell.backbone for cell in cells))
    contestants = sorted(chosen(cells), key=lambda cell: (backbones.index(cell.backbone), cell.control is not None))
    kinds = [(cell.backbone, cell.method, cell.control) for cell in cells]
    many = {c.label for c in contestants if kinds.count((c.backbone, c.method, c.control)) > 1}
    note = [f"settings chosen on val by GT-known Loc: {', '.join(sorted(many))}"] if many else []
    if borrowed := {cell.method for cell in contestants if cell.control}:
        note.append(
            f"controls learn nothing: their own maps with the classification of {', '.join(sorted(borrowed))}; none is "
            "compared for the best; the oracle box is the true one, random class the map of another class"
        )
    table = cells_table(
        f"{study.name}: methods on {study.dataset.subject}", contestants, columns_of(study), [*notes, *note]
    )
    return _beside_published(table, study, contestants)


def _beside_published(table: Table, study: Study, cells: Sequence[Cell]) -> Table:
    """Two columns more, the published score and ours less it, for each metric of which there is any."""
    header, rows, notes = list(table.header), [list(row) for row in table.rows], list(table.notes)
    for column in (name for name, metric in MAIN.items() if metric.startswith(OWN)):
        metric = column.removesuffix(" ↑")
        keys = [(study.dataset.subject, c.backbone, c.control or c.method, metric, study.protocols[0]) for c in cells]
        scores = [
            published.find(*key) if _as_published(study, cell) else None for key, cell in zip(keys, cells, strict=True)
        ]
        if any(scores):
            header += [f"published {metric}", f"less published {metric}"]
            for row, cell, score in zip(rows, cells, scores, strict=True):
                ours = cell.mean(MAIN[column])
                row.extend([f"{score.value:.1f}", f"{ours - score.value:+.1f}"] if score else ["–", "–"])
            notes += sorted({f"published {metric}: {score.source}" for score in scores if score})
    return replace(table, header=header, rows=rows, notes=notes)


def _as_published(study: Study, cell: Cell) -> bool:
    """Published scores are of networks pretrained on ImageNet, of all test images, in the protocol's own geometry."""
    run = cell.records[0].run
    limited = {"classes", "images_per_class", "test_per_class"} & study.dataset.settings.keys()
    whole = class_subset.FULL_SIZES.get(study.dataset.subject)  # a folder may hold some classes alone
    few = whole is not None and any(record.provenance.get("images") != whole.test for record in cell.records)
    same = run.recipe.geometry == protocols.find(study.protocols[0]).geometry and run.recipe.crops == 1
    return bool(run.pretrained) and not limited and not few and same


def grid_table(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Every cell of the grid."""
    return cells_table(f"{study.name}: every setting on {study.dataset.subject}", cells, columns_of(study), notes)


def gamma_sigma_tables(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> dict[str, Table]:
    """GT-known Loc over gamma and sigma, one table per backbone, method and other settings."""
    tables = {}
    for name, grid in gamma_sigma_grids(cells).items():
        gammas = sorted({float(cell.settings["gamma"]) for cell in grid})
        sigmas = sorted({float(cell.settings["sigma"]) for cell in grid})
        at = {(float(cell.settings["gamma"]), float(cell.settings["sigma"])): cell for cell in grid}
        best = as_good_as_the_best(grid, METRIC)
        rows: list[list[str | Value]] = []
        for gamma in gammas:
            line = [at.get((gamma, sigma)) for sigma in sigmas]
            rows.append([f"{gamma:g}", *(Value(*interval(c, METRIC), c in best) if c else "–" for c in line)])
        header = ["γ", *(f"σ = {sigma:g}" for sigma in sigmas)]
        tables[name] = Table(f"{study.name}: GT-known Loc ↑ of {shared_label(grid)} over γ and σ", header, rows, notes)
    return tables


def gamma_sigma_grids(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells of methods that have both a gamma and a sigma, by what else they are; two or more of a kind."""
    grids: dict[str, list[Cell]] = {}
    for cell in cells:
        others = {key: value for key, value in cell.settings.items() if key not in ("gamma", "sigma")}
        pair = [cell.settings.get(key) for key in ("gamma", "sigma")]
        if all(isinstance(value, int | float) for value in pair):
            label = "_".join([cell.backbone, cell.method, *(f"{k}-{readable(v)}" for k, v in sorted(others.items()))])
            grids.setdefault(label, []).append(cell)
    return {label: grid for label, grid in grids.items() if len(grid) > 1}


def cells_table(
    title: str, cells: Sequence[Cell], columns: Mapping[str, str], notes: Sequence[str], bold: bool = True
) -> Table:
    """A row a cell, a column a metric that all cells know; ``bold`` marks the best on each backbone."""
    shown = {name: metric for name, metric in columns.items() if cells and all(cell.has(metric) for cell in cells)}
    best: dict[str, list[Cell]] = {metric: [] for metric in shown.values()}
    for backbone in dict.fromkeys(cell.backbone for cell in cells) if bold else ():
        rivals = [cell for cell in cells if cell.backbone == backbone and not cell.control]
        for metric in best:
            best[metric] += as_good_as_the_best(rivals, metric)
    rows: list[list[str | Value]] = []
    for cell in cells:
        values = [Value(*interval(cell, metric), cell in winners) for metric, winners in best.items()]
        rows.append([cell.backbone, cell.label, *values, str(len(cell.records))])
    kinds = [(cell.backbone, cell.control is None) for cell in cells]
    blocks = [k for k in range(1, len(kinds)) if kinds[k] != kinds[k - 1]]
    return Table(title, ["Backbone", "Method", *shown, "Seeds"], rows, notes, blocks)
