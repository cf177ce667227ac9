"""Two studies, or the same at two commits, side by side: what changed, and how significant that is."""

from collections.abc import Sequence

from eil.core.files import InputError
from eil.core.metric_definitions import MAIN
from eil.core.records import Record, settings_label
from eil.evaluation import statistics
from eil.report.configurations import Configuration, group, interval
from eil.report.differences import difference
from eil.report.notes import Notes
from eil.report.table import Cell, Probability, Table, Value


def compare(ours: Sequence[Record], theirs: Sequence[Record], names: tuple[str, str]) -> Table:
    """What both have: each score in both, and the difference with its 95 % interval, paired by images and repetitions.

    Args:
        ours: records of the first study.
        theirs: of the second.
        names: of both, for the header.

    Raises:
        InputError: they have nothing in common, or other protocols.
    """
    if len(used := {record.protocol for record in [*ours, *theirs] if record.status == "done"}) > 1:
        raise InputError(
            f"{names[0]} and {names[1]} are scored by {' and '.join(sorted(used))}: give both studies the same first "
            "protocol, and evaluate again; nothing is trained for it"
        )
    pairs = [(a, b) for a in group(ours) for b in group(theirs) if _same(a, b)]
    if not pairs:
        raise InputError(f"{names[0]} and {names[1]} have no backbone and method with the same settings in common")
    paired = _images(ours) == _images(theirs)
    rows: list[list[Cell]] = []
    for a, b in pairs:
        for key in (key for key in MAIN if a.has(key) and b.has(key)):
            runs = difference(b, a, key) if paired else None
            change = "–" if runs is None else Value(*statistics.interval(runs))
            p_value = "–" if runs is None else Probability(statistics.p_value(runs))
            scores = [Value(*interval(each, key), percent=True) for each in (a, b)]
            rows.append([a.backbone, a.label, key.heading, *scores, change, p_value])
    header = ["Backbone", "Method", "Score", *names, "Δ vs. first", "p"]
    other = [] if paired else ["the test images are not the same: differences have no interval"]
    other += _otherwise(pairs)
    other += [f"{name}: commit {', '.join(_commits(found))}" for name, found in zip(names, (ours, theirs), strict=True)]
    notes = Notes(
        interval="percent ± half-width of the 95 % interval over images and seeds; p: not corrected for several tests",
        other=tuple(other),
    )
    return Table(f"{names[0]} and {names[1]}", header, rows, notes)


def _same(one: Configuration, other: Configuration) -> bool:
    known = [
        (c.backbone, c.method, c.control, c.extractor, settings_label(dict(sorted(c.settings.items()))))
        for c in (one, other)
    ]
    return known[0] == known[1]


def _otherwise(pairs: Sequence[tuple[Configuration, Configuration]]) -> list[str]:
    """A line if the trainings of what is compared differ in more than their code."""
    found: dict[str, str] = {}
    for runs in ((a.records[0].run, b.records[0].run) for a, b in pairs):
        one, other = (
            run.recipe.model_dump() | {key: getattr(run, key) for key in ("pretrained", "output_stride", "checkpoint")}
            for run in runs
        )
        found |= {key: f"{key} {one[key]} and {other[key]}" for key in one if one[key] != other[key]}
    return [f"trained with different settings: {', '.join(found.values())}"] if found else []


def _images(found: Sequence[Record]) -> set[str]:
    return {str(record.provenance.get("data_sha256")) for record in found if record.status == "done"}


def _commits(found: Sequence[Record]) -> list[str]:
    return sorted({str(record.provenance.get("commit")) for record in found})
