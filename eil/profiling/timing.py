"""Measure the cost of a training iteration: time of each part, inference, memory and operations.

Iterations of a method alternate with iterations of the study's first method on the same backbone, in one process, so
that other load slows both equally. Times are between events on a GPU, and from a monotonic clock on a CPU.
"""

import functools
import itertools
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eil.core import records
from eil.core.run import Run
from eil.core.settings import IncompatibleSetting
from eil.data.augment import Batch
from eil.profiling import cost
from eil.profiling.stopwatch import Stopwatch, stopwatch
from eil.training import train_step

PARTS = ("data", "forward", "backward", "optimizer")
CEILING = {"cuda": 8192, "cpu": 1536}  # side of the matrices whose product measures a device's peak
_CEILING_ROUNDS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """One method on one backbone, at one batch size and precision.

    Attributes:
        settings: the method's settings, as in names.
        iterations: number of timed iterations, after the warm-up.
        seconds: of an iteration, "total" and :data:`PARTS`, each as lower quartile, median, upper quartile.
        inference: seconds for the maps of a batch, as quartiles too.
        peak_bytes: peak memory on the device; None on a CPU.
        flops: floating-point operations of an iteration.
        mfu: achieved share of the device's measured peak (a large matrix product).
        time_ratio: time relative to the first method's, quartiles over pairs of iterations.
        predicted: operations relative to the first method's.
    """

    backbone: str
    method: str
    settings: str
    batch_size: int
    precision: str
    iterations: int
    seconds: Mapping[str, tuple[float, float, float]]
    inference: tuple[float, float, float]
    peak_bytes: int | None
    flops: int
    mfu: float
    time_ratio: tuple[float, float, float]
    operation_ratio: float

    @property
    def images_per_second(self) -> float:
        """Training images per second, by the median."""
        return self.batch_size / self.seconds["total"][1]


class TimedRun:
    """A run's network with everything that a training iteration needs.

    Args:
        run: the run to train.
        data: folder of the decoded images.

    Attributes:
        endless: batches of one epoch after another.
    """

    def __init__(self, run: Run, data: Path) -> None:
        self.run = run
        self.fabric, self.model, self.optimizer = train_step.set_up(run, data)
        self.batches = train_step.batches(run, data, "train", self.model.module, self.fabric.device)
        self.endless = self._epochs()
        self.watch = stopwatch(self.fabric.device)

    def iterate(self) -> None:
        """Train for one iteration, and mark its parts."""
        self.model.train()
        self.watch.start()
        batch = next(self.endless)
        self.watch.lap("data")
        train_step.train_step(self.fabric, self.model, self.optimizer, batch, self.run.recipe, self.watch.lap)

    def infer(self, watch: Stopwatch) -> None:
        """Compute the maps of one batch."""
        self.model.eval()
        batch = next(self.endless)
        watch.start()
        with torch.inference_mode(), self.fabric.autocast():
            self.model.maps(batch.images, batch.labels)
        watch.lap("inference")

    def operations(self) -> int:
        """Floating-point operations of one iteration."""
        self.model.train()
        batch = next(self.endless)
        return cost.operations(
            lambda: train_step.train_step(
                self.fabric, self.model, self.optimizer, batch, self.run.recipe, lambda _: None
            )
        )

    def _epochs(self) -> Iterator[Batch]:
        for epoch in itertools.count():
            yield from self.batches.training(self.run.rng_seed, epoch, self.run.recipe.flip)


def measure(run: Run, base: Run, data: Path, iterations: int, warmup: int) -> Timing:
    """Time a run against another of the same backbone; if memory runs out, halve the batch of both.

    Args:
        run: the run to time.
        base: the run to compare with.
        data: folder of the decoded images.
        iterations: number of timed iterations.
        warmup: number of iterations before them.
    """
    while True:
        try:
            return _measure(run, base, data, iterations, warmup)
        except torch.OutOfMemoryError:
            half = run.recipe.batch_size // 2
            if not half:
                raise
            _log.info("%s: out of memory with a batch of %d: %d", run.name, 2 * half, half)
            torch.cuda.empty_cache()
            run, base = (_with(each, batch_size=half) for each in (run, base))


