"""Records grouped into configurations: one backbone, one method, one choice of settings, all repetitions."""

import functools
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from eil.core.metric_definitions import GT_KNOWN_LOC, SELECTION, ScoreKey
from eil.core.records import Record, extractor_label, labelled, settings_label
from eil.evaluation import statistics
from eil.evaluation.seed_variance import SeedVariance
from eil.report import convergence
from eil.report.seed_design import SeedDesign

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Configuration:
    """One method with its settings on one backbone.

    Attributes:
        backbone: by name.
        method: by name.
        settings: of the method, as the study gives them.
        records: done, one a repetition, in order.
        control: whose maps they are, if not the method's own.
        extractor: likewise, with its settings: ``layercam (at=layer3)``.
        seed_design: over which the seeds' variance is pooled; empty, as for extractors: over its own records alone.
        grid_design: the same for differences between settings of one method.
    """

    backbone: str
    method: str
    settings: dict[str, Any]
    records: tuple[Record, ...]
    control: str | None = None
    extractor: str | None = None
    seed_design: SeedDesign = field(default_factory=SeedDesign)
    grid_design: SeedDesign = field(default_factory=SeedDesign)

    @property
    def label(self) -> str:
        """The method and its settings, ``eil (gamma=0.7)``, or the control, ``control: full image``."""
        if self.control:
            return f"control: {self.control.replace('_', ' ')}"
        label = labelled(self.method, self.settings)
        label = f"{label} (imported)" if self.imported else label
        return f"{label}: {self.extractor}" if self.extractor else label

    @property
    def reuses_network(self) -> bool:
        """Whether the maps are a control's or an extractor's."""
        return self.control is not None or self.extractor is not None

    @property
    def imported(self) -> bool:
        """Whether the weights are from a checkpoint that was not trained here."""
        return self.records[0].run.checkpoint is not None

    @property
    def marked_label(self) -> str:
        """The label, with a dagger if the training had not converged (:mod:`eil.report.convergence`)."""
        return self.label if self.converged else f"{self.label} {convergence.MARK}"

    @functools.cached_property  # every table asks
    def converged(self) -> bool:
        """Whether the training had converged; true for what was not trained here."""
        return (
            self.imported or self.reuses_network or convergence.converged([record.history for record in self.records])
        )

    @property
    def grid_settings(self) -> dict[str, Any]:
        """All settings but gamma and sigma, over which a grid has a table of its own."""
        return {key: value for key, value in self.settings.items() if key not in ("gamma", "sigma")}

    def values(self, key: ScoreKey, repetitions: Container[int] | None = None) -> list[float]:
        """The score of each repetition, or of these.

        Raises:
            KeyError: a record does not have it.
        """
        records = [each for each in self.records if repetitions is None or each.run.repetition in repetitions]
        found = [value for record in records if (value := record.value(key)) is not None]
        if len(found) < len(records):
            raise KeyError(f"{self.label} on {self.backbone}: no {key}")
        return found

    def mean(self, key: ScoreKey, repetitions: Container[int] | None = None) -> float:
        """Over the repetitions, or over these."""
        return float(np.mean(self.values(key, repetitions)))

    def replicates(self, key: ScoreKey, repetitions: Container[int] | None = None) -> Floats | None:
        """Bootstrap replicates of a score, (S, R); None if a record does not have them.

        Args:
            key: the score.
            repetitions: of which repetitions; None for all.
        """
        found = []
        for record in self.records:
            if repetitions is None or record.run.repetition in repetitions:
                replicates, score = record.replicates_of(key), record.value(key)
                if replicates is None or score is None:
                    return None
                found.append(_centred(replicates, score))
        return np.array(found) if found else None

    def seed_variance(self, key: ScoreKey) -> SeedVariance | None:
        """The variance between seeds: pooled, or of its own records alone if there is no :meth:`pooled_variance`.

        None for an imported network: nothing is known of its other seeds.
        """
        values = self.values(key)
        if self.imported:
            return None
        if self.control and np.ptp(values) == 0:
            return None  # a full image has the same score with every seed
        return self.pooled_variance(key) or SeedDesign((self.records,)).variance(key)

    def pooled_variance(self, key: ScoreKey) -> SeedVariance | None:
        """The variance of the design; None if its seeds differ far more than that, or if records lack the score."""
        return self.seed_design.variance_of(self.records, key)

    def has(self, key: ScoreKey) -> bool:
        """Whether all records have the score."""
        return all(record.value(key) is not None for record in self.records)


def shared_label(grid: Sequence[Configuration]) -> str:
    """What configurations of one grid over gamma and sigma have in common: ``eil on vgg_small, at=pool3``."""
    others = settings_label(grid[0].grid_settings)
    return f"{grid[0].method} on {grid[0].backbone}" + (f", {others}" if others else "")


