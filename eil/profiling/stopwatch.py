"""A stopwatch for iterations and their parts, with the clock or with events of a GPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

Mark = Any  # seconds, or an event on a GPU


@dataclass
class Stopwatch:
    """Times of iterations and their parts. On a GPU it records events, for which the host does not wait.

    Attributes:
        now: returns a mark.
        between: seconds from one mark to another.
        settle: waits until all marks are reached.
    """

    now: Callable[[], Mark] = time.perf_counter
    between: Callable[[Mark, Mark], float] = lambda first, last: float(last - first)
    settle: Callable[[], None] = lambda: None
    _marks: list[list[tuple[str, Mark]]] = field(default_factory=list)

    def start(self) -> None:
        """Begin an iteration."""
        self._marks.append([("", self.now())])

    def lap(self, name: str) -> None:
        """End a part of it."""
        self._marks[-1].append((name, self.now()))

    def seconds(self) -> dict[str, list[float]]:
        """Of every iteration, "total" and each part."""
        self.settle()
        found: dict[str, list[float]] = {"total": []}
        for marks in self._marks:
            found["total"].append(self.between(marks[0][1], marks[-1][1]))
            for (_, first), (name, last) in pairwise(marks):
                found.setdefault(name, []).append(self.between(first, last))
        return found


def stopwatch(device: torch.device) -> Stopwatch:
    """One that suits the device."""
    if device.type != "cuda":
        return Stopwatch()

    def event() -> torch.cuda.Event:
        found = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        found.record()
        return found

    return Stopwatch(event, lambda first, last: first.elapsed_time(last) / 1000, torch.cuda.synchronize)
