"""Timings as a table, a CSV file and figures, named by the device, so that another machine's stand beside them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil import machine
from eil.files import replacing, write_json, write_text
from eil.machine import device_name
from eil.report import figures
from eil.report.tables import Table
from eil.timing import PARTS, Timing

matplotlib.use("agg")
LABELS = ("q1", "median", "q3")
Accuracy = Mapping[tuple[str, str], float]  # backbone and method -> GT-known Loc


def write(found: Sequence[Timing], folder: Path, accuracy: Accuracy) -> Path:
    """Write timings of one device as CSV, Markdown and figures, and all of them as timing.json; the CSV's path.

    Args:
        found: what was timed.
        folder: where to.
        accuracy: of those methods whose score is known already; they stand in a figure over their cost.
    """
    where = machine.provenance()
    precisions = "-".join(sorted({each.precision for each in found}))
    versions = f"torch{where['versions']['torch']}"
    stem = re.sub(r"[^a-z0-9.]+", "-", f"{device_name()} {precisions} {versions}".lower()).strip("-")
    notes = [
        f"{device_name()}, {where['threads']} threads, torch {where['versions']['torch']}, commit {where['commit']}, "
        f"{where['time'][:10]}",
        f"median of {min(each.iterations for each in found)} iterations or more [quartiles]; overhead: median of "
        "interleaved pairs with the backbone's first method; predicted: by floating-point operations",
        "MFU: share of what a large product of matrices reaches on the device in the same precision",
    ]
    path = folder / f"{stem}.csv"
    with replacing(path) as beside:
        pd.DataFrame([row(each) for each in found]).to_csv(beside, index=False)
    write_text(path.with_suffix(".md"), table(found, notes).markdown())
    with plt.rc_context(figures.STYLE):
        for name, figure in drawn(found, accuracy).items():
            figures.save(figure, folder / f"{stem}-{name}")
    write_json(folder / "timing.json", {"provenance": where, "rows": [asdict(each) for each in found]})
    return path


def row(timing: Timing) -> dict[str, Any]:
    """A flat row: every quartile, in milliseconds."""
    keys = ("backbone", "method", "settings", "batch_size", "precision", "iterations")
    flat: dict[str, Any] = {key: getattr(timing, key) for key in keys}
    for name, values in [*timing.seconds.items(), ("inference", timing.inference)]:
        flat |= {f"{name} {label} (ms)": 1000 * v for label, v in zip(LABELS, values, strict=True)}
    flat |= {f"overhead {label}": v for label, v in zip(LABELS, timing.overhead, strict=True)}
    return flat | {
        "images/s": timing.images_per_second,
        "peak (MiB)": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
        "GFLOP": timing.flops / 1e9,
        "MFU": timing.mfu,
        "overhead predicted": timing.predicted,
    }


def table(found: Sequence[Timing], notes: Sequence[str]) -> Table:
    """One line a timing."""
    header = ["Backbone", "Method", "batch", "precision", "iteration (ms) ↓", *(f"{part} %" for part in PARTS)]
    header += [
        "images/s ↑",
        "inference (ms) ↓",
        "peak (MiB) ↓",
        "overhead ↓",
        "predicted",
        "measured / predicted",
        "MFU ↑",
    ]
    rows = []
    for each in found:
        q1, middle, q3 = (1000 * value for value in each.seconds["total"])
        shares = [each.seconds[part][1] / each.seconds["total"][1] for part in PARTS]
        rows.append(
            [
                *(each.backbone, each.method, str(each.batch_size), each.precision),
                f"{middle:.1f} [{q1:.1f}, {q3:.1f}]",
                *(f"{100 * share:.1f}" for share in shares),
                f"{each.images_per_second:.0f}",
                f"{1000 * each.inference[1]:.1f}",
                "–" if each.peak_bytes is None else f"{each.peak_bytes / 2**20:.0f}",
                f"{each.overhead[1]:.2f} [{each.overhead[0]:.2f}, {each.overhead[2]:.2f}]",
                f"{each.predicted:.2f}",
                f"{each.overhead[1] / each.predicted:.2f}",
                f"{100 * each.mfu:.0f} %",
            ]
        )
    return Table("Cost of a training iteration", header, rows, notes)


def drawn(found: Sequence[Timing], accuracy: Accuracy) -> dict[str, Figure]:
    """Every figure that the timings, and scores if there are any, allow."""
    shown = {"iteration": iterations(found), "overhead": overheads(found)}
    if any((each.backbone, each.method) in accuracy for each in found):
        shown["pareto"] = pareto(found, accuracy)
    return shown


def iterations(found: Sequence[Timing]) -> Figure:
    """Bars of the median time of an iteration by part, with the quartiles of the whole, a panel a backbone."""
    figure, panels = figures.per_backbone(found)
    shades = plt.get_cmap("cividis")(np.linspace(0.1, 0.9, len(PARTS)))
    for axes, own in panels:
        at = np.arange(len(own))
        base = np.zeros(len(own))
        for part, shade in zip(PARTS, shades, strict=True):
            heights = np.array([1000 * each.seconds[part][1] for each in own])
            axes.bar(at, heights, 0.7, base, color=shade, label=part)
            base += heights
        q1, middle, q3 = 1000 * np.array([each.seconds["total"] for each in own]).T
        axes.errorbar(at, middle, [middle - q1, q3 - middle], fmt="none", ecolor="black", lw=0.8, capsize=2)
        axes.set(ylabel="time of an iteration (ms)", xticks=at)
        axes.set_xticklabels([_label(each, own) for each in own], rotation=90)
    panels[0][0].legend(fontsize=6)
    figures.caption(figure, f"bars: medians of the parts; whiskers: quartiles of the whole; {device_name()}")
    return figure


def overheads(found: Sequence[Timing]) -> Figure:
    """Time over the first method's, measured over predicted by operations; on the diagonal they agree."""
    figure, panels = figures.per_backbone(found)
    colors = figures.method_colors([each.method for each in found])
    for axes, own in panels:
        most = 1.1 * max(max(each.overhead[2], each.predicted) for each in own)
        axes.plot([0, most], [0, most], color="0.7", lw=0.8, zorder=0)
        for each in own:
            low, middle, high = each.overhead
            error = [[middle - low], [high - middle]]
            axes.errorbar(each.predicted, middle, error, fmt="o", ms=4, color=colors[each.method], label=each.method)
        axes.set(xlabel="predicted by operations", ylabel="measured", xlim=(0, most), ylim=(0, most), aspect="equal")
        _legend_once(axes)
    figures.caption(figure, f"time of an iteration over the first method's, median and quartiles; {device_name()}")
    return figure


def pareto(found: Sequence[Timing], accuracy: Accuracy) -> Figure:
    """GT-known Loc over the time of an iteration."""
    figure, panels = figures.per_backbone(found)
    colors = figures.method_colors([each.method for each in found])
    for axes, own in panels:
        for each in (each for each in own if (each.backbone, each.method) in accuracy):
            score = accuracy[each.backbone, each.method]
            axes.plot(1000 * each.seconds["total"][1], score, "o", color=colors[each.method], label=each.method)
        axes.set(xlabel="time of an iteration (ms)", ylabel="GT-known Loc (%)", xlim=(0, None))
        _legend_once(axes)
    figures.caption(figure, f"left and up is better; settings chosen on val; {device_name()}")
    return figure


def _label(timing: Timing, own: Sequence[Timing]) -> str:
    """The method, and what tells it from others of the panel."""
    several = {key for key in ("batch_size", "precision") if len({getattr(each, key) for each in own}) > 1}
    return ", ".join([timing.method, *(str(getattr(timing, key)) for key in sorted(several))])


def _legend_once(axes: Any) -> None:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles, fontsize=6)
