"""All scores of a study as one tidy table: a row a score."""

import dataclasses
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from eil.core import records
from eil.core.files import InputError
from eil.core.records import Record, Score, extractor_label, settings_label
from eil.core.run import format_value

FILE = "records.parquet"
_log = logging.getLogger(__name__)


def results(folder: str | Path) -> pd.DataFrame:
    """Every score of a study, a row each; see ``eil.results``."""
    path = Path(folder) / FILE
    found = sorted(Path(folder).glob("runs/*/record.json"))
    if not path.exists():
        if not found:
            raise InputError(f"{folder}: no {FILE} and no runs/*/record.json; give a study's folder of results")
        return table(map(records.read, found))
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable table: {error}; `eil aggregate` makes it again") from None
    if "metric" not in frame:
        raise InputError(f"{path}: was made by version 1 of eil: `eil aggregate` makes it again")
    if missing := [name for name in ("run", "value") if name not in frame]:
        raise InputError(f"{path}: has no column {missing[0]}: `eil aggregate` makes it again")
    if not pd.api.types.is_float_dtype(frame["value"]):
        raise InputError(
            f"{path}: value: expected numbers, found {frame['value'].dtype}: `eil aggregate` makes it again"
        )
    newer = [each for each in found if each.stat().st_mtime > path.stat().st_mtime]
    if newer:
        _log.warning("%s: is older than %d records, %s first; run `eil aggregate`", path, len(newer), newer[0])
    return frame


def records_in(folder: str | Path) -> list[Record]:
    """The records of a study, in the order of their runs' names.

    Args:
        folder: of the study's results, with ``runs/*/record.json``.

    Raises:
        InputError: there are none, or another version of eil made them.
    """
    found = sorted(Path(folder).glob("runs/*/record.json"))
    if not found:
        raise InputError(f"{folder}: no runs/*/record.json; give a study's folder of results")
    return list(map(records.read, found))


def table(found: Iterable[Record]) -> pd.DataFrame:
    """A row a score; a failed run has one row without a score.

    Returns:
        Columns ``run``, ``backbone``, ``pretrained``, ``method``, ``control``, ``extractor``, ``settings``,
        ``setting.{name}`` for each setting, ``repetition``, ``status``, ``error``, ``seconds`` (of training),
        ``split``, ``protocol``, ``threshold_from``, ``metric``, ``subset``, ``value``.
    """
    every = list(found)
    names = dict.fromkeys(f"setting.{key}" for record in every for key in record.run.settings)
    first = ["run", "backbone", "pretrained", "method", "control", "extractor", "settings", *names]
    of_runs = pd.DataFrame(map(_of_run, every), columns=[*first, "repetition", "status", "error", "seconds"])
    # By columns: of ten thousand records a mapping for each row would take gigabytes.
    counts = [max(len(record.scores), 1) for record in every]
    frame = of_runs.loc[of_runs.index.repeat(counts)].reset_index(drop=True)
    for field in dataclasses.fields(Score):
        frame[field.name] = [
            value for each in every for value in [getattr(row, field.name) for row in each.scores] or [math.nan]
        ]
    for name in names:
        given = frame[name].dropna()
        kinds = {type(value) for value in given}
        if not kinds <= {int, float} and kinds != {bool}:  # a column of a file has one type
            frame[name] = given.map(format_value).reindex(frame.index)
    return frame


def _of_run(record: Record) -> dict[str, Any]:
    run = record.run
    return {
        "run": run.name,
        "backbone": run.backbone,
        "pretrained": format_value(run.pretrained),
        "method": run.method,
        "control": run.control,
        "extractor": extractor_label(run),
        "settings": settings_label(run.settings),
        **{f"setting.{key}": value for key, value in run.settings.items()},
        "repetition": run.repetition,
        "status": record.status,
        "error": record.error,
        "seconds": record.training.get("seconds"),
    }
