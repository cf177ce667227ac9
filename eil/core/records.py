"""The record of a run: metrics, settings and provenance in one JSON file; also of a run that failed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from eil.core.files import InputError, read_json, write_json
from eil.core.run import Run, readable

Status = Literal["done", "failed"]


class Record(BaseModel):
    """What a run came to.

    Attributes:
        run: the run's own settings.
        key: hash of these settings; a record of other settings is stale.
        status: "failed" comes with ``error``, "done" with ``metrics``.
        step: that failed, and ``log``, the last lines that it wrote.
        metrics: "split.policy.metric" -> value in percent (see :mod:`eil.evaluation.metrics`); the policy "own" is
            the protocol's.
        protocol: by which the metrics were made.
        others: further protocols' metrics, each by its own policy.
        replicates: bootstrap replicates of the main metrics (see :mod:`eil.evaluation.statistics`).
        curves: named lists, such as accuracy over thresholds.
        training: seconds, epochs and last parts of the loss.
        provenance: versions, machine, data and weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    run: Run
    key: str
    status: Status
    step: str | None = None
    error: str | None = None
    log: list[str] = []
    metrics: dict[str, float] = {}
    protocol: str = "val-threshold"
    others: dict[str, dict[str, float]] = {}
    replicates: dict[str, list[float]] = {}
    curves: dict[str, list[float]] = {}
    training: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_json(path, self.model_dump(mode="json"))


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        InputError: no such file, or no record in it.
    """
    try:
        return Record.model_validate(read_json(path))
    except ValueError as error:
        raise InputError(f"{path}: not a record of this version: {error}") from None


def table(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record: backbone, method, settings (JSON), repetition, status, and every metric."""
    rows = [
        {
            "backbone": record.run.backbone,
            "pretrained": readable(record.run.pretrained),
            "method": record.run.method,
            "control": record.run.control,
            "settings": settings_label(record.run.settings),
            **{f"setting.{key}": value for key, value in record.run.settings.items()},
            "repetition": record.run.repetition,
            "status": record.status,
            "error": record.error,
            **record.metrics,
            "seconds": record.training.get("seconds"),
        }
        for record in records
    ]
    frame = pd.DataFrame(rows)
    for name in [name for name in frame if str(name).startswith("setting.")]:
        given = frame[name].dropna()
        kinds = {type(value) for value in given}
        if not kinds <= {int, float} and kinds != {bool}:  # a column of a file has one type
            frame[name] = given.map(readable).reindex(frame.index)
    return frame


def settings_label(settings: dict[str, Any]) -> str:
    """``gamma=0.7, sigma=1, at=pool3+pool4``."""
    return ", ".join(f"{key}={readable(value)}" for key, value in settings.items())
