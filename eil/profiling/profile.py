"""Profile training iterations: a trace, the operations by their share of time, memory over time, and the bottleneck.

The trace opens in chrome://tracing or Perfetto.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib import pyplot as plt
from torch.profiler import ProfilerActivity

from eil.core import provenance
from eil.core.files import atomic_write, write_json, write_text
from eil.core.provenance import device_name
from eil.core.run import Run
from eil.profiling.stopwatch import stopwatch
from eil.profiling.timing import TimedRun, on_one_device
from eil.report import figure_style
from eil.report.notes import Notes
from eil.report.table import Table

matplotlib.use("agg")
SHOWN = 15  # operations in the table
WAITING, BUSY, PRODUCTS = 0.1, 0.7, 0.6  # shares beyond which the loader, the host or the products bound a run
_PRODUCTS = ("conv", "mm", "gemm", "linear", "cutlass", "xmma", "cudnn")  # in the names of operations and kernels


@dataclass(frozen=True)
class Operation:
    """One operation or kernel: how often, and how long by itself, in an iteration."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Result of a profile.

    Attributes:
        seconds: of an iteration, under the profiler.
        busy: share of the time in which the device works (on a CPU: its first thread).
        waiting: share in which a batch is waited for.
        operations: sorted by time, longest first.
        memory: seconds and bytes more than at the start, at every allocation and release of the device's memory.
        on_gpu: whether the device is a GPU.
    """

    seconds: float
    busy: float
    waiting: float
    operations: Sequence[Operation]
    memory: Sequence[tuple[float, int]]
    on_gpu: bool

    @property
    def verdict(self) -> str:
        """The bottleneck of the run, in words."""
        total = sum(each.seconds for each in self.operations)
        products = sum(each.seconds for each in self.operations if any(word in each.name for word in _PRODUCTS)) / total
        if self.waiting > WAITING:
            return f"Loading data is the bottleneck: {100 * self.waiting:.0f} % of an iteration waits for its batch."
        if self.on_gpu and self.busy < BUSY:
            return (
                f"Launching work is the bottleneck: the device is idle for {100 * (1 - self.busy):.0f} % of the time. "
                "A larger batch, or compile: true, may help."
            )
        if products > PRODUCTS:
            share = f"{100 * products:.0f} %"
            return f"Arithmetic is the bottleneck: convolutions and matrix products are {share} of the work."
        return (
            f"Memory bandwidth is the bottleneck: {100 * (1 - products):.0f} % of the work is no convolution or matrix "
            "product, but element by element."
        )


def profile(run: Run, data: Path, trace: Path, iterations: int = 10, warmup: int = 5) -> Profile:
    """Profile training iterations of a run.

    Args:
        run: the run to train.
        data: folder of the decoded images.
        trace: the trace's file, .json.gz.
        iterations: number of profiled iterations.
        warmup: number of iterations before them.
    """
    timed = TimedRun(on_one_device(run), data)
    device = timed.fabric.device
    on_gpu = device.type == "cuda"
    for _ in range(warmup):
        timed.iterate()
    timed.watch = stopwatch(device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        started = time.perf_counter()
        for _ in range(iterations):
            timed.iterate()
        if on_gpu:
            torch.cuda.synchronize()
        wall = time.perf_counter() - started
    with atomic_write(trace) as beside:
        profiler.export_chrome_trace(str(beside))
    laps = timed.watch.seconds()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    found = [
        Operation(each.key, each.count / iterations, getattr(each, key) / 1e6 / iterations)
        for each in profiler.key_averages()
        if getattr(each, key) > 0 and not (on_gpu and each.key.startswith(("aten::", "autograd::")))
    ]
    return Profile(
        seconds=wall / iterations,
        busy=min(sum(each.seconds for each in found) * iterations / wall, 1.0),
        waiting=sum(laps["data"]) / sum(laps["total"]),
        operations=sorted(found, key=lambda each: -each.seconds),
        memory=_memory(profiler, on_gpu),
        on_gpu=on_gpu,
    )


def write(run: Run, found: Profile, folder: Path) -> Path:
    """Write profile.md, profile.html, profile.json and memory.png; the path of the first."""
    where = provenance.provenance()
    work = sum(each.seconds for each in found.operations)
    rows = [
        [each.name[:80], f"{each.calls:.0f}", f"{1000 * each.seconds:.2f}", f"{100 * each.seconds / work:.1f}"]
        for each in found.operations[:SHOWN]
    ]
    notes = (
        found.verdict,
        f"an iteration of {1000 * found.seconds:.1f} ms under the profiler: the device is busy for "
        f"{100 * found.busy:.0f} %, a batch is waited for in {100 * found.waiting:.1f} %",
        f"{device_name()}, {where['threads']} threads, {run.recipe.precision}, torch {where['versions']['torch']}, "
        f"commit {where['commit']}, {where['time'][:10]}",
    )
    header = ["operation", "calls an iteration", "ms an iteration", "% of the work"]
    path = folder / "profile.md"
    table = Table(f"Profile of {run.name}", header, rows, Notes(other=notes))
    write_text(path, table.markdown())
    _draw_memory(found, folder / "memory")
    write_text(path.with_suffix(".html"), table.html([folder / "memory.png"]))
    content: dict[str, Any] = {"run": run.name, "verdict": found.verdict, "seconds": found.seconds, "busy": found.busy}
    write_json(folder / "profile.json", content | {"waiting": found.waiting, "provenance": where})
    return path


def _memory(profiler: Any, on_gpu: bool) -> list[tuple[float, int]]:
    """Seconds since the first and bytes in all, at every change."""
    wanted = "CUDA" if on_gpu else "CPU"
    events = profiler.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == "[memory]" and event.device_type().name == wanted
    )
    held, found = 0, []
    for moment, change in changes:
        held += change
        found.append(((moment - changes[0][0]) / 1e9, held))
    return found


def _draw_memory(found: Profile, path: Path) -> None:
    with plt.rc_context(figure_style.STYLE):
        figure, axes = plt.subplots(figsize=(2 * figure_style.COLUMN, 2.2), layout="constrained")
        seconds, held = zip(*found.memory, strict=True) if found.memory else ((), ())
        axes.step(seconds, [each / 2**20 for each in held], where="post", lw=0.8)
        axes.set(xlabel="time (s)", ylabel="memory (MiB)")
        figure_style.caption(
            figure, f"what iterations allocate and release, over what was held before; {device_name()}"
        )
        figure_style.save(figure, path)
