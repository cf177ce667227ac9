"""A step of a run at work: one process at a time, a failure kept as a record, and a trace that a killed one leaves."""

import contextlib
import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from eil.core import provenance, ranks, records, source_hash
from eil.core.files import InputError, locked, read_json, write_json
from eil.core.records import Record
from eil.core.run import Run
from eil.execution import out_of_memory

_LOCK, _TRACE = ".lock", "running.json"
_TAIL = 20  # lines of a step's log that a failure keeps


@contextlib.contextmanager
def at_work(run: Run, folder: Path, step: str) -> Iterator[None]:
    """Do a step in the block: alone in the run's folder; failure.json tells if it raises.

    The failure is a file of its own because a workflow engine deletes the declared outputs of a failed job. A process
    that is killed leaves running.json, which says what it was at.
    """
    if ranks.rank():
        yield  # the first process of the training keeps the books
        return
    with alone(run, folder):
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        trace = {"step": step, "key": run.key, "host": platform.node(), "process": os.getpid(), "started": started}
        write_json(folder / _TRACE, trace | out_of_memory.counter())
        (folder / "failure.json").unlink(missing_ok=True)  # of an earlier try
        try:
            with _logged(folder / f"{step}.log"):
                yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk, say, which the first error tells of
                _failed(run, step, text, folder).save(folder / "failure.json")
            raise
        finally:  # not reached by a killed process
            (folder / _TRACE).unlink(missing_ok=True)


def alone(run: Run, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Be the only process in a run's folder within the block; wait for another, and say so."""
    return locked(folder / _LOCK, f"{run.name}: another process is at this run: waiting for it")


def collect(runs: Iterable[Run], folder: Path) -> list[Record]:
    """Records of those runs that have one of their present settings; failures, killed processes too, where not.

    Args:
        runs: of a study.
        folder: in which the runs' folders are.
    """
    found = []
    for run in runs:
        own = folder / run.name
        for name in ("record.json", "failure.json"):
            path = own / name
            if path.exists() and (record := records.read(path)).key == run.key:
                if record.run.key != run.key:
                    raise InputError(f"{path}: corrupt record (key mismatch): delete it and run again")
                found.append(record)
                break
        else:
            trace = killed(own)
            if trace and trace.get("key") == run.key:
                found.append(_failed(run, str(trace["step"]), _cause(trace), own))
    return found


def outdated(runs: Iterable[Run], found: Sequence[Record], folder: Path) -> list[str]:
    """A line on the runs that :func:`collect` left out for their records' settings, one on those of other sources.

    The workflow would do these again; what is made without it must tell.
    """
    collected = {record.run.name for record in found}
    names = [run.name for run in runs if run.name not in collected and (folder / run.name / "record.json").exists()]
    lines = (
        [f"runs left out, as their records were made with different settings: {len(names)}, {names[0]} first"]
        if names
        else []
    )
    done = [record for record in found if record.training.get("sources") is not None]
    stale = [each.run.name for each in done if each.training["sources"] != source_hash.of_step("train", each.run)]
    if stale:
        lines.append(f"stale, as of other sources than the present ones: {len(stale)}, {stale[0]} first")
    return lines


def of_other_data(records: Sequence[Record]) -> list[str]:
    """A line on records that were made from other data than there are now, if there are any."""
    if not records:
        return []
    return [f"left out, as made from other data than there are now: {len(records)} runs, {records[0].run.name} first"]


def is_busy(folder: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    try:
        with (folder / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def killed(folder: Path) -> dict[str, object] | None:
    """What a process was at that did not come to its end; None if there is none."""
    if not (folder / _TRACE).exists() or is_busy(folder):
        return None
    try:
        trace = read_json(folder / _TRACE)
    except InputError:
        return None
    return trace if {"step", "key", "host", "process"} <= trace.keys() else None


def _cause(trace: Mapping[str, object]) -> str:
    """What is known of how a process ended that left its trace; a signal alone tells no reason."""
    text = f"killed in {trace['step']} on {trace['host']}, process {trace['process']}"
    kills = out_of_memory.since(trace) if trace["host"] == platform.node() else 0
    if not kills:
        return f"{text}, without a message; if the machine was out of memory, its system log says so"
    victims = "a process" if kills == 1 else f"{kills} processes"
    return f"{text}, probably out of memory: since it began, the system killed {victims} here for want of memory"


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Add what the project logs in the block to a file."""
    logger, handler = logging.getLogger("eil"), logging.FileHandler(path, encoding="utf-8")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _failed(run: Run, step: str, error: str, folder: Path) -> Record:
    log = folder / f"{step}.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:] if log.exists() else []
    return Record(
        run=run, key=run.key, status="failed", step=step, error=error, log=tail, provenance=provenance.provenance()
    )
