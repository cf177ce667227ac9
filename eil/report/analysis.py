"""Every table of a study: beside the main one comparisons, policies, protocols, errors, sizes, masks, marginals."""

from collections.abc import Mapping, Sequence

from eil.core.files import InputError
from eil.core.records import Record
from eil.data import class_subset
from eil.evaluation import protocols, statistics
from eil.evaluation.errors import KINDS
from eil.report import ablation, provenance_tables
from eil.report.configurations import Cell, chosen, difference, group, step
from eil.report.table import Table, Value
from eil.report.tables import METRIC, cells_table, gamma_sigma_tables, grid_table, main_table
from eil.study.study import Study

POLICIES = {
    "val ↑": "test.val.gt_known_loc",
    "fixed ↑": "test.fixed.gt_known_loc",
    "Otsu ↑": "test.otsu.gt_known_loc",
    "oracle ↑": "test.oracle.gt_known_loc",
    "map loss ↓": "loss.map_loss",
    "threshold loss ↓": "loss.threshold_loss",
}
MASKS = {"PxAP ↑": "test.px_ap", "pixel IoU ↑": "test.pixel_iou"}


def write(study: Study, records: Sequence[Record], planned: int, further_notes: Sequence[str]) -> dict[str, str]:
    """Every table of a study in every format, file name -> content.

    Args:
        study: what was compared.
        records: of the runs that there are.
        planned: how many runs there should be.
        further_notes: what else every table says of itself, a line each.
    """
    cells = group(records)
    notes = [*_notes(study, records, planned), *further_notes]
    tables = {}
    methods = [cell for cell in cells if not cell.control]
    if methods:
        notes += _detectable(chosen(methods))
        tables["main"] = main_table(study, cells, notes)
        tables["grid"] = grid_table(study, methods, notes)
        tables |= {f"gamma_sigma_{cell}": table for cell, table in gamma_sigma_tables(study, methods, notes).items()}
        tables |= further(study, methods, notes)
    tables = {
        name: table for name, table in tables.items() if any(isinstance(v, Value) for row in table.rows for v in row)
    }
    if methods:
        done = [record for record in records if record.status == "done"]
        tables["settings"] = provenance_tables.settings(study, [record.run for record in done])
        tables["provenance"] = provenance_tables.provenance(study, done)
    failed = [[r.run.name, r.step or "–", " ".join((r.error or "").split())] for r in records if r.status == "failed"]
    if failed:
        tables["failures"] = Table(f"{study.name}: runs that failed", ["Run", "Step", "Error"], failed, ())
    return {
        f"{name}.{suffix}": text
        for name, table in tables.items()
        if table.rows
        for suffix, text in (
            ("csv", table.csv()),
            ("md", table.markdown()),
            ("tex", table.latex()),
            ("html", table.html()),
        )
    }


