"""Print what a study comes to: the effective values of each configuration, each with its place."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eil.core import registry
from eil.core.run import Run
from eil.core.settings import schema
from eil.study import precedence
from eil.study.study import Study


def lines(study: Study, runs: Sequence[Run]) -> Iterator[str]:
    """Each configuration's network, settings, recipe and stride, and what replaced parts of its preset.

    Args:
        study: the runs' own.
        runs: of :meth:`Study.expand`; repetitions, controls and extractors have no values of their own.
    """
    for run in runs:
        if run.reuses_network or not (run.checkpoint or run.repetition == study.seeds[0]):
            continue
        found = precedence.resolve(study, run.backbone, run.method)
        yield run.name.removesuffix(f"-seed{run.repetition}")
        for key, value in _values(run).items():
            place = f"backbones.{run.backbone}.methods.{run.method}" if key == "checkpoint" else found.place(key)
            yield f"  {key} = {_shown(value)} ({place or 'study'})"
        yield from (f"  {line}" for line in (*found.replaced, *found.changed))


def _values(run: Run) -> Mapping[str, Any]:
    fields = schema(registry.load(registry.METHODS, run.method)).model_fields
    settings = {name: field.default for name, field in fields.items()} | run.settings
    values: dict[str, Any] = {"layout": run.layout, "output_stride": run.output_stride}
    values |= {"checkpoint": run.checkpoint} if run.checkpoint else {}
    values |= {f"network.{key}": value for key, value in run.network.items()}
    values |= {f"settings.{key}": value for key, value in settings.items()}
    return values | {f"recipe.{key}": value for key, value in run.recipe.model_dump().items()}


def _shown(value: Any) -> str:
    """As in YAML: ``none`` for the backbone's own value, no tuples, rates without an exponent."""
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".") if 1e-9 < abs(value) < 1e9 else f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "none" if value is None else str(value)
