"""What a setting does: the mean score at each of its values, over all that is otherwise in the grid."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.core.records import settings_label
from eil.core.run import file_name, format_value
from eil.evaluation import statistics
from eil.report.configurations import Configuration, Floats, common_repetitions, interval, shared_label
from eil.report.differences import as_good_as_the_best
from eil.report.notes import Notes
from eil.report.seed_design import SeedDesign
from eil.report.table import Cell, Table, Value
from eil.study.study import Study

SIGNS = {"gamma": "γ", "sigma": "σ"}


class Effect(NamedTuple):
    """Effect of one value of a setting.

    All values of a setting are compared over the same other settings and seeds: configurations without a counterpart
    at each value are left out.

    Attributes:
        value: of the setting.
        score: mean over the configurations that have it, and half the width of its 95 % interval (images and seeds).
        change: difference from the first value's score, likewise; paired by images and seeds, so that its interval is
            narrower; None for the first value.
        configurations: how many are averaged, ``with_value`` how many that have the value.
        seeds: over how many.
    """

    value: Any
    score: tuple[float, float]
    change: tuple[float, float] | None
    configurations: int
    with_value: int
    seeds: int


def effects(configurations: Sequence[Configuration]) -> dict[str, dict[str, list[Effect]]]:
    """Of each method on each backbone, ``{backbone}_{method}``, the effect of every setting that has several values."""
    found: dict[str, dict[str, list[Effect]]] = {}
    for backbone, method in dict.fromkeys((each.backbone, each.method) for each in configurations):
        of_method = [each for each in configurations if (each.backbone, each.method) == (backbone, method)]
        for setting in dict.fromkeys(key for each in of_method for key in each.settings):
            of_setting = _effect([each for each in of_method if setting in each.settings], setting)
            if len(of_setting) > 1:
                found.setdefault(f"{file_name(backbone)}_{method}", {})[setting] = of_setting
    return found


def marginal(study: Study, name: str, found: dict[str, list[Effect]], notes: Notes) -> Table:
    """Mean GT-known Loc at each value of each setting, over the rest of the grid."""
    rows: list[list[Cell]] = [
        [
            *(f"{SIGNS.get(setting, setting)} = {format_value(each.value)}", Value(*each.score, percent=True)),
            *(Value(*each.change) if each.change else "–", _counted(each, len(study.seeds))),
        ]
        for setting, of_setting in found.items()
        for each in of_setting
    ]
    blocks = list(itertools.accumulate(map(len, found.values())))[:-1]
    header = ["setting", GT_KNOWN_LOC.heading, "Δ vs. first value", "configurations"]
    explanation = (
        "mean over the configurations that exist at every value of the setting; "
        "differences are of the same images and seeds"
    )
    title = f"{study.name}: marginal effects, {name}"
    return Table(title, header, rows, replace(notes, columns=explanation), blocks)


def gamma_sigma_tables(study: Study, configurations: Sequence[Configuration], notes: Notes) -> dict[str, Table]:
    """GT-known Loc over gamma and sigma, one table per backbone, method and other settings."""
    tables = {}
    for name, grid in gamma_sigma_grids(configurations).items():
        gammas, sigmas = (sorted({float(each.settings[key]) for each in grid}) for key in SIGNS)
        by_values = {tuple(float(each.settings[key]) for key in SIGNS): each for each in grid}
        best = set(as_good_as_the_best(grid, GT_KNOWN_LOC))
        rows: list[list[Cell]] = []
        for gamma in gammas:
            line = [by_values.get((gamma, sigma)) for sigma in sigmas]
            values = [
                Value(*interval(each, GT_KNOWN_LOC), each in best, percent=True) if each else "–" for each in line
            ]
            rows.append([f"{gamma:g}", *values])
        header = ["γ", *(f"σ = {sigma:g}" for sigma in sigmas)]
        title = f"{study.name}: {GT_KNOWN_LOC.heading} of {shared_label(grid)} over γ and σ"
        tables[name] = Table(title, header, rows, notes)
    return tables


def gamma_sigma_grids(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Configurations that have both a gamma and a sigma, by all their other settings; two or more of a kind."""
    grids: dict[str, list[Configuration]] = {}
    for each in configurations:
        if all(isinstance(each.settings.get(key), int | float) for key in SIGNS):
            others = [f"{key}-{format_value(value)}" for key, value in sorted(each.grid_settings.items())]
            grids.setdefault("_".join([file_name(each.backbone), each.method, *others]), []).append(each)
    return {label: grid for label, grid in grids.items() if len(grid) > 1}


def _effect(configurations: Sequence[Configuration], setting: str) -> list[Effect]:
    by_value: dict[str, dict[str, Configuration]] = {}  # by the value, and by their other settings
    for each in configurations:
        rest = settings_label({key: value for key, value in each.settings.items() if key != setting})
        by_value.setdefault(format_value(each.settings[setting]), {})[rest] = each
    shared = set.intersection(*map(set, by_value.values()))
    compared = [[by_rest[rest] for rest in by_rest if rest in shared] for by_rest in by_value.values()]
    if not shared or not (seeds := common_repetitions(itertools.chain(*compared))):
        return []
    means: list[tuple[Any, Floats, int]] = []  # a value, the mean replicates of its configurations, how many have it
    for group, every in zip(compared, by_value.values(), strict=True):
        runs = [found for each in group if (found := each.replicates(GT_KNOWN_LOC, seeds)) is not None]
        if len(runs) == len(group) and len({each.shape for each in runs}) == 1:
            means.append((group[0].settings[setting], np.mean(runs, axis=0), len(every)))
    if all(isinstance(value, int | float) for value, *_ in means):
        means.sort(key=lambda each: each[0])
    # Cells of one method share how its seeds differ, which methods do not: the pool is these cells alone.
    model = SeedDesign(tuple(each.records for group in compared for each in group)).variance(GT_KNOWN_LOC)
    of_mean, of_change = (model.of_mean(len(shared)), model.of_difference(len(shared))) if model else (None, None)
    return [
        Effect(
            value,
            _interval(runs, of_mean),
            _change(runs, means[0][1], of_change) if k else None,
            configurations=len(shared),
            with_value=count,
            seeds=len(seeds),
        )
        for k, (value, runs, count) in enumerate(means)
    ]


def _interval(runs: Floats, seeds: tuple[float, float] | None) -> tuple[float, float]:
    found = statistics.estimate(runs, seeds)
    return found.mean, found.half_width()


def _change(runs: Floats, first: Floats, seeds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Paired, where both have the same resamples."""
    return _interval(runs - first, seeds) if runs.shape == first.shape else None


def _counted(effect: Effect, seeds: int) -> str:
    """How many configurations, and which of them or of the study's seeds are left out."""
    count = (
        str(effect.with_value)
        if effect.configurations == effect.with_value
        else f"{effect.configurations} of {effect.with_value}"
    )
    return count if effect.seeds == seeds else f"{count}, {effect.seeds} of {seeds} seeds"