def further(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> dict[str, Table]:
    """Every such table that the records allow, by its file's name; of a grid, the settings chosen on val."""
    best = chosen(cells)
    plus_minus = f"percent, mean ± half-width of the 95 % interval over {study.seeds} seeds alone (Student's t)"

    def table(what: str, columns: Mapping[str, str], *more: str) -> Table:
        return cells_table(f"{study.name}: {what}", best, columns, [*more, plus_minus, *notes[1:]], bold=False)

    found = {
        "policies": table(
            "GT-known Loc by where the threshold comes from",
            POLICIES,
            "map loss: no threshold makes the box good enough; threshold loss: some would, the one used does not",
        ),
        "errors": table(
            "kinds of error of the largest contour's box",
            {kind.replace("_", " "): f"error.{kind}" for kind in KINDS},
            "of the largest contour's box, whichever the protocol scores; in SPA's order: wrong class, IoU above 0.5, "
            "several objects, part of one, more than one, other",
        ),
        "sizes": table("GT-known Loc by the share of the image that the object covers", _sizes(best)),
        "comparisons": comparisons(study, best, notes),
    }
    if all(cell.has("test.px_ap") for cell in best):
        parts = [key for key in best[0].records[0].metrics if key.startswith("coverage.")]
        columns = MASKS | {f"{key.removeprefix('coverage.')} covered": key for key in parts}
        found["masks"] = table("pixels", columns, "pixel IoU: pooled over images, at the threshold that is best on val")
    if len(study.protocols) > 1:
        first = study.protocols[0]
        own = f"test.{protocols.find(first).threshold_from}.gt_known_loc"
        columns = {first: own} | {name: f"gt_known_loc@{name}" for name in study.protocols[1:]}
        others = _other_geometry(study.protocols, [record for cell in best for record in cell.records])
        what = "GT-known Loc of the same maps by protocol, each with its own threshold"
        found["protocols"] = table(what, columns, *others)
    for name, settings in ablation.effects(cells).items():
        found[f"marginal_{name}"] = ablation.marginal(study, name, settings, notes)
    return found


def comparisons(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Each method against the first on its backbone, in GT-known Loc."""
    rows: list[list[str | Value]] = []
    for backbone in dict.fromkeys(cell.backbone for cell in cells):
        base, *others = [cell for cell in cells if cell.backbone == backbone]
        runs = {cell.label: difference(cell, base, METRIC) for cell in others}
        known = {label: values for label, values in runs.items() if values is not None}
        corrected = statistics.holm({label: statistics.p_value(values) for label, values in known.items()})
        for label, values in known.items():
            mean, half = statistics.interval(values)
            numbers = (
                statistics.probability_of_improvement(values, step(base)),
                corrected[label],
                statistics.minimum_detectable_effect(values),
            )
            rows.append([backbone, label, base.label, Value(mean, half), *(f"{number:.2f}" for number in numbers)])
    header = ["Backbone", "Method", "against", "difference", "P(better)", "p (Holm)", "smallest detectable"]
    more = (
        "difference in points of GT-known Loc; P(better): on resampled images with one seed drawn for both; smallest "
    )
    more += "detectable: the true difference that this study would have told from none with a power of 80 % at 5 %"
    return Table(f"{study.name}: against the first method", header, rows, [more, *notes])


def _detectable(cells: Sequence[Cell]) -> list[str]:
    """The smallest difference from the first method that the study would have told from none, on each backbone."""
    found = []
    for backbone in dict.fromkeys(cell.backbone for cell in cells):
        base, *others = [cell for cell in cells if cell.backbone == backbone]
        runs = [values for cell in others if (values := difference(cell, base, METRIC)) is not None]
        if runs:
            least = sorted(statistics.minimum_detectable_effect(values) for values in runs)
            found.append(f"{least[0]:.1f} to {least[-1]:.1f} on {backbone}")
    where = ", ".join(found)
    return (
        [f"smallest detectable difference in GT-known Loc from the first method, in points: {where}"] if found else []
    )


def _other_geometry(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    """A line if images were fitted into the network's square otherwise than these protocols would have it."""
    used = {record.run.recipe.geometry for record in records}
    others = [f"{name} ({own})" for name in names if used - {own := protocols.find(name).geometry}]
    return (
        [f"the images' geometry is {', '.join(sorted(used))}, other than that of {', '.join(others)}"] if others else []
    )


def _of_the_data(study: Study, records: Sequence[Record]) -> list[str]:
    """Which part of the data set this is, and what was made of it."""
    given = {key: value for key, value in study.dataset.settings.items() if "/" not in str(value)}
    size, listed = _part(records), given.get("classes")
    if size:
        given.pop("classes", None)
    elif isinstance(listed, list | tuple):  # as long as it likes; study.yaml has it
        given["classes"] = f"{len(listed)} by name"
    said = [*size, *(f"{key} = {value}" for key, value in given.items())]
    notes = [f"data: {study.dataset.name}, {', '.join(said)}"] if said else []
    if any(record.provenance.get("boxed_masks") for record in records):
        notes.append("boxes: one round each object's mask")
    if any(record.run.recipe.crops > 1 for record in records):
        notes.append("classified by the mean softmax of ten crops, localized on one")
    return notes


def _part(records: Sequence[Record]) -> list[str]:
    """``a part of it: 20 of 200 classes`` where the records' data are one."""
    found = {(record.provenance.get("classes"), record.provenance.get("whole_classes")) for record in records}
    return sorted(
        f"a part of it: {class_subset.describe_count(n, whole)}" for n, whole in found if n and whole and n < whole
    )


def _sizes(cells: Sequence[Cell]) -> dict[str, str]:
    """Columns of the bins that hold images, with their number."""
    metrics = cells[0].records[0].metrics
    bins = [key.removeprefix("size.") for key in metrics if key.startswith("size.")]
    return {f"{each} % (n = {metrics[f'size_images.{each}']:.0f})": f"size.{each}" for each in bins}


def _notes(study: Study, records: Sequence[Record], planned: int) -> list[str]:
    """What every table says of itself: protocol, numbers, holes."""
    done = [record for record in records if record.status == "done"]
    images = {record.provenance["images"] for record in done}
    used = {record.protocol for record in done}
    if used - {study.protocols[0]}:
        raise InputError(f"study {study.name}: records of protocol {', '.join(sorted(used))}: evaluate again")
    over = "images (bootstrap, the threshold chosen anew) and" if any(record.replicates for record in done) else ""
    notes = [  # the first of them says what ± is
        f"percent, mean ± half-width of the 95 % interval over {over} {study.seeds} seeds (Student's t), "
        f"{' / '.join(map(str, sorted(images)))} test images; bold: the best on its backbone and all that cannot be "
        "told from it at 5 % by paired differences (Holm's correction)",
        f"protocol {', '.join(used) or 'none'}; oracle columns: threshold chosen on test, intervals over seeds "
        "alone; last checkpoint",
    ]
    notes += _other_geometry(study.protocols[:1], done) + _of_the_data(study, done)
    if any(record.run.pretrained for record in records):
        names = ", ".join(sorted({record.run.backbone for record in records if record.run.pretrained}))
        notes.append(f"{names}: pretrained on ImageNet, with the labels of its 1,000 classes")
    where = [r.provenance | {"precision": r.run.recipe.precision} for r in done if "versions" in r.provenance]
    machines = sorted({f"{p['processor']}, {p['precision']}, torch {p['versions']['torch']}" for p in where})
    notes += [f"evaluated on: {'; '.join(machines)}"] if machines else []
    missing = planned - len(done)
    if missing:
        notes.append(f"{missing} runs are missing from this table")
    return notes + [
        f"failed: {record.run.name}: {' '.join((record.error or '').split())}"
        for record in records
        if record.status == "failed"
    ]
