"""What a training iteration costs: time by part, inference, memory and operations.

Each method is timed in turn with the study's first one on the same backbone, iteration by iteration in one process, so
that what slows the machine slows both. On a GPU times are between events on the device, on a CPU a monotonic clock's.
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
CEILING = {"cuda": 8192, "cpu": 1536}  # side of the matrices whose product is the most that a device can do
_CEILING_ROUNDS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """One method on one backbone, at one batch size and precision.

    Attributes:
        settings: the method's, as in names.
        iterations: how many were timed, after as many for warming up as were asked for.
        seconds: of an iteration: "total" and :data:`PARTS`, each as lower quartile, median, upper quartile.
        inference: seconds for the maps of a batch, likewise.
        peak_bytes: the most memory that the device held for it; None on a CPU, where nobody counts it.
        flops: floating-point operations of an iteration.
        mfu: share of the device's measured ceiling (a large matrix product) that it reaches.
        overhead: time over the first method's, median of pairs, with its quartiles.
        predicted: operations over the first method's.
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
    overhead: tuple[float, float, float]
    predicted: float

    @property
    def images_per_second(self) -> float:
        """Images trained on in a second, by the median."""
        return self.batch_size / self.seconds["total"][1]


class Contender:
    """A run's network with all that an iteration of its training needs.

    Args:
        run: what is trained.
        data: folder of the decoded images.

    Attributes:
        endless: batches, an epoch after the other.
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
    """Time a run against another of the same backbone; out of memory, both take half the batch.

    Args:
        run: what to time.
        base: what it is compared with.
        data: folder of the decoded images.
        iterations: how many to time.
        warmup: how many to let pass before.
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
    ours, theirs = Contender(run, data), Contender(base, data)
    device = ours.fabric.device
    for _ in range(warmup):
        ours.iterate()
        theirs.iterate()
    ours.watch, theirs.watch = stopwatch(device), stopwatch(device)
    for _ in range(iterations):
        ours.iterate()
        theirs.iterate()
    found, base_found = ours.watch.seconds(), theirs.watch.seconds()
    looks = stopwatch(device)
    for _ in range(warmup):
        ours.infer(stopwatch(device))
    for _ in range(iterations):
        ours.infer(looks)
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
        inference=quartiles(looks.seconds()["inference"]),
        peak_bytes=_peak(ours),
        flops=flops,
        mfu=flops / seconds["total"][1] / ceiling(device, run.recipe.precision),
        overhead=quartiles([a / b for a, b in zip(found["total"], base_found["total"], strict=True)]),
        predicted=flops / base_flops,
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@functools.cache  # one measurement for all that is compared with it
def ceiling(device: torch.device, precision: str) -> float:
    """Operations a second of a large product of matrices, the best of several: what the device can do at most."""
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
        iterations: how many to time of each.
        warmup: how many to let pass before.
    """
    chosen: dict[tuple[str, str], Run] = {}
    for run in runs:
        if run.control is None:
            chosen.setdefault((run.backbone, run.method), run)
    found = []
    for (backbone, _), run in chosen.items():
        base = next(each for (place, _), each in chosen.items() if place == backbone)
        own = on_one_device(run)
        for size in batch_sizes or (own.recipe.batch_size,):
            for precision in precisions or (run.recipe.precision,):
                ours = _with(own, batch_size=size, precision=precision)
                theirs = base.model_copy(update={"recipe": ours.recipe})
                try:
                    timing = measure(ours, theirs, data / run.cache, iterations, warmup)
                except IncompatibleSetting as reason:
                    _log.info("left out: %s: %s", run.name, reason)
                    continue
                _log.info(
                    "%s, batch %d, %s: %.1f ms an iteration, %.2f times %s",
                    *(run.name, size, precision, 1000 * timing.seconds["total"][1], timing.overhead[1], base.method),
                )
                found.append(timing)
    return found


def on_one_device(run: Run) -> Run:
    """What one device has to do of a training on several."""
    return _with(run, devices=1, batch_size=run.recipe.batch_size // run.recipe.devices)


def _with(run: Run, **recipe: object) -> Run:
    return run.model_copy(update={"recipe": run.recipe.model_copy(update=recipe)})


def _peak(contender: Contender) -> int | None:
    """Memory that an iteration needs at its peak, everything else freed first."""
    if contender.fabric.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    contender.iterate()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
