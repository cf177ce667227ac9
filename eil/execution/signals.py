"""Signals and time limits: end a step at once, or at a point where it can save its state."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not an error, the same command continues the work
_log = logging.getLogger(__name__)


class Interrupted(BaseException):
    """A signal ended the step, which did not fail. Not an Exception, so that no handler of errors catches it."""


class OutOfTime(Exception):
    """The step has taken longer than the study's time limit."""


class _Pending:
    """State of :func:`deferred`: whether to defer, and what arrived meanwhile."""

    deferring = False
    error: BaseException | None = None


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGTERM and SIGINT within the block."""

    def handle(number: int, _: FrameType | None) -> None:
        _arrive(Interrupted(signal.Signals(number).name))

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Raise :class:`OutOfTime` if the block takes longer than ``minutes``; None for no limit."""
    if minutes is None:
        yield
        return
    if not hasattr(signal, "SIGALRM"):  # Windows
        _log.warning("time_limit = %g: not enforced, since this system has no alarm signal", minutes)
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        _arrive(OutOfTime(f"longer than the time limit of {minutes:g} minutes"))

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defer signals inside the block; the yielded function tells whether one arrived (:func:`raise_pending`)."""
    _Pending.deferring, _Pending.error = True, None
    try:
        yield lambda: _Pending.error is not None
    finally:
        _Pending.deferring = False


def raise_pending() -> NoReturn:
    """Raise the exception of the signal that arrived."""
    raise _Pending.error or Interrupted("another process of this training was interrupted")


def _arrive(error: BaseException) -> None:
    if not _Pending.deferring:
        raise error
    _Pending.error = error
