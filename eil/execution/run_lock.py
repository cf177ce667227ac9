"""Run a step under the run's lock; record failures and crashes."""

import contextlib
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from eil.core import provenance, ranks
from eil.core.files import InputError, is_locked, locked, locked_if_free, read_json, write_json
from eil.core.records import Record
from eil.core.run import Run
from eil.execution import out_of_memory

_LOCK, _RUNNING, _FAILURE = ".lock", "running.json", "failure.json"
_LOG_LINES = 20  # last lines of a step's log that a failure record keeps


@contextlib.contextmanager
def run_step(run: Run, folder: Path, step: str) -> Iterator[None]:
    """Execute a step in the block, exclusively in the run's folder; write failure.json if the block raises.

    failure.json is not a declared output, because a workflow engine deletes the outputs of a failed job. The step,
    host and process are in running.json during the block; the file of a killed process stays (:func:`crashed_step`).
    """
    if ranks.rank():
        yield  # the first process of a distributed training writes the files
        return
    with exclusive(run, folder):
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        running = {"step": step, "key": run.key, "host": platform.node(), "process": os.getpid(), "started": started}
        write_json(folder / _RUNNING, running | out_of_memory.counter())
        (folder / _FAILURE).unlink(missing_ok=True)  # of an earlier attempt
        try:
            with _logged(folder / f"{step}.log"):
                yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # on a full disk; the first error is the one to report
                failure(run, step, text, folder).save(folder / _FAILURE)
            raise
        finally:  # a killed process does not get here
            (folder / _RUNNING).unlink(missing_ok=True)


def exclusive(run: Run, folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the run's lock in the block; wait for another process that holds it, and log that."""
    return locked(folder / _LOCK, f"{run.name}: waiting for another process on this run")


def exclusive_if_free(folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Hold the lock of a run's folder in the block unless another process holds it; tell whether this one does."""
    return locked_if_free(folder / _LOCK)


def failed_before(folder: Path) -> bool:
    """Whether the last step that was executed for a run failed or crashed, or is running now."""
    return any((folder / name).exists() for name in (_FAILURE, _RUNNING))


def is_busy(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    return is_locked(folder / _LOCK)


def crashed_step(folder: Path) -> dict[str, object] | None:
    """Content of running.json if its process ended without removing it; None if no step crashed."""
    if not (folder / _RUNNING).exists() or is_busy(folder):
        return None
    try:
        running = read_json(folder / _RUNNING)
    except InputError:
        return None
    return running if {"step", "key", "host", "process"} <= running.keys() else None


def failure(run: Run, step: str, error: str, folder: Path) -> Record:
    """The record of a failed step, with the last lines of its log."""
    log = folder / f"{step}.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return Record(
        run=run, key=run.key, status="failed", step=step, error=error, log=tail, provenance=provenance.provenance()
    )


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Append the project's log messages in the block to a file."""
    logger, handler = logging.getLogger("eil"), logging.FileHandler(path, encoding="utf-8")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
