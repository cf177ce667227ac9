"""Records grouped into cells: one backbone, one method, one choice of settings, all repetitions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from eil.records import Record, settings_label

SELECTION = "val.val.gt_known_loc"  # what settings are chosen by; test is never asked


@dataclass(frozen=True, eq=False)
class Cell:
    """One contestant on one backbone.

    Attributes:
        backbone: and ``method``, by name.
        settings: of the method, as the study gives them.
        records: done, one a repetition, in order.
        control: whose maps they are, if not the method's own.
    """

    backbone: str
    method: str
    settings: dict[str, Any]
    records: tuple[Record, ...]
    control: str | None = None

    @property
    def label(self) -> str:
        """The method and its settings, ``eil (gamma=0.7)``, or the control, ``control: full image``."""
        if self.control:
            return f"control: {self.control.replace('_', ' ')}"
        return f"{self.method} ({settings_label(self.settings)})" if self.settings else self.method

    def values(self, metric: str) -> list[float]:
        """The metric of each repetition."""
        return [record.metrics[metric] for record in self.records]

    def has(self, metric: str) -> bool:
        """Whether the records know the metric."""
        return all(metric in record.metrics for record in self.records)


def group(records: Iterable[Record]) -> list[Cell]:
    """Cells of the records that are done, in their order."""
    cells: dict[tuple[str, str, str, str | None], list[Record]] = {}
    for record in records:
        if record.status == "done":
            run = record.run
            key = (run.backbone, run.method, settings_label(run.settings), run.control)
            cells.setdefault(key, []).append(record)
    return [
        Cell(backbone, method, found[0].run.settings, tuple(sorted(found, key=lambda r: r.run.repetition)), control)
        for (backbone, method, _, control), found in cells.items()
    ]


def chosen(cells: Sequence[Cell]) -> list[Cell]:
    """Of each method and control on each backbone, the settings with the best mean GT-known Loc on val."""
    best: dict[tuple[str, str, str | None], Cell] = {}
    for cell in cells:
        key = (cell.backbone, cell.method, cell.control)
        if key not in best or np.mean(cell.values(SELECTION)) > np.mean(best[key].values(SELECTION)):
            best[key] = cell
    return list(best.values())


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval over repetitions (Student's t; NaN for one value)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def as_good(cell: Cell, best: Cell, metric: str) -> bool:
    """Whether ``cell`` cannot be told from ``best``: the 95 % interval of their paired difference holds 0.

    Repetitions pair, as they share initial weights and data order; those that one of the two lacks are left out.
    """
    if cell is best:
        return True
    own, other = ({r.run.repetition: r.metrics[metric] for r in c.records} for c in (cell, best))
    differences = [other[repetition] - own[repetition] for repetition in own.keys() & other.keys()]
    if len(differences) < 2:
        return False
    mean, half = interval(differences)
    return mean <= half
