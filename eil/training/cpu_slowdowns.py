"""What makes training on a CPU slow without a word: bf16 that is no faster, and other processes on the same cores."""

import copy
import logging
import time
from typing import Any, Final

import torch
from lightning_fabric import Fabric

from eil.core.run import Run
from eil.data.augment import Batches
from eil.methods.base import Method, Targets

LEAST_SHARE: Final = 0.5  # of the cores' time; a training that gets less is told
_IMAGES, _STEPS = 8, 2  # of the measurement, after a step to warm up
_log = logging.getLogger(__name__)


class CpuShare:
    """How much of its cores' time a training gets, from the start of this object on."""

    def __init__(self, device: torch.device) -> None:
        self._counts = device.type == "cpu"
        self._told = False
        self.restart()

    def restart(self) -> None:
        """Begin an epoch."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def log_row(self, cores: int | None = None) -> dict[str, float]:
        """The share of the cores' time since :meth:`restart`, 0 to 1; a warning is logged once if it is small.

        Args:
            cores: that the training could use (default: torch's threads).

        Returns:
            {"cpu_share": …} to log; empty on a GPU.
        """
        if not self._counts:
            return {}
        seconds = time.monotonic() - self._wall
        share = min(1.0, (time.process_time() - self._cpu) / max(seconds, 1e-9) / (cores or torch.get_num_threads()))
        if share < LEAST_SHARE and not self._told and seconds > 1:
            self._told = True
            _log.warning(
                "the training gets only %.0f %% of its cores' time because other processes use them: its times are not "
                "reliable, and fewer jobs at once would end sooner",
                100 * share,
            )
        return {"cpu_share": share}


def warn_if_bf16_slow(run: Run, fabric: Fabric, method: Method, batches: Batches) -> float | None:
    """Measure how long a step in bf16 takes as a multiple of one in fp32, on a CPU, and warn if it saves nothing.

    Nothing that the training uses changes: copies of the method are measured, and random states are restored.

    Returns:
        The multiple; None on a GPU and in other precisions.
    """
    if run.recipe.precision != "bf16" or fabric.device.type != "cpu":
        return None
    batch = batches.at(torch.arange(min(_IMAGES, len(batches.labels))))
    with torch.random.fork_rng(devices=[]):
        taken = [_seconds(copy.deepcopy(method), batch.images, batch.labels, low) for low in (True, False)]
    multiple = taken[0] / taken[1]
    if multiple > 0.95:
        _log.warning(
            "precision = bf16 saves nothing on this CPU: a step takes %.2f times as long as in fp32 (measured); "
            "use fp32, which is exact besides",
            multiple,
        )
    return multiple


def _seconds(method: Method, images: torch.Tensor, labels: torch.Tensor, low: bool) -> float:
    """Of the fastest step, forward and backward."""
    method.train()
    best = float("inf")
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            # The class's own loss: a compiled one would be that of the network in training, of which this is a copy.
            parts: dict[str, Any] = type(method).loss(method, images, Targets(labels))
        parts["total"].backward()
        best = min(best, time.perf_counter() - started)
    return best