def _measure(run: Run, base: Run, data: Path, iterations: int, warmup: int) -> Timing:
    ours, theirs = TimedRun(run, data), TimedRun(base, data)
    device = ours.fabric.device
    for _ in range(warmup):
        ours.iterate()
        theirs.iterate()
    ours.watch, theirs.watch = stopwatch(device), stopwatch(device)
    for _ in range(iterations):
        ours.iterate()
        theirs.iterate()
    found, base_found = ours.watch.seconds(), theirs.watch.seconds()
    inference_watch = stopwatch(device)
    for _ in range(warmup):
        ours.infer(stopwatch(device))
    for _ in range(iterations):
        ours.infer(inference_watch)
    flops, base_flops = ours.operations(), theirs.operations()
    del theirs  # its memory would count
    seconds = {name: quartiles(found[name]) for name in ("total", *PARTS)}
    return Timing(
        backbone=run.backbone,
        method=run.method,
        settings=records.settings_label(run.settings),
        batch_size=ours.batches.images_in(1),
        precision=run.recipe.precision,
        iterations=iterations,
        seconds=seconds,
        inference=quartiles(inference_watch.seconds()["inference"]),
        peak_bytes=_peak(ours),
        flops=flops,
        mfu=flops / seconds["total"][1] / ceiling(device, run.recipe.precision),
        time_ratio=quartiles([a / b for a, b in zip(found["total"], base_found["total"], strict=True)]),
        operation_ratio=flops / base_flops,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@functools.cache  # one measurement for all comparisons
def ceiling(device: torch.device, precision: str) -> float:
    """Peak operations per second of a device: the best of several large matrix products."""
    side = CEILING[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    watch = stopwatch(device)
    for _ in range(_CEILING_ROUNDS):
        watch.start()
        one @ other
        watch.lap("product")
    return 2 * side**3 / min(watch.seconds()["product"])


def timings(
    runs: Sequence[Run],
    data: Path,
    batch_sizes: Sequence[int] = (),
    precisions: Sequence[str] = (),
    iterations: int = 30,
    warmup: int = 5,
) -> list[Timing]:
    """Time the first settings of each method on each backbone against the backbone's first method.

    Args:
        runs: of a study.
        data: folder in which the decoded images' folders are.
        batch_sizes: instead of the recipe's.
        precisions: likewise.
        iterations: number of timed iterations of each.
        warmup: number of iterations before them.
    """
    chosen: dict[tuple[str, str], Run] = {}
    for run in runs:
        if not run.reuses_network:
            chosen.setdefault((run.backbone, run.method), run)
    found = []
    for (backbone, _), run in chosen.items():
        base = next(each for (place, _), each in chosen.items() if place == backbone)
        one_device = on_one_device(run)
        for size in batch_sizes or (one_device.recipe.batch_size,):
            for precision in precisions or (run.recipe.precision,):
                ours = _with(one_device, batch_size=size, precision=precision)
                theirs = base.model_copy(update={"recipe": ours.recipe})
                try:
                    timing = measure(ours, theirs, data / run.cache, iterations, warmup)
                except IncompatibleSetting as reason:
                    _log.info("left out: %s: %s", run.name, reason)
                    continue
                _log.info(
                    "%s, batch %d, %s: %.1f ms an iteration, %.2f times %s",
                    *(run.name, size, precision, 1000 * timing.seconds["total"][1], timing.time_ratio[1], base.method),
                )
                found.append(timing)
    return found


def on_one_device(run: Run) -> Run:
    """The run as one of its devices executes it: one device, its share of the batch."""
    return _with(run, devices=1, batch_size=run.recipe.batch_size // run.recipe.devices)


def _with(run: Run, **recipe: object) -> Run:
    return run.model_copy(update={"recipe": run.recipe.model_copy(update=recipe)})


def _peak(timed: TimedRun) -> int | None:
    """Peak memory of an iteration in bytes, measured after freeing everything else."""
    if timed.fabric.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    timed.iterate()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
