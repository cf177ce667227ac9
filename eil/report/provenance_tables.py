"""How a study's numbers came about: every setting in effect, and the sources, versions and machines of its runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eil.core import registry
from eil.core.records import Record, labelled
from eil.core.run import Run, format_value
from eil.core.settings import schema
from eil.data import class_subset
from eil.report.notes import Notes
from eil.report.table import Table
from eil.study import reused_networks
from eil.study.study import Study

# Keys of a recipe that matter where nothing is trained.
_WITHOUT_TRAINING = {"batch_size", "precision", "deterministic", "channels_last", "resize", "crop", "geometry", "crops"}
Place = tuple[str, str]  # method, backbone


def settings(study: Study, runs: Sequence[Run]) -> Table:
    """Every setting with its defaults, a line for each of its values; the last column says where it holds.

    Args:
        study: the runs' own.
        runs: of the study; those that borrow a network have no settings of their own.
    """
    trained = [run for run in runs if not run.reuses_network]
    values: dict[str, dict[str, dict[Place, None]]] = {}  # setting -> value -> where, in order
    for run in trained:
        for key, value in _of(run):
            values.setdefault(key, {}).setdefault(format_value(value), {})[run.method, run.backbone] = None
    rows = [["dataset.name", study.dataset.name, "all"]]
    rows += [[f"dataset.{key}", _short(value), "all"] for key, value in study.dataset.settings.items()]
    rows += [["seeds", _seeds(study.seeds), "all"], ["protocols", ", ".join(study.protocols), "all"]]
    rows += [["controls", ", ".join(study.controls) or "none", "all"]]
    maps = [labelled(each.name, each.settings) for each in reused_networks.choices(study.maps)]
    rows += [["maps", ", ".join(maps), "all"]] if maps else []
    for key, held in values.items():
        everywhere = {place for places in held.values() for place in places}
        rows += [[key, value, _where(list(places), everywhere)] for value, places in held.items()]
    note = "defaults are included; – is none, or the backbone's default"
    return Table(f"{study.name}: settings", ["Setting", "Value", "Where"], rows, Notes(other=(note,)))


def _seeds(repetitions: Sequence[int]) -> str:
    """How many, or which if they are not the first."""
    first = list(repetitions) == list(range(len(repetitions)))
    return str(len(repetitions)) if first else f"[{', '.join(map(str, repetitions))}]"


def provenance(study: Study, records: Sequence[Record]) -> Table:
    """A line for each commit, machine and set of versions that trained runs, with what that took.

    Args:
        study: the records' own.
        records: of runs that are done.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Record]] = {}
    for record in records:
        trained = not (record.run.reuses_network or record.run.checkpoint)
        if trained and "provenance" in record.training:
            groups.setdefault(tuple(_origin(record.training["provenance"])), []).append(record)
    rows = [
        [str(len(group)), *(value for _, value in origin), *_spent([each.training for each in group])]
        for origin, group in groups.items()
    ]
    data = sorted({str(record.provenance.get("data_sha256")) for record in records})
    names = [name for name, _ in next(iter(groups), ())]
    header = ["Trainings", *names, "first", "last", "hours", "peak memory (MiB)", "energy (kJ)"]
    notes = (
        "commit +: the sources had been changed since; hours: the sum over trainings, of which several may run at once",
        "peak memory and energy: since a training's last start; energy: of one whole device, where it is reported",
        "data (SHA-256): " + ", ".join(data),
    )
    return Table(f"{study.name}: commits, machines and versions that trained it", header, rows, Notes(other=notes))


def _of(run: Run) -> Iterator[tuple[str, Any]]:
    """A run's settings, spelled out."""
    yield "backbone.pretrained", run.pretrained
    yield "backbone.output_stride", _or_dash(run.output_stride)
    yield "layout", run.layout
    if run.checkpoint:
        path, _, digest = run.checkpoint.rpartition("@sha256:")
        yield "checkpoint", f"{Path(path).name}@sha256:{digest.lower()}"
    for key, value in run.network.items():
        yield f"network.{key}", _or_dash(value)
    for key, value in run.recipe.model_dump(include=_WITHOUT_TRAINING if run.checkpoint else None).items():
        yield f"recipe.{key}", _or_dash(value)
    for key, field in schema(registry.load(registry.METHODS, run.method)).model_fields.items():
        default = None if field.is_required() else field.default
        yield f"{run.method}.{key}", _or_dash(run.settings.get(key, default))


def _short(value: Any) -> str:
    """A setting of a data set; a list of classes may be long, and study.yaml has it whole."""
    return class_subset.abbreviated(value) if isinstance(value, list | tuple) else format_value(value)


def _or_dash(value: Any) -> Any:
    return "–" if value is None else value


def _where(places: Sequence[Place], everywhere: set[Place]) -> str:
    """As short as can be: all, backbones, methods, or methods on backbones."""
    if set(places) == everywhere:
        return "all"
    for side in (1, 0):
        named = list(dict.fromkeys(place[side] for place in places))
        if set(places) == {place for place in everywhere if place[side] in named}:
            return ", ".join(named)
    return ", ".join(f"{method} on {backbone}" for method, backbone in places)


def _origin(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    gpu = found["gpu"]
    yield "commit", found["commit"] or "–"
    yield "device", f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}" if gpu else found["processor"]
    yield "threads", str(found["threads"])
    for name, version in found["versions"].items():
        yield name, version or "–"


def _spent(trainings: Sequence[dict[str, Any]]) -> list[str]:
    """First and last day, hours, largest memory, energy."""
    origins = [training["provenance"] for training in trainings]
    days = sorted(origin["time"][:10] for origin in origins)
    hours = sum(training["seconds"] for training in trainings) / 3600
    peak = max(origin.get("peak_gpu_bytes", origin.get("peak_bytes", 0)) for origin in origins) / 2**20
    joules = [origin["joules"] for origin in origins if "joules" in origin]
    return [days[0], days[-1], f"{hours:.2f}", f"{peak:.0f}", f"{sum(joules) / 1000:.1f}" if joules else "–"]
