"""Progress of a study and scores of a run, as lines for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eil.core.files import InputError, read_json
from eil.core.metric_definitions import COLUMNS
from eil.core.records import Record, extractor_label, settings_label
from eil.core.run import Run
from eil.data.cache import Fingerprints
from eil.execution import collect, data_state, run_lock

_MOST = 5  # failures that are told in full
_TOLD = 100  # trainings of a study, about, that print its progress


def status(runs: Sequence[Run], folder: Path, now: Mapping[str, Fingerprints]) -> list[str]:
    """Lines on how far a study is: runs done, running, failed, to do, and the trainings' time that is left.

    Args:
        runs: of the study.
        folder: in which the runs' folders are.
        now: fingerprints of the data, by the cache that a run reads.
    """
    collected = collect.collect(runs, folder)
    others = data_state.made_from_changed_data(collected, now)
    left_out = set(map(id, others))
    found = {record.run.name: record for record in collected if id(record) not in left_out}
    failed = [record for record in found.values() if record.status == "failed"]
    running = [run.name for run in runs if run.name not in found and run_lock.is_busy(folder / run.name)]
    todo = len(runs) - len(found) - len(running)
    done = len(found) - len(failed)
    lines = [f"{done} of {len(runs)} runs done, {len(running)} running, {len(failed)} failed, {todo} to do"]
    lines += [f"running: {name}: {_at(folder / name)}" for name in running]
    lines += [f"failed in {record.step or '?'}: {record.run.name}: {record.error}" for record in failed[:_MOST]]
    lines += [f"… and {len(failed) - _MOST} more"] if len(failed) > _MOST else []
    lines += [*collect.outdated(runs, collected, folder), *collect.changed_data(others), progress(runs, folder)]
    if failed:
        lines.append("to try the failed ones again, repeat the command that started the study")
    return lines


def tells_progress(run: Run, count: int) -> bool:
    """Whether a training prints its study's progress at its end: about 100 of a study do, as it reads all runs' files.

    Args:
        run: that was trained.
        count: how many runs the study has.
    """
    return int(run.key, 16) % max(1, count // _TOLD) == 0


def progress(runs: Sequence[Run], folder: Path, extra_running: int = 0) -> str:
    """A study's trainings in a line, by what files there are: nothing is read that is large.

    Args:
        runs: of the study.
        folder: in which the runs' folders are.
        extra_running: 1 to count the calling process, which has released its run's lock.
    """
    trained = [run for run in runs if not (run.reuses_network or run.checkpoint)]
    trainings = [folder / run.name for run in trained]
    taken = [seconds for run in trained if (seconds := _taken(folder, run)) is not None]
    busy = sum(map(run_lock.is_busy, trainings))
    line = f"{len(taken)} of {len(trainings)} trainings done, {busy} running"
    left = len(trainings) - len(taken)
    if taken and left:
        minutes = left * sum(taken) / len(taken) / max(busy + extra_running, 1) / 60
        much = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
        line += f", about {much} left for the others"
    return line


def shown(record: Record) -> list[str]:
    """Lines that tell what a record says."""
    run = record.run
    lines = [
        f"{run.name}: {record.status}",
        f"  {run.method} ({settings_label(run.settings) or 'defaults'}) on {run.backbone}, {run.dataset.name}, "
        f"repetition {run.repetition}{f', control {run.control}' if run.control else ''}"
        f"{f', maps of {extractor_label(run)}' if run.extractor else ''}",
    ]
    if record.error:
        return [*lines, f"  failed in {record.step}: {record.error}", *(f"    {line}" for line in record.log)]
    lines += [f"  protocol {record.protocol}, {record.provenance.get('images')} test images"]
    scores = [(label, value) for label, key in COLUMNS.items() if (value := record.value(key)) is not None]
    lines += [f"  {label:<22} {value:6.1f} %" for label, value in scores]
    training: Mapping[str, Any] = record.training
    if found := training.get("imported"):
        lines.append(f"  imported from {found['file']} (sha256 {found['sha256']}) by {found['naming']}'s names")
    elif training:
        lines.append(f"  trained for {training['epochs']} epochs in {training['seconds']:.0f} s, {_machine(training)}")
    return lines


def _taken(folder: Path, run: Run) -> float | None:
    """Seconds of a finished training; None if it has not finished, or left no summary, of these settings."""
    try:
        found = read_json(folder / run.name / "train.json")
    except InputError:
        return None
    seconds = found.get("seconds")
    return seconds if isinstance(seconds, int | float) and found.get("key", run.key) == run.key else None


def _at(folder: Path) -> str:
    """What a run's process is at, and the last line of its log."""
    try:
        trace = read_json(folder / "running.json")
    except InputError:
        return "about to begin"
    log = folder / f"{trace.get('step')}.log"
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:] if log.exists() else []
    return ", ".join([f"{trace.get('step')} since {trace.get('started')}", *last])


def _machine(training: Mapping[str, Any]) -> str:
    made = training.get("provenance", {})
    gpu = made.get("gpu") or {}
    return f"{gpu.get('name') or made.get('processor', 'unknown machine')}, commit {made.get('commit')}"
