"""Work on many images by processes, a block of images at a time."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from eil.core.files import InputError

BLOCK = 1000  # images that one process takes at a time, and the most that a kill loses
T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(act: Callable[[T], R], tasks: Sequence[T]) -> Generator[R]:
    """``act`` on each task, in processes of its own for two or more; results as in ``map``.

    Raises:
        InputError: as ``act`` does, or a process was killed (for want of memory, say).
    """
    if len(tasks) < 2:
        yield from map(act, tasks)
        return
    # A forked process would inherit the locks of threads that it does not have.
    pool = ProcessPoolExecutor(min(len(tasks), cores()), multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(act, tasks)
    except BrokenProcessPool:
        raise InputError("a process that decodes images was killed: is there memory and disk enough?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blocks(count: int) -> list[range]:
    """Positions of ``count`` images by the block."""
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
