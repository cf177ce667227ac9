"""The grid of a study: the runs of its lists, how many there are, and one of them by its name.

A command of one run reads the whole study. So neither reading a study nor finding a run spreads the grid: otherwise the
commands of all runs together took a time that grows with the square of their number.
"""

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from eil.core.files import InputError
from eil.core.run import Run, file_name, format_value
from eil.study import checkpoints, precedence, reused_networks

if TYPE_CHECKING:
    from eil.study.study import Study

MOST_RUNS = 1_000_000  # beyond, a list of the runs does not fit into memory: 10 KB each


def spread(study: "Study", backbone: str, method: str, name: str | None = None) -> Iterator[Run]:
    """Runs of a method on a backbone, in the order of the study.

    Args:
        study: which has both.
        backbone: by name.
        method: by name.
        name: of a run; only values and repetitions of which it consists are spread.

    Raises:
        InputError: a recipe, a preset or a checkpoint that cannot be used.
    """
    choice = study.backbones[backbone]
    found = precedence.resolve(study, backbone, method)
    axes = found.part("settings")
    checkpoint = checkpoints.find(study, backbone, method, axes)
    repetitions = (0,) if checkpoint else study.seeds
    if name is not None:
        axes = {key: [v for v in values if f"-{key}{format_value(v)}-" in name] for key, values in axes.items()}
        repetitions = tuple(k for k in repetitions if name.endswith(f"-seed{k}"))
    for values in itertools.product(*axes.values()):
        for repetition in repetitions:
            yield Run(
                study=study.name,
                dataset=study.dataset,
                backbone=backbone,
                pretrained=False if checkpoint else choice.pretrained,
                output_stride=found.output_stride,
                method=method,
                settings=dict(zip(axes, values, strict=True)),
                repetition=repetition,
                recipe=found.recipe,
                layout=found.layout,
                network=checkpoints.network_of(found.part("network"), checkpoint),
                checkpoint=checkpoint,
            )


def find(study: "Study", name: str) -> Run | None:
    """The run with this name; None if there is none.

    Only `Study.expand` knows whose network a control takes; here any run's will do.
    """
    for backbone, method in itertools.product(study.backbones, study.methods):
        if name.startswith(f"{file_name(backbone)}-{method}-"):
            for trained in spread(study, backbone, method, name):
                for run in (trained, *reused_networks.runs([trained], study.controls, study.maps)):
                    if run.name == name:
                        return run
    return None


def count(study: "Study") -> int:
    """How many runs the grid has; combinations that cannot be used are counted too.

    Raises:
        InputError: the grid is empty, or has more than :data:`MOST_RUNS`; the message names the list or the method.
    """
    found = len(study.backbones) * len(study.controls) * len(study.seeds)
    of_each = 1 + reused_networks.count(study.maps)
    for backbone, method in itertools.product(study.backbones, study.methods):
        given = study.methods[method] | study.backbones[backbone].methods.get(method, {})
        axes = {
            key: value for key, value in given.items() if isinstance(value, list) and key not in precedence.RESERVED
        }
        for key, value in axes.items():
            if not value:
                raise InputError(f"methods.{method}.{key} = []: an empty list leaves no runs")
        found += math.prod(map(len, axes.values())) * len(study.seeds) * of_each
        if found > MOST_RUNS:
            raise InputError(f"methods.{method}: more than {MOST_RUNS:,} runs: shorten its lists, or lower seeds")
    if not study.backbones or not study.methods:
        raise InputError("a study without runs: name a backbone and a method")
    return found


def sample(study: "Study", backbone: str, method: str) -> Iterator[Run]:
    """Runs of a method on a backbone with every value, one list spread at a time, and with the longest name."""
    axes = precedence.resolve(study, backbone, method).part("settings")
    longest = {key: max(range(len(values)), key=lambda k: len(format_value(values[k]))) for key, values in axes.items()}
    settings = {key: values[longest[key]] for key, values in axes.items()}
    first = next(spread(study, backbone, method)).model_copy(update={"settings": settings})
    yield from (first, *reused_networks.runs([first], study.controls, study.maps))
    for key, values in axes.items():
        for k, value in enumerate(values):
            if k != longest[key]:
                yield first.model_copy(update={"settings": settings | {key: value}})
