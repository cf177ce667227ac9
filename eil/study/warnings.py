"""What a study says that its author may not mean. It is told before anything is computed, and not refused."""

from collections.abc import Sequence

from eil.core.run import Recipe, Run
from eil.study import grid

_OF_PLATEAU = ("patience", "min_delta")


def warnings(runs: Sequence[Run]) -> list[str]:
    """A line for each thing to know before a study starts: its size, and recipes with settings that do nothing.

    Args:
        runs: all of the study.
    """
    trained = [run for run in runs if not (run.reuses_network or run.checkpoint)]
    by_text: dict[str, list[str]] = {}
    for run in trained:
        for text in _unused(run.recipe):
            by_text.setdefault(text, []).append(run.name)
    lines = [f"{text} ({names[0]}{_more(names)})" for text, names in by_text.items()]
    return [*filter(None, [grid.warning(len(runs))]), *lines]


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
