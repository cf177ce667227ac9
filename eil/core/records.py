"""The record of a run in one JSON file: scores as rows, settings and provenance; also of a run that failed."""

import contextlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from eil.core.files import InputError, read_json, write_json
from eil.core.metric_definitions import METRICS, ScoreKey, Split, ThresholdFrom
from eil.core.run import Run, format_value
from eil.core.settings import problems

Status = Literal["done", "failed"]
VERSION: Final = 2
_ROUNDING: Final = 1e-6
_NUMBERS = TypeAdapter(list[FiniteFloat])


def _compact(values: Any) -> "array[float]":
    """Finite numbers in 8 bytes each instead of 32: they are most of what a record holds."""
    return values if isinstance(values, array) else array("d", _NUMBERS.validate_python(values))


Numbers = Annotated[Sequence[float], PlainValidator(_compact), PlainSerializer(list)]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class _Scored:
    """What was scored, and how. Rows have slots: those of ten thousand records fill the memory otherwise.

    Attributes:
        split: "val" or "test".
        protocol: a name in protocols.yaml.
        threshold_from: "val", "oracle" (chosen on the scored images), "fixed", "otsu", or "" if there is no threshold.
        metric: a name in :data:`eil.core.metric_definitions.METRICS`.
        subset: "" for all images; else an object's size, a part, or a kind of error.
    """

    split: Split
    protocol: str
    threshold_from: ThresholdFrom
    metric: str
    subset: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What no other row of the record shares."""
        return self.split, self.protocol, self.threshold_from, self.metric, self.subset


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Score(_Scored):
    """One score; ``value`` has the metric's unit, mostly percent."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Replicates(_Scored):
    """Bootstrap replicates of one score (see :mod:`eil.evaluation.statistics`)."""

    values: Numbers


class Record(BaseModel):
    """What a run came to.

    Attributes:
        version: of this format.
        run: the run's own settings.
        key: hash of these settings; a record with another key was made with different settings.
        status: "failed" comes with ``error``, "done" with ``scores``.
        step: that failed, and ``log``, the last lines that it wrote.
        protocol: the record's own, whose scores the tables show.
        threshold_from: of every protocol that scored the maps, where its own threshold comes from.
        scores: one row each.
        replicates: of the main scores.
        curves: a metric's name -> its value at each of the 255 thresholds.
        history: name of a part of the loss, or of ``epoch``, ``lr``, ``seconds`` … -> its value in each epoch.
        training: seconds, epochs and last parts of the loss.
        provenance: versions, machine, data and weights.
    """

    model_config = ConfigDict(frozen=True, **_STRICT)

    version: Literal[2] = 2
    run: Run
    key: str
    status: Status
    step: str | None = None
    error: str | None = None
    log: list[str] = []
    protocol: str = ""
    threshold_from: dict[str, ThresholdFrom] = {}
    scores: list[Score] = []
    replicates: list[Replicates] = []
    curves: dict[str, Numbers] = {}
    history: dict[str, Numbers] = {}
    training: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> "Record":
        if self.status == "done" and not self.scores:
            raise ValueError("a done run without scores")
        for row in self.scores:
            metric = METRICS.get(row.metric)
            if metric is not None and metric.unit == "%" and not -_ROUNDING <= row.value <= 100 + _ROUNDING:
                raise ValueError(f"{row.metric} of {row.split} is {row.value:g}, expected a percentage from 0 to 100")
        return self

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_json(path, self.model_dump(mode="json"))

    def value(self, key: ScoreKey) -> float | None:
        """The value of a score; None if the record does not have it."""
        wanted = self._complete(key)
        return next((row.value for row in self.scores if row.metric == key.metric and row.identity == wanted), None)

    def replicates_of(self, key: ScoreKey) -> Sequence[float] | None:
        """The bootstrap replicates of a score; None if the record does not have them."""
        wanted = self._complete(key)
        return next((row.values for row in self.replicates if row.identity == wanted), None)

    def subsets(self, metric: str) -> list[str]:
        """Subsets of which the record's own protocol has this metric, in order, without "" for all images."""
        rows = (row for row in self.scores if (row.metric, row.protocol) == (metric, self.protocol))
        return [subset for subset in dict.fromkeys(row.subset for row in rows) if subset]

    def _complete(self, key: ScoreKey) -> tuple[str, ...]:
        """A key with this record's protocol and its threshold where it leaves them open."""
        protocol = self.protocol if key.protocol is None else key.protocol
        declared = METRICS[key.metric].threshold_from
        chosen = self.threshold_from.get(protocol, "") if declared is None else declared
        chosen = chosen if key.threshold_from is None else key.threshold_from
        return key.split, protocol, chosen, key.metric, key.subset


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: no such file, no record in it, or one of another version.
    """
    with contextlib.suppress(OSError, ValueError):  # the quick way; if it fails, the other one says why
        text = path.read_bytes()
        if not any(constant in text for constant in (b"NaN", b"Infinity")):
            record = Record.model_validate_json(text)
            if "version" in record.model_fields_set:  # version 1 wrote none
                return record
    content = read_json(path)
    require_version(content, path)
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first, *others = problems(error, Record)
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"{path}: not a record of version {VERSION}: {first}{more}; evaluate the run again") from None


def require_version(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a record that another version of this format wrote.

    Raises:
        InputError: it did; the message says what to do.
    """
    version = content.get("version", 1)
    if version != VERSION:
        failed = content.get("status") == "failed"
        again = "delete it and run again" if failed else "evaluate the run again; nothing is trained"
        raise InputError(f"{path}: was made by version {version} of eil: {again}")


def settings_label(settings: Mapping[str, Any]) -> str:
    """``gamma=0.7, sigma=1, at=pool3+pool4``."""
    return ", ".join(f"{key}={format_value(value)}" for key, value in settings.items())


def labelled(name: str, settings: Mapping[str, Any]) -> str:
    """``eil (gamma=0.7)``; the name alone without settings."""
    return f"{name} ({settings_label(settings)})" if settings else name


def extractor_label(run: Run) -> str | None:
    """A run's extractor with its settings, ``layercam (at=layer3)``; None if it has none."""
    return labelled(run.extractor.name, run.extractor.settings) if run.extractor else None
