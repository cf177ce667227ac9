"""Process many images in parallel processes, a block of images at a time."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from eil.core.files import InputError

BLOCK = 1000  # images per task; a kill loses at most the blocks in progress
T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(act: Callable[[T], R], tasks: Sequence[T]) -> Generator[R]:
    """``map(act, tasks)`` in parallel processes if there are two tasks or more.

    Raises:
        InputError: from ``act``, or because a process was killed (out of memory, say).
    """
    if len(tasks) < 2:
        yield from map(act, tasks)
        return
    # A forked process would inherit locks that its missing threads hold.
    pool = ProcessPoolExecutor(min(len(tasks), cores()), multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(act, tasks)
    except BrokenProcessPool:
        raise InputError("a process that decodes images was killed: is there enough memory and disk space?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blocks(count: int) -> list[range]:
    """Positions of ``count`` images, in blocks."""
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
