"""Records over which the variance between seeds is pooled."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from eil.core.metric_definitions import ScoreKey
from eil.core.records import Record, settings_label
from eil.core.run import Run
from eil.evaluation import seed_variance
from eil.evaluation.seed_variance import SeedVariance


@dataclass(frozen=True, eq=False)
class SeedDesign:
    """A two-way layout, which all configurations of a backbone share.

    Attributes:
        cells: the records of each configuration in it.
    """

    cells: tuple[tuple[Record, ...], ...] = ()
    _pooled: dict[ScoreKey, SeedVariance | None] = field(default_factory=dict, repr=False)
    _outlying: dict[ScoreKey, list[int]] = field(default_factory=dict, repr=False)

    def variance(self, key: ScoreKey) -> SeedVariance | None:
        """The variance between seeds, of all but outlying cells; None if a score is missing or no cell has two seeds.

        It is computed once: every configuration of a grid asks for it, and it reads all of them.
        """
        if key not in self._pooled:
            scores = self.scores(key)
            pooled = None if scores is None else np.delete(scores, self.outlying(key), axis=0)
            self._pooled[key] = None if pooled is None else seed_variance.pool(pooled)
        return self._pooled[key]

    def outlying(self, key: ScoreKey) -> list[int]:
        """Cells whose seeds differ far more than the others' (:func:`eil.evaluation.seed_variance.outliers`)."""
        if key not in self._outlying:
            scores = self.scores(key)
            self._outlying[key] = [] if scores is None else seed_variance.outliers(scores)
        return self._outlying[key]

    def is_outlying(self, run: Run, key: ScoreKey) -> bool:
        """Whether the run's cell is outlying or, where its settings have no cell, any cell of its method."""
        outlying = [self.cells[k][0].run for k in self.outlying(key)]
        of_method = [each for each in outlying if each.method == run.method]
        return any(each.settings == run.settings for each in of_method) or (
            bool(of_method) and (run.method, settings_label(run.settings)) not in self._labels
        )

    @functools.cached_property
    def _labels(self) -> set[tuple[str, str]]:
        """Method and settings of each cell."""
        return {(cell[0].run.method, settings_label(cell[0].run.settings)) for cell in self.cells}

    def scores(self, key: ScoreKey) -> npt.NDArray[np.float64] | None:
        """(configurations, repetitions), NaN where there is no run; None if a record lacks the score."""
        every: Sequence[int] = sorted({record.run.repetition for cell in self.cells for record in cell})
        column = {repetition: k for k, repetition in enumerate(every)}
        scores = np.full((len(self.cells), len(column)), np.nan)
        for row, cell in zip(scores, self.cells, strict=True):
            for record in cell:
                if (value := record.value(key)) is None:
                    return None
                row[column[record.run.repetition]] = value
        return scores
