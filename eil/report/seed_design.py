"""Records over which the variance between seeds is pooled."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from eil.core.metric_definitions import ScoreKey
from eil.core.records import Record, settings_label
from eil.evaluation import seed_variance
from eil.evaluation.seed_variance import SeedVariance

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeedDesign:
    """A two-way layout, which all configurations of a backbone share.

    Attributes:
        cells: the records of each configuration in it.
    """

    cells: tuple[tuple[Record, ...], ...] = ()
    _pooled: dict[ScoreKey, SeedVariance | None] = field(default_factory=dict, repr=False)
    _outlying: dict[ScoreKey, list[int]] = field(default_factory=dict, repr=False)
    _kept: dict[ScoreKey, Floats | None] = field(default_factory=dict, repr=False)

    def variance(self, key: ScoreKey) -> SeedVariance | None:
        """The variance between seeds, of all but outlying cells; None if a score is missing or no cell has two seeds.

        It is computed once: every configuration of a grid asks for it, and it reads all of them.
        """
        if key not in self._pooled:
            kept = self._without_outlying(key)
            self._pooled[key] = None if kept is None else seed_variance.pool(kept)
        return self._pooled[key]

    def variance_of(self, records: Sequence[Record], key: ScoreKey) -> SeedVariance | None:
        """:meth:`variance`, for a configuration by its records; None if it :meth:`is_outlying`."""
        return None if self.is_outlying(records, key) else self.variance(key)

    def outlying(self, key: ScoreKey) -> list[int]:
        """Cells whose seeds differ far more than the others' (:func:`eil.evaluation.seed_variance.outliers`)."""
        if key not in self._outlying:
            scores = self.scores(key)
            self._outlying[key] = [] if scores is None else seed_variance.outliers(scores)
        return self._outlying[key]

    def is_outlying(self, records: Sequence[Record], key: ScoreKey) -> bool:
        """Whether a configuration does not belong to what is pooled, by its records.

        Its cell is outlying; or it has no cell, and a cell of its method is, or its own seeds differ far more than the
        pool's (:func:`eil.evaluation.seed_variance.is_larger`).
        """
        run = records[0].run
        outlying = [self.cells[k][0].run for k in self.outlying(key)]
        if (run.method, settings_label(run.settings)) in self._labels and not run.control:
            return any((each.method, each.settings) == (run.method, run.settings) for each in outlying)
        return any(each.method == run.method for each in outlying if not run.control) or self._varies_more(records, key)

    def _varies_more(self, records: Sequence[Record], key: ScoreKey) -> bool:
        """Whether a configuration without a cell varies more over the seeds than the pool, where both have them all."""
        kept = self._without_outlying(key)
        if kept is None:
            return False
        own = {record.run.repetition: record.value(key) for record in records}
        row = np.array([own.get(repetition) for repetition in self._repetitions], np.float64)  # None becomes NaN
        there = np.isfinite(row) & np.isfinite(kept).all(axis=0)
        return seed_variance.is_larger(row[there], kept[:, there])

    def _without_outlying(self, key: ScoreKey) -> Floats | None:
        if key not in self._kept:
            scores = self.scores(key)
            self._kept[key] = None if scores is None else np.delete(scores, self.outlying(key), axis=0)
        return self._kept[key]

    @functools.cached_property
    def _repetitions(self) -> list[int]:
        return sorted({record.run.repetition for cell in self.cells for record in cell})

    @functools.cached_property
    def _labels(self) -> set[tuple[str, str]]:
        """Method and settings of each cell."""
        return {(cell[0].run.method, settings_label(cell[0].run.settings)) for cell in self.cells}

    def scores(self, key: ScoreKey) -> Floats | None:
        """(configurations, repetitions), NaN where there is no run; None if a record lacks the score."""
        column = {repetition: k for k, repetition in enumerate(self._repetitions)}
        scores = np.full((len(self.cells), len(column)), np.nan)
        for row, cell in zip(scores, self.cells, strict=True):
            for record in cell:
                if (value := record.value(key)) is None:
                    return None
                row[column[record.run.repetition]] = value
        return scores
