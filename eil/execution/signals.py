"""Signals and time limits: a step that is told to end ends at once, or where it can save what it has."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not an error, the same command goes on


class Interrupted(BaseException):
    """A signal ended the step; nothing failed. No Exception: nobody should take it for one."""


class OutOfTime(Exception):
    """The step has taken longer than the study's time limit."""


class _Pending:
    """What has come while a block asked for it to wait."""

    waiting = False
    error: BaseException | None = None


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGTERM and SIGINT within the block."""

    def told(number: int, _: FrameType | None) -> None:
        _arrive(Interrupted(signal.Signals(number).name))

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """Raise :class:`OutOfTime` after so many minutes in the block; None for no limit."""

    def late(number: int, _: FrameType | None) -> None:
        _arrive(OutOfTime(f"longer than the time limit of {minutes:g} minutes"))

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes if minutes else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Let what comes wait within the block, which asks now and then whether something has, and then :func:`leave` s."""
    _Pending.waiting, _Pending.error = True, None
    try:
        yield lambda: _Pending.error is not None
    finally:
        _Pending.waiting = False


def leave() -> NoReturn:
    """Raise what has come."""
    raise _Pending.error or Interrupted("nothing has come")


def _arrive(error: BaseException) -> None:
    if not _Pending.waiting:
        raise error
    _Pending.error = error
