"""Runs that take another run's trained network: controls, and map extractors.

A control replaces the maps of a backbone's first method. An extractor makes another map from every trained run that it
fits. A study's ``maps`` is a list of names, or of mappings of a name and settings (``{name: layercam, at: layer3}``); a
list of values is an axis.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eil.core import registry
from eil.core.run import ExtractorChoice, Run
from eil.core.settings import IncompatibleSetting, SettingError, check

if TYPE_CHECKING:
    from eil.methods.base import Method


def choices(maps: Sequence[ExtractorChoice]) -> list[ExtractorChoice]:
    """Each extractor with one value of each setting, in the order of the study."""
    return [one for each in maps for one in _single(each)]


def count(maps: Sequence[ExtractorChoice]) -> int:
    """How many :func:`choices` there are."""
    return sum(math.prod(len(value) for value in each.settings.values() if isinstance(value, list)) for each in maps)


def runs(trained_runs: Sequence[Run], controls: Sequence[str], maps: Sequence[ExtractorChoice]) -> list[Run]:
    """Runs of the controls, then of the extractors, for the trained runs of one backbone.

    Args:
        trained_runs: the trained runs, in the order of the study.
        controls: names; they take the first method's network, of its first settings.
        maps: of the study; each is made from every run's network.
    """
    first = [
        run for run in trained_runs if (run.method, run.settings) == (trained_runs[0].method, trained_runs[0].settings)
    ]
    found = [run.model_copy(update={"control": control}) for control in controls for run in first]
    return found + [run.model_copy(update={"extractor": each}) for run in trained_runs for each in choices(maps)]


class ExtractorCompatibility:
    """Which extractors fit which methods.

    Args:
        maps: of the study.

    Attributes:
        errors: a line for each entry that is wrong by itself.
    """

    def __init__(self, maps: Sequence[ExtractorChoice]) -> None:
        self.maps = maps
        self.errors = [line for k, each in enumerate(maps) for line in _problems(k, each)]
        self._refused: dict[tuple[str, str], str] = {}  # trained run and extractor -> why
        self._usable: set[str] = set()
        self._unusable: dict[str, str] = {}

    def check(self, model: "Method", run: Run) -> None:
        """Build every extractor for a method without memory, and note those that do not fit."""
        for k, one in ((k, one) for k, each in enumerate(self.maps) for one in _single(each) if not self.errors):
            place = _place(run, one)
            try:
                registry.load(registry.EXTRACTORS, one.name)(model, **one.settings)
                self._usable.add(place[1])
            except IncompatibleSetting as reason:
                self._refused[place] = str(reason)
            except SettingError as error:  # a stage of another of the study's backbones, perhaps
                self._refused[place] = str(error)
                self._unusable.setdefault(place[1], f"maps[{k}].{error}")

    def split(self, dependents: Sequence[Run]) -> tuple[list[Run], list[str]]:
        """Runs without those of extractors that do not fit, and a line for each network and reason."""
        kept, dropped = list[Run](), dict[tuple[str, str], dict[str, None]]()
        for run in dependents:
            place = _place(run, run.extractor) if run.extractor else ("", "")
            if place in self._refused:
                dropped.setdefault((place[0], self._refused[place]), {})[place[1]] = None
            else:
                kept.append(run)
        return kept, [f"{name}: maps {', '.join(names)}: {reason}" for (name, reason), names in dropped.items()]

    def problems(self) -> list[str]:
        """A line for each extractor that no network of the study can use for what it is set to."""
        return [*self.errors, *(line for name, line in self._unusable.items() if name not in self._usable)]


def _single(choice: ExtractorChoice) -> Iterator[ExtractorChoice]:
    axes = {key: value if isinstance(value, list) else [value] for key, value in choice.settings.items()}
    for values in itertools.product(*axes.values()):
        yield ExtractorChoice(name=choice.name, **dict(zip(axes, values, strict=True)))


def _problems(place: int, choice: ExtractorChoice) -> list[str]:
    """What is wrong with an entry of ``maps`` by itself."""
    try:
        factory: Any = registry.load(registry.EXTRACTORS, choice.name)
    except SettingError as error:
        return [f"maps[{place}] = {choice.name}: {error.expected}"]
    empty = [f"maps[{place}].{key} = []: an empty list leaves no maps" for key, v in choice.settings.items() if v == []]
    return empty or [line for one in _single(choice) for line in check(factory, one.settings, f"maps[{place}]")]


def _place(run: Run, choice: ExtractorChoice) -> tuple[str, str]:
    """The network, whatever its seed, and the extractor with its settings."""
    return run.training_run.name.removesuffix(f"-seed{run.repetition}"), "-".join(choice.parts)
