"""Coverage of the 95 % intervals by simulation: ``make coverage`` writes results/coverage.*.

Each study draws 8 methods on 250 test images. A run's true score is its method's, plus the seed's (a block), plus a
deviation of its own; each image is a hit with that probability, by a difficulty that all runs share. The true value is
the expectation over images and seeds, so an interval covers it or does not.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from eil.evaluation.seed_variance import outliers, pool
from eil.evaluation.statistics import estimate

Floats = npt.NDArray[np.float64]
METHODS, IMAGES, REPLICATES = 8, 250, 200
SHARED = 0.5  # correlation between runs of the latent that decides a hit
VARIANCES = {
    "equal": np.full(METHODS, 4.0),
    "unequal": np.linspace(2, 6, METHODS),
    "one wild": np.r_[[3.0] * 7, 12.0],
    "two wild": np.r_[[3.0] * 6, 12.0, 12.0],
}
EFFECTS = {"small": 2.0, "large": 20.0}


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        seeds: of each method.
        variances: the runs' standard deviations, by name.
        effects: points between the lowest and the highest method, by name.
        block: standard deviation of what a seed does to all methods, in points.
    """

    seeds: int
    variances: str
    effects: str
    block: float


CASES = [Case(s, v, e, b) for s in (2, 3, 5) for v in VARIANCES for e in EFFECTS for b in (0.0, 2.0)]


def simulate(case: Case, rng: np.random.Generator, weights: Floats) -> tuple[Floats, Floats]:
    """The true scores, (M,), and every run's replicates, (M, S, R); the last of these is the score itself."""
    true = 45 + EFFECTS[case.effects] * np.linspace(-0.5, 0.5, METHODS)
    block = rng.normal(0, case.block, case.seeds)
    deviation = rng.normal(size=(METHODS, case.seeds)) * VARIANCES[case.variances][:, None]
    return true, replicated(hits(true[:, None] + block + deviation, IMAGES, rng), weights)


def hits(chance: Floats, images: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Whether each run finds each image, (..., N): by its chance in percent, and a difficulty that all runs share."""
    difficulty = np.sqrt(SHARED) * rng.normal(size=images)
    latent = difficulty + np.sqrt(1 - SHARED) * rng.normal(size=(*chance.shape, images))
    return np.asarray(latent < special.ndtri(np.clip(chance, 0.5, 99.5) / 100)[..., None])


def resamples(rng: np.random.Generator) -> Floats:
    """How often each replicate draws each image, (R, N)."""
    drawn = [rng.integers(0, IMAGES, IMAGES) for _ in range(REPLICATES)]
    return np.stack([np.bincount(each, minlength=IMAGES) for each in drawn]).astype(float)


def replicated(found: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Replicates of each run's score in percent around the score itself, (..., N) -> (..., R)."""
    replicates = 100 * (found @ weights.T) / IMAGES
    return np.asarray(replicates - replicates.mean(axis=-1, keepdims=True) + 100 * found.mean(axis=-1, keepdims=True))


def cover(case: Case, studies: int) -> dict[str, Any]:
    """Coverage in percent and median half-width, of means and of differences from the first, pooled and not."""
    rng = np.random.default_rng([case.seeds, list(VARIANCES).index(case.variances), int(case.block)])
    weights = resamples(rng)
    found: dict[str, list[list[tuple[bool, float]]]] = {}
    for _ in range(studies):
        true, runs = simulate(case, rng, weights)
        scores, rest = runs.mean(axis=-1), range(1, METHODS)
        outlying = outliers(scores)
        model = pool(np.delete(scores, outlying, axis=0))
        assert model is not None
        of_mean, of_difference = model.of_mean(), model.of_difference()
        of_means = [None if k in outlying else of_mean for k in rest]
        of_differences = [None if {0, k} & set(outlying) else of_difference for k in rest]
        for name, variances, differs in (
            ("mean", of_means, False), ("mean, own", [None] * METHODS, False),
            ("difference", of_differences, True), ("difference, own", [None] * METHODS, True),
        ):  # fmt: skip
            pairs = [(runs[k] - runs[0], true[k] - true[0]) if differs else (runs[k], true[k]) for k in rest]
            own = [(estimate(r, of_seeds), t) for (r, t), of_seeds in zip(pairs, variances, strict=False)]
            found.setdefault(name, []).append([(abs(e.mean - t) <= e.half_width(), e.half_width()) for e, t in own])
        before = [(runs[k] - runs[0], true[k] - true[0]) for k in rest]
        halves = [(float(abs(r.mean() - t)), _before(r)) for r, t in before]
        found.setdefault("difference, before", []).append([(error <= half, half) for error, half in halves])
    row: dict[str, Any] = dict(case._asdict())
    for name, values in found.items():
        table = np.array(values, float)  # (studies, methods, 2)
        row[f"{name}: coverage"] = round(100 * float(table[..., 0].mean()), 1)
        row[f"{name}: half-width"] = round(float(np.median(table[..., 1])), 1)
        if name in ("mean", "difference"):
            row[f"{name}: worst method"] = round(100 * float(table[..., 0].mean(axis=0).min()), 1)
    return row


def _before(runs: Floats) -> float:
    """Half-width before pooling: each configuration's own seeds, all of the images added."""
    images, seeds = runs.mean(axis=0).std(ddof=1), stats.sem(runs.mean(axis=1))
    return float(np.hypot(1.96 * images, -special.stdtrit(len(runs) - 1, 0.025) * seeds))


def save(path: Path, title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    """Write rows as CSV and, with a title and notes, as Markdown; ``path`` has no suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path.with_suffix(".csv"), index=False)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    path.with_suffix(".md").write_text(f"**{title}**\n\n{table}\n\n" + "".join(f"- {note}\n" for note in notes))


def options(description: str | None, studies: int) -> argparse.Namespace:
    """What the command line gives: the folder ``out``, and the number of ``studies``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--studies", type=int, default=studies)
    return parser.parse_args()


def main() -> None:
    """Write the table as CSV and Markdown."""
    given = options(__doc__, 400)
    notes = [
        f"{given.studies} simulated studies a row; {METHODS} methods, {IMAGES} images, {REPLICATES} replicates",
        "seeds' standard deviation: equal 4 points, unequal 2 to 6, one or two wild: 3, and one or two methods of 12; "
        "block: of the deviation that a seed shares between methods",
        "effects: 2 or 20 points between the lowest and the highest method",
        "mean, difference: the pooled model, methods that are not in the pool by their own seeds; own: each "
        "configuration's own seeds; before: own seeds, and the images' whole variance added",
        "worst method: the lowest coverage of a single method",
    ]
    rows = [cover(case, given.studies) for case in CASES]
    save(given.out / "coverage", "Coverage of 95 % intervals by simulation, in percent", rows, notes)


if __name__ == "__main__":
    main()
