"""Records grouped into cells: one backbone, one method, one choice of settings, all repetitions."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from eil.core.records import Record, settings_label
from eil.evaluation import statistics

Floats = npt.NDArray[np.float64]
OWN = "test.own."  # scores under the protocol's own threshold policy
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
        """The metric of each repetition; ``metric@protocol`` is that of a further protocol."""
        name, _, protocol = metric.partition("@")
        return [(record.others[protocol] if protocol else record.metrics)[name] for record in self.records]

    def mean(self, metric: str) -> float:
        """Over the repetitions."""
        return float(np.mean(self.values(metric)))

    def replicates(self, metric: str, repetitions: Container[int] | None = None) -> Floats | None:
        """Bootstrap replicates of the protocol's own score, (S, R); None if the records have none of it."""
        name = metric.removeprefix(OWN)
        chosen = [r for r in self.records if repetitions is None or r.run.repetition in repetitions]
        if not metric.startswith(OWN) or not chosen or any(name not in record.replicates for record in chosen):
            return None
        # The score itself is the centre; resamples, whose thresholds are chosen anew, only spread around theirs.
        return np.array([_centred(r.replicates[name], r.metrics[metric]) for r in chosen])

    def has(self, metric: str) -> bool:
        """Whether the records know the metric."""
        name, _, protocol = metric.partition("@")
        return all(name in (r.others.get(protocol, {}) if protocol else r.metrics) for r in self.records)


def shared_label(cells: Sequence[Cell]) -> str:
    """What cells of one grid over gamma and sigma have in common: ``eil on vgg_small, at=pool3``."""
    others = {key: value for key, value in cells[0].settings.items() if key not in ("gamma", "sigma")}
    return f"{cells[0].method} on {cells[0].backbone}" + (f", {settings_label(others)}" if others else "")


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
    """Of each method and control on each backbone, the settings with the best mean GT-known Loc on val.

    Means over other seeds do not compare: settings of which repetitions are missing are chosen only if all lack some.
    """
    best: dict[tuple[str, str, str | None], Cell] = {}
    for cell in cells:
        key = (cell.backbone, cell.method, cell.control)
        if key not in best or _rank(cell) > _rank(best[key]):
            best[key] = cell
    return list(best.values())


def interval(cell: Cell, metric: str) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval: over images and seeds, or over seeds alone (Student's t).

    Replicates over images exist of the protocol's own scores; NaN for one seed without them.
    """
    runs = cell.replicates(metric)
    return students(cell.values(metric)) if runs is None else statistics.interval(runs)


def students(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval over repetitions (Student's t; NaN for one value)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def difference(cell: Cell, other: Cell, metric: str) -> Floats | None:
    """Replicates of ``cell``'s score less ``other``'s, (S, R), over the repetitions that both have."""
    common = common_repetitions([cell, other])
    ours, theirs = (c.replicates(metric, common) for c in (cell, other))
    return None if ours is None or theirs is None or not common else ours - theirs


def as_good_as_the_best(cells: Sequence[Cell], metric: str) -> list[Cell]:
    """The best by its mean, and all that cannot be told from it at 5 % (Holm's correction over the rest).

    Repetitions pair, as they share initial weights and data order, and images do. Without replicates a paired
    t interval over the repetitions decides, and by one repetition nothing can be told.
    """
    if not cells:
        return []
    best = max(cells, key=lambda cell: cell.mean(metric))
    rest = {str(k): cell for k, cell in enumerate(cells) if cell is not best}
    p_values = {}
    for key, cell in rest.items():
        runs = difference(best, cell, metric)
        p_values[key] = _paired_p(best, cell, metric) if runs is None else statistics.p_value(runs)
    corrected = statistics.holm(p_values)
    return [best, *(cell for key, cell in rest.items() if corrected[key] > 0.05)]


def step(cell: Cell) -> float:
    """The least by which two accuracies over the cell's test images can differ, in points."""
    return 100 / float(cell.records[0].provenance["images"])


def common_repetitions(cells: Iterable[Cell]) -> set[int]:
    """Which repetitions all of them have."""
    return set.intersection(*({record.run.repetition for record in cell.records} for cell in cells))


def _rank(cell: Cell) -> tuple[int, float]:
    return len(cell.records), cell.mean(SELECTION)


def _paired_p(cell: Cell, other: Cell, metric: str) -> float:
    own, others = (
        dict(zip((r.run.repetition for r in c.records), c.values(metric), strict=True)) for c in (cell, other)
    )
    differences = [own[repetition] - others[repetition] for repetition in own.keys() & others.keys()]
    if len(differences) < 2:
        return 1.0
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _centred(replicates: Sequence[float], score: float) -> Floats:
    values = np.asarray(replicates)
    return values - values.mean() + score
