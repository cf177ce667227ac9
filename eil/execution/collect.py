"""Collect the records of a study's runs, and report which runs have none that is current."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eil.core import records, source_hash
from eil.core.files import InputError
from eil.core.records import Record
from eil.core.run import Run
from eil.execution import out_of_memory, run_lock


def collect(runs: Iterable[Run], folder: Path) -> list[Record]:
    """Read one record for each run that finished or failed with its present settings; a crash counts as a failure.

    Args:
        runs: runs of a study.
        folder: contains the runs' folders.

    Raises:
        InputError: a record is corrupt.
    """
    found = []
    for run in runs:
        run_folder = folder / run.name
        for name in ("record.json", "failure.json"):
            path = run_folder / name
            if path.exists() and (record := records.read(path)).key == run.key:
                if record.run.key != run.key:
                    raise InputError(f"{path}: corrupt record (key mismatch): delete it and run again")
                found.append(record)
                break
        else:
            crashed = run_lock.crashed_step(run_folder)
            if crashed and crashed.get("key") == run.key:
                found.append(run_lock.failure(run, str(crashed["step"]), _cause(crashed), run_folder))
    return found


def outdated(runs: Iterable[Run], found: Sequence[Record], folder: Path) -> list[str]:
    """Warnings about outdated results: a line for records with other settings, a line for records of other sources.

    The workflow would make these results again; commands that are called by hand must warn instead.

    Args:
        runs: runs of a study.
        found: their records (:func:`collect`).
        folder: contains the runs' folders.
    """
    collected = {record.run.name for record in found}
    names = [run.name for run in runs if run.name not in collected and (folder / run.name / "record.json").exists()]
    lines = [f"left out, made with different settings: {len(names)} runs, first {names[0]}"] if names else []
    done = [record for record in found if record.training.get("sources") is not None]
    stale = [each.run.name for each in done if each.training["sources"] != source_hash.of_step("train", each.run)]
    if stale:
        lines.append(f"stale, made with different source code: {len(stale)} runs, first {stale[0]}")
    return lines


def changed_data(records: Sequence[Record]) -> list[str]:
    """A warning about records that were made from data which have changed since; empty without such records."""
    if not records:
        return []
    return [f"left out, made from data that have changed since: {len(records)} runs, first {records[0].run.name}"]


def _cause(crashed: Mapping[str, object]) -> str:
    """What is known about the crash; the kernel's counter may show that memory ran out."""
    text = f"killed in {crashed['step']} on {crashed['host']}, process {crashed['process']}"
    kills = out_of_memory.since(crashed) if crashed["host"] == platform.node() else 0
    if not kills:
        return f"{text}, without a message; if the machine was out of memory, its system log says so"
    victims = "a process" if kills == 1 else f"{kills} processes"
    return f"{text}, probably out of memory: since it started, the system killed {victims} here for lack of memory"
