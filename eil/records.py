"""The record of a run: metrics, settings and provenance in one JSON file; also of a run that failed."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from eil.files import InputError, read_json, write_json
from eil.run import Run, readable

Status = Literal["done", "failed"]


class Record(BaseModel):
    """What a run came to.

    Attributes:
        run: the run's own settings.
        key: hash of these settings; a record of other settings is stale.
        status: "failed" comes with ``error``, "done" with ``metrics``.
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
    error: str | None = None
    metrics: dict[str, float] = {}
    protocol: str = "honest"
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


def collect(runs: Iterable[Run], folder: Path) -> list[Record]:
    """Records of those runs that have one of their present settings; failures where they have none.

    Args:
        runs: of a study.
        folder: the study's ``runs``.
    """
    found = []
    for run in runs:
        for name in ("record.json", "failure.json"):
            path = folder / run.name / name
            if path.exists() and (record := read(path)).key == run.key:
                if record.run.key != run.key:
                    raise InputError(f"{path}: its run is not the one whose key it has; delete it to make it anew")
                found.append(record)
                break
    return found


@contextlib.contextmanager
def failure_kept(run: Run, folder: Path) -> Iterator[None]:
    """Write failure.json if the block raises, remove it if it does not.

    It is a file of its own because a workflow engine deletes the declared outputs of a failed job.
    """
    path = folder / "failure.json"
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        Record(run=run, key=run.key, status="failed", error=text, provenance=provenance()).save(path)
        raise
    path.unlink(missing_ok=True)


def provenance() -> dict[str, Any]:
    """Versions, machine, commit and time, as far as they can be told."""
    libraries = ("eil", "torch", "torchvision", "numpy", "opencv-python-headless", "lightning-fabric")
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "platform": platform.platform(),
        "processor": processor(),
        "threads": threads(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def threads() -> int:
    """How many threads this process may use: what its scheduler set, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def table(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record: backbone, method, settings (JSON), repetition, status, and every metric."""
    rows = [
        {
            "backbone": record.run.backbone,
            "pretrained": record.run.pretrained,
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
        if not all(isinstance(value, int | float) for value in given):  # a column of a file has one type
            frame[name] = given.map(readable).reindex(frame.index)
    return frame


def settings_label(settings: dict[str, Any]) -> str:
    """``gamma=0.7, sigma=1, at=pool3+pool4``."""
    return ", ".join(f"{key}={readable(value)}" for key, value in settings.items())


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    """Commit of the sources, with "+" if they were changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