def group(records: Iterable[Record]) -> list[Configuration]:
    """Configurations of the records that are done, in their order."""
    found: dict[tuple[str | None, ...], list[Record]] = {}
    for record in records:
        if record.status == "done":
            run = record.run
            key = (run.backbone, run.method, settings_label(run.settings), run.control, extractor_label(run))
            found.setdefault(key, []).append(record)
    ungrouped = []
    for records_of_one in found.values():
        run, kept = records_of_one[0].run, tuple(sorted(records_of_one, key=lambda each: each.run.repetition))
        ungrouped.append(Configuration(run.backbone, run.method, run.settings, kept, run.control, extractor_label(run)))
    designs = {backbone: _seed_design(of_backbone) for backbone, of_backbone in by_backbone(ungrouped)}
    trained = [each for each in ungrouped if not (each.reuses_network or each.imported)]
    cells: dict[tuple[str, str], list[tuple[Record, ...]]] = {}
    for each in trained:
        cells.setdefault((each.backbone, each.method), []).append(each.records)
    grids = {place: SeedDesign(tuple(every)) for place, every in cells.items()}
    # Maps of one network differ by less than two networks do, so that extractors are not in the pool.
    return [
        each
        if each.extractor
        else replace(
            each,
            seed_design=designs[each.backbone],
            grid_design=grids.get((each.backbone, each.method), SeedDesign()),
        )
        for each in ungrouped
    ]


def by_backbone(configurations: Sequence[Configuration]) -> list[tuple[str, list[Configuration]]]:
    """Each backbone with its configurations, in their order."""
    names = dict.fromkeys(each.backbone for each in configurations)
    return [(name, [each for each in configurations if each.backbone == name]) for name in names]


def chosen(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Of each method and control on each backbone, the settings with the best mean GT-known Loc on val.

    Extractors stay with the settings whose network they read, so that they are left out.

    Means over different seeds are not comparable: only :func:`eligible` settings are chosen, by the repetitions that
    these have in common.
    """
    kinds: dict[tuple[str, str, str | None], list[Configuration]] = {}
    for each in configurations:
        if not each.extractor:
            kinds.setdefault((each.backbone, each.method, each.control), []).append(each)
    best = []
    for every in kinds.values():
        shown = eligible(every)
        common = common_repetitions(shown) or None
        best.append(max(shown, key=lambda each: each.mean(SELECTION, common)) if len(shown) > 1 else shown[0])
    return best


def eligible(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Of the settings of one method those that have the most repetitions."""
    most = max(len(each.records) for each in configurations)
    return [each for each in configurations if len(each.records) == most]


def other_maps(configurations: Sequence[Configuration]) -> list[list[Configuration]]:
    """Of each method with extractors its own maps, then each extractor's; settings chosen on val by its own."""
    found = []
    for own_map in chosen([each for each in configurations if not each.reuses_network]):
        place = (own_map.backbone, own_map.method, own_map.settings)
        others = [
            each for each in configurations if each.extractor and place == (each.backbone, each.method, each.settings)
        ]
        found += [[own_map, *others]] if others else []
    return found


def accuracy(records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """Mean GT-known Loc by backbone and method, with the settings chosen on val; borrowed networks are left out."""
    best = chosen([each for each in group(records) if not each.reuses_network])
    return {(each.backbone, each.method): each.mean(GT_KNOWN_LOC) for each in best}


def interval(configuration: Configuration, key: ScoreKey) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval: over images and seeds, or over seeds alone (Student's t).

    Only the main scores have replicates over images; without them, one seed gives NaN.
    """
    runs = configuration.replicates(key)
    if runs is None:
        return over_seeds(configuration, key)
    model = configuration.seed_variance(key)
    found = statistics.estimate(runs, (0.0, 1.0) if model is None else model.of_mean())
    return found.mean, found.half_width()


def over_seeds(configuration: Configuration, key: ScoreKey) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval over seeds alone (NaN for one seed)."""
    values = configuration.values(key)
    mean = float(np.mean(values))
    model = configuration.seed_variance(key)
    if model is None and len(values) < 2:
        return mean, float("nan")
    variance, df = (0.0, 1.0) if model is None else model.of_mean()
    return mean, float(special.stdtrit(df, 0.975) * (variance / len(values)) ** 0.5)


def outlying_methods(configuration: Configuration, key: ScoreKey) -> list[str]:
    """Methods of the design whose seeds differ far more than the others', so that they are not in the pool."""
    design = configuration.seed_design
    return list(dict.fromkeys(design.cells[k][0].run.method for k in design.outlying(key)))


def common_repetitions(configurations: Iterable[Configuration]) -> set[int]:
    """Which repetitions all of them have."""
    return set.intersection(*({record.run.repetition for record in each.records} for each in configurations))


def _seed_design(configurations: Sequence[Configuration]) -> SeedDesign:
    """Records of one backbone over which the seeds' variance is pooled.

    Of several methods each with the settings chosen on val: the cells of one method's grid resemble each other, and
    would make the variance between methods look smaller. Of one method every configuration.
    """
    methods = [each for each in configurations if not (each.reuses_network or each.imported)]
    one = len({each.method for each in methods}) < 2 or not all(each.has(SELECTION) for each in methods)
    return SeedDesign(tuple(each.records for each in (methods if one else chosen(methods))))


def _centred(replicates: Sequence[float], score: float) -> Floats:
    """Replicates around the score itself: resamples choose thresholds anew, so that their own mean differs from it."""
    values = np.asarray(replicates)
    return values - values.mean() + score
