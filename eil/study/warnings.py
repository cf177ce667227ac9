"""What a study says that its author may not mean. It is told before anything is computed, and not refused."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from eil.core.run import Recipe, Run
from eil.study import precedence

if TYPE_CHECKING:
    from eil.study.study import Study

MANY_RUNS = 10_000  # beyond, the cost is told: at a minute each they take a week
# What a run adds to Snakemake's planning, in seconds of a processor and MB, measured up to 10,000 runs
# (results/reference/many_runs-*.md), and to the disk, in MB, if it is small.
PLAN_SECONDS, PLAN_MB, DISK_MB = 0.0065, 0.055, 1.3
_OF_PLATEAU = ("patience", "min_delta")
_PUBLISHED = ("learning_rate", "epochs")  # what decides most of a published number


def warnings(study: "Study", runs: Sequence[Run]) -> list[str]:
    """A line for each thing to know before a study starts: its size, recipes in part default or without effect.

    Args:
        study: as it is given.
        runs: all of its runs.
    """
    trained = [run for run in runs if not (run.reuses_network or run.checkpoint)]
    by_text: dict[str, list[str]] = {}
    for run in trained:
        for text in _unused(run.recipe):
            by_text.setdefault(text, []).append(run.name)
    lines = [f"{text} ({names[0]}{_more(names)})" for text, names in by_text.items()]
    return [*filter(None, [_of_size(len(runs))]), *lines, *_half_published(study, trained)]


def _half_published(study: "Study", trained: Sequence[Run]) -> Iterator[str]:
    """A line for each method with a preset that leaves the rate or the epochs to the defaults."""
    for backbone, method in dict.fromkeys((run.backbone, run.method) for run in trained):
        found = precedence.resolve(study, backbone, method)
        missing = [f"recipe.{key}" for key in _PUBLISHED if f"recipe.{key}" not in found.values]
        if found.preset and missing:
            yield (
                f"preset {found.preset} has no {' and no '.join(missing)} for {method} on {backbone} and "
                f"{study.dataset.data_name}: the default is used ({', '.join(_defaults(found.recipe, missing))})"
            )


def _defaults(recipe: Recipe, keys: Sequence[str]) -> Iterator[str]:
    return (f"{getattr(recipe, key.removeprefix('recipe.')):g}" for key in keys)


def _of_size(runs: int) -> str:
    """What more than :data:`MANY_RUNS` runs cost; "" for fewer."""
    if runs <= MANY_RUNS:
        return ""
    days, minutes, memory, disk = runs / 1440, PLAN_SECONDS * runs / 60, PLAN_MB * runs / 1000, DISK_MB * runs / 1000
    return (
        f"{runs:,} runs: at a minute each they train for {days:.0f} days on one device; Snakemake plans them for "
        f"{minutes:.0f} minutes in {memory + 0.8:.1f} GB; small ones fill {disk:.0f} GB of disk. `eil run` with "
        "--trainings-per-job plans a share at a time"
    )


def _unused(recipe: Recipe) -> list[str]:
    found = []
    if recipe.schedule == "step" and recipe.milestones and min(recipe.milestones) >= recipe.epochs:
        found.append(
            f"the learning rate never falls: milestones = {list(recipe.milestones)} and epochs = {recipe.epochs}; set "
            "recipe.milestones, or recipe.schedule: cosine"
        )
    if recipe.stop != "plateau":
        found += [
            f"recipe.{key} = {getattr(recipe, key)} does nothing without recipe.stop: plateau"
            for key in _OF_PLATEAU
            if key in recipe.model_fields_set
        ]
    return found


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
