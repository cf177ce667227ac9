"""The table "same run, other maps": what each extractor finds in a network, against the method's own maps."""

from collections.abc import Sequence
from dataclasses import replace

from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.report.configurations import Configuration, interval, other_maps
from eil.report.differences import as_good_as_the_best
from eil.report.main_table import against_first, columns_of
from eil.report.notes import Notes
from eil.report.table import Cell, Table, Value
from eil.study.study import Study

OWN = "own"
_EXPLANATION = (
    "maps of the same trained networks, so that classification is the same; Δ: GT-known Loc minus that of the method's "
    "own maps, on the same images and seeds, in points; p: of this difference, corrected for all maps of the method "
    "(Holm); bold: among the maps of one method"
)


def other_maps_table(study: Study, configurations: Sequence[Configuration], notes: Notes) -> Table:
    """A block a method: its own maps, then each extractor's; of a grid the settings chosen on val.

    Args:
        study: what was compared.
        configurations: all of it; a method without extractors has no rows.
        notes: that all tables share.
    """
    groups = other_maps(configurations)
    every = [each for group in groups for each in group]
    columns = {name: key for name, key in columns_of(study).items() if all(each.has(key) for each in every)}
    rows: list[list[Cell]] = []
    for group in groups:
        best = {key: as_good_as_the_best(group, key) for key in columns.values()}
        for each, change in zip(group, against_first(group), strict=True):
            values = [Value(*interval(each, key), each in best[key], percent=True) for key in columns.values()]
            rows.append(
                [each.backbone, group[0].label, each.extractor or OWN, *values, *change, str(len(each.records))]
            )
    blocks = [sum(map(len, groups[:k])) for k in range(1, len(groups))]
    header = ["Backbone", "Method", "Maps", *columns, f"Δ {GT_KNOWN_LOC.label}", "p (Holm)", "Seeds"]
    title = f"{study.name}: same run, other maps, on {study.dataset.data_name}"
    return Table(title, header, rows, replace(notes, columns=_EXPLANATION), blocks)
