"""Timings as a table, a CSV file and figures, named by the device, so that another machine's stand beside them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from eil.core import provenance
from eil.core.files import atomic_write, write_json, write_text
from eil.core.provenance import device_name
from eil.profiling.map_timing import MapTiming
from eil.profiling.timing import PARTS, Timing
from eil.report.notes import Notes
from eil.report.table import Table

LABELS = ("q1", "median", "q3")
Accuracy = Mapping[tuple[str, str], float]  # backbone and method -> GT-known Loc


def write(found: Sequence[Timing], folder: Path, accuracy: Accuracy, of_maps: Sequence[MapTiming] = ()) -> Path:
    """Write timings of one device as CSV, Markdown and figures, and as timing.json and timing.html; the CSV's path.

    Args:
        found: what was timed.
        folder: where to.
        accuracy: of those methods whose score is known already; they stand in a figure over their cost.
        of_maps: what was timed of map extractors; written as CSV and Markdown of their own, named ``…-maps``.
    """
    from eil.report import timing_figures  # not where numbers alone are wanted

    where = provenance.provenance()
    precisions = "-".join(sorted({each.precision for each in found}))
    versions = f"torch{where['versions']['torch']}"
    stem = re.sub(r"[^a-z0-9.]+", "-", f"{device_name()} {precisions} {versions}".lower()).strip("-")
    notes = (
        f"{device_name()}, {where['threads']} threads, torch {where['versions']['torch']}, commit {where['commit']}, "
        f"{where['time'][:10]}",
        f"median of {min(each.iterations for each in found)} iterations or more [quartiles]; time ratio: to the "
        "backbone's first method, median of interleaved pairs; operation ratio: the same of floating-point operations",
        "MFU: share of what a large product of matrices reaches on the device in the same precision",
    )
    path = folder / f"{stem}.csv"
    with atomic_write(path) as beside:
        pd.DataFrame([row(each) for each in found]).to_csv(beside, index=False)
    write_text(path.with_suffix(".md"), table(found, notes).markdown())
    drawn = timing_figures.write(found, accuracy, folder / stem)
    page = table(found, notes).html(drawn)
    if of_maps:
        maps = map_table(of_maps, notes[:1])
        write_text(path.with_name(f"{stem}-maps.csv"), pd.DataFrame(map(map_row, of_maps)).to_csv(index=False))
        write_text(path.with_name(f"{stem}-maps.md"), maps.markdown())
        page += maps.html()
    write_text(folder / "timing.html", page)
    rows = {"rows": [asdict(each) for each in found], "maps": [asdict(each) for each in of_maps]}
    write_json(folder / "timing.json", {"provenance": where, **rows})
    return path


def map_row(timing: MapTiming) -> dict[str, Any]:
    """A flat row: every quartile, in milliseconds an image."""
    flat = asdict(timing)
    for name, scale, unit in (("seconds", 1000, " (ms/image)"), ("ratio", 1, "")):
        values = flat.pop(name)
        flat |= {f"{name} {label}{unit}": scale * v for label, v in zip(LABELS, values, strict=True)}
    return flat


def map_table(found: Sequence[MapTiming], notes: tuple[str, ...]) -> Table:
    """One line an extractor."""
    rows = [
        [
            *(each.backbone, each.method, each.extractor, str(each.batch_size), each.precision),
            f"{1000 * each.seconds[1]:.2f}",
            f"{each.ratio[1]:.2f} [{each.ratio[0]:.2f}, {each.ratio[2]:.2f}]",
        ]
        for each in found
    ]
    header = ["Backbone", "Network of", "Maps", "batch", "precision", "time (ms/image) ↓", "over own maps ↓"]
    over = f"median of {min(each.batches for each in found)} batches; over own maps: median of the same batches' ratios"
    return Table("Cost of other maps of the same network", header, rows, Notes(other=(*notes, f"{over} [quartiles]")))


def row(timing: Timing) -> dict[str, Any]:
    """A flat row: every quartile, in milliseconds."""
    keys = ("backbone", "method", "settings", "batch_size", "precision", "iterations")
    flat: dict[str, Any] = {key: getattr(timing, key) for key in keys}
    for name, values in [*timing.seconds.items(), ("inference", timing.inference)]:
        flat |= {f"{name} {label} (ms)": 1000 * v for label, v in zip(LABELS, values, strict=True)}
    flat |= {f"time ratio {label}": v for label, v in zip(LABELS, timing.time_ratio, strict=True)}
    return flat | {
        "images/s": timing.images_per_second,
        "peak (MiB)": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
        "GFLOP": timing.flops / 1e9,
        "MFU": timing.mfu,
        "operation ratio": timing.operation_ratio,
    }


def table(found: Sequence[Timing], notes: tuple[str, ...]) -> Table:
    """One line a timing."""
    header = ["Backbone", "Method", "batch", "precision", "iteration (ms) ↓", *(f"{part} %" for part in PARTS)]
    header += [
        "images/s ↑",
        "inference (ms) ↓",
        "peak (MiB) ↓",
        "time ratio ↓",
        "operation ratio",
        "time / operation ratio",
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
                f"{each.time_ratio[1]:.2f} [{each.time_ratio[0]:.2f}, {each.time_ratio[2]:.2f}]",
                f"{each.operation_ratio:.2f}",
                f"{each.time_ratio[1] / each.operation_ratio:.2f}",
                f"{100 * each.mfu:.0f} %",
            ]
        )
    return Table("Cost of a training iteration", header, rows, Notes(other=notes))
