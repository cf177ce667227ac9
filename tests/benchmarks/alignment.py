"""What it is worth to draw maps where their cells look: ``python tests/benchmarks/alignment.py STUDY --out FILE.md``.

Writes where the cells of each backbone look by geometry (:mod:`eil.methods.receptive_field`), where those of trained
networks look, and the scores of one method's trained runs under both alignments and with the maps moved by hand. It
reads the study's weights and decoded images, and writes nothing but the table.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import yaml

from eil.backbones import factory
from eil.backbones.meta import meta_tensors
from eil.core import provenance
from eil.core.cell_grid import CellGrid
from eil.core.files import read_arrays, write_text
from eil.core.run import Run
from eil.data import cache
from eil.data.cache import Cached
from eil.evaluation import iou_curves, metrics, protocols, statistics
from eil.evaluation.protocols import ThresholdSource
from eil.methods import base
from eil.methods.base import Method
from eil.methods.receptive_field import locate_cells
from eil.study import study as studies
from eil.training import map_sources, train, train_step

Floats = npt.NDArray[np.float64]
Lines = list[list[str]]
SIDE = 224  # at which the geometry of all backbones is given
NETWORKS: list[tuple[str, int, str, dict[str, Any]]] = [
    *(("vgg16", stride, "cam", {}) for stride in (16, 8)),
    *(("vgg16", stride, "acol", {"pools": "3x3"}) for stride in (16, 8)),
    ("vgg16", 16, "spg", {"pools": "3x3-pool4"}),
    *(("resnet50", stride, "cam", {}) for stride in (16, 8)),
    *(("inception_v3", stride, "cam", {}) for stride in (16, 8)),
    *(("inception_v3", stride, "cam", {"stem": "wsoleval"}) for stride in (16, 8)),
    *(("efficientnet_lite0", stride, "cam", {}) for stride in (16, 32)),
    ("vgg_small", 4, "cam", {}),
    ("resnet_small", 4, "cam", {}),
]
SHIFTS = (-0.05, -0.025, -0.0125, 0, 0.0125, 0.025, 0.05)  # of the image's side, down and to the right
SOURCES: tuple[ThresholdSource, ...] = ("val", "oracle")
METRICS = {"gt_known_loc": "GT-known Loc", "max_box_acc_v2": "MaxBoxAccV2"}
MOSAICS = 24  # of nine photos each, to measure trained networks on


class Localized(NamedTuple):
    """A trained run, its network, maps and logits, the splits of these, and where its cells look by geometry."""

    run: Run
    model: Method
    arrays: dict[str, Any]
    splits: dict[str, Cached]
    cells: CellGrid


def localized(run: Run, folder: Path, data: Path) -> Localized:
    """A trained run's maps: those of its maps.npz, or else from its weights."""
    model = train_step.build(run, data).eval()
    train.load_weights(folder / "weights.safetensors", model, run)
    kept = folder / "maps.npz"
    arrays: dict[str, Any] = read_arrays(kept) if kept.exists() else {}
    splits = {name: cache.open_split(data, name) for name in ("val", "test")}
    for name in () if arrays else splits:
        batches = train_step.batches(run, data, name, model, torch.device("cpu"))
        with torch.inference_mode():
            found = [model.maps(batch.images, batch.labels) for batch in batches.in_order()]
        for what, parts in zip(("logits", "maps"), zip(*found, strict=True), strict=True):
            arrays[f"{name}_{what}"] = torch.cat(parts).numpy()
    cells = map_sources.locate_cells([run], model, run.recipe.crop)[run.name]
    assert cells is not None
    return Localized(run, model.requires_grad_(False), arrays, splits, cells)


def geometry() -> Lines:
    """Where the cells of each backbone look by geometry, and where resizing draws them."""
    lines = [["network", "stride", "map", "cell n looks at", "is drawn at", "error, px"], ["---"] * 6]
    for name, stride, method, network in NETWORKS:
        with meta_tensors():
            model = base.build(method, {}, name, 20, output_stride=stride, network=network)
        found = locate_cells(model.to_empty(device="cpu"), SIDE)
        origin, drawn = found.origin[0], (stride - 1) / 2
        options = "".join(f", {key} {value}" for key, value in network.items())
        at = [f"{stride}n + {value:g}" if value else f"{stride}n" for value in (origin, drawn)]
        lines.append([name + options, str(stride), method, *at, f"{origin - drawn:+g}"])
    return lines


def trained_offsets(model: Method, photos: torch.Tensor, labels: torch.Tensor) -> Floats:
    """Centres of a network's fields on photos relative to where resizing draws their cells, (M, 2) rows and columns.

    The centre of |gradient| of a map's cell near the middle of a mosaic of nine photos, which is rolled by a random
    number of pixels: a field may be larger than a photo, and birds are in the middle of photos.
    """
    rng, side = np.random.default_rng(0), photos.shape[-1]
    found = []
    for _ in range(MOSAICS):
        chosen = rng.integers(0, len(photos), 9)
        rows = [torch.cat([photos[i] for i in chosen[start : start + 3]], 2) for start in (0, 3, 6)]
        by = rng.integers(0, 3 * side, 2).tolist()
        image = torch.roll(torch.cat(rows, 1), by, (1, 2))[None].clone().requires_grad_()  # (1, 3, 3 S, 3 S)
        score_map = model.maps(image, labels[int(chosen[4])][None])[1][0]
        middle = len(score_map) // 2
        for cell in (middle - 1, middle + 1):
            (gradient,) = torch.autograd.grad(score_map[cell, cell], image, retain_graph=True)
            weights = gradient[0].double().abs().sum(0)
            at = torch.arange(3 * side, dtype=torch.float64) - ((cell + 0.5) * 3 * side / len(score_map) - 0.5)
            found.append([float((weights.sum(1 - axis) * at).sum() / weights.sum()) for axis in (0, 1)])
    return np.array(found)


def photos_of(run: Run, data: Path, model: Method) -> tuple[torch.Tensor, torch.Tensor]:
    """The test photos as the network sees them, (N, 3, S, S), and their labels."""
    batches = train_step.batches(run, data, "test", model, torch.device("cpu"))
    return torch.cat([batch.images for batch in batches.in_order()]), batches.labels


def trained(first: Localized, data: Path) -> Lines:
    """Where networks look: a run of the study, and its backbone with a random class layer before any training here."""
    lines = [["weights", "stride", "geometry", "rows, px", "columns, px"], ["---"] * 5]
    run = first.run
    photos, labels = photos_of(run, data, first.model)
    info = factory.definition(run.backbone)[0]
    untrained = f"{info.pretrained_on}; random class layer" if run.pretrained else "random"
    cases: list[tuple[str, int, Method]] = [(run.name, round(first.cells.stride[0]), first.model)]
    for stride in info.output_strides:
        model = base.build("cam", {}, run.backbone, 20, pretrained=run.pretrained, output_stride=stride).eval()
        cases.append((untrained, stride, model.requires_grad_(False)))
    for name, stride, model in cases:
        found = trained_offsets(model, photos, labels)
        errors = 1.96 * found.std(axis=0, ddof=1) / (len(found) / 2) ** 0.5  # two cells of a mosaic are not independent
        by_geometry = locate_cells(model, run.recipe.crop).origin[0] - (stride - 1) / 2
        measured = [f"{mean:+.1f} ± {error:.1f}" for mean, error in zip(found.mean(axis=0), errors, strict=True)]
        lines.append([name, str(stride), f"{by_geometry:+g}", *measured])
    return lines


def scores(found: Localized, cells: CellGrid, side: int) -> dict[ThresholdSource, dict[str, Floats]]:
    """Bootstrap replicates of a run's scores, (R,), around the scores themselves, with the cells at these places.

    Where these are those of half-pixel resizing, the maps are drawn as by the alignment "grid", to the last bit.
    """
    protocol = protocols.find("val-threshold-aligned")
    arrays = found.arrays | cells.arrays()
    on, scored = (iou_curves.score(arrays, split, found.splits[split], side, protocol) for split in ("val", "test"))
    result: dict[ThresholdSource, dict[str, Floats]] = {}
    for threshold_from in SOURCES:
        own = protocol.model_copy(update={"threshold_from": threshold_from})
        values, drawn = metrics.metrics(scored, on, own, threshold_from), statistics.replicates(scored, on, own)
        result[threshold_from] = {name: drawn[name] - drawn[name].mean() + values[name] for name in METRICS}
    return result


def moved(found: Localized, side: int, by: float) -> CellGrid:
    """The grid of half-pixel resizing, moved down and to the right."""
    drawn = CellGrid.half_pixel(found.arrays["val_maps"].shape[1:], side)
    return CellGrid((drawn.origin[0] + by, drawn.origin[1] + by), drawn.stride)


def shifts(side: int) -> dict[str, float]:
    """By how many pixels maps are moved by hand, each with its name."""
    return {f"{by * side:+g}" if by else "grid": by * side for by in SHIFTS}


def placed(runs: Sequence[Localized], side: int) -> dict[str, dict[tuple[ThresholdSource, str], Floats]]:
    """Replicates of all runs, (S, R), by where maps are drawn, then by the threshold's source and the metric."""
    places: dict[str, list[CellGrid]] = {"receptive_field": [run.cells for run in runs]}
    places |= {name: [moved(run, side, by) for run in runs] for name, by in shifts(side).items()}
    found = {}
    for place, cells in places.items():
        each = [scores(run, own, side) for run, own in zip(runs, cells, strict=True)]
        keys = [(source, metric) for source in SOURCES for metric in METRICS]
        found[place] = {(source, metric): np.stack([own[source][metric] for own in each]) for source, metric in keys}
    return found


def worth(found: Mapping[str, Mapping[tuple[ThresholdSource, str], Floats]]) -> Lines:
    """Scores under both alignments, and the difference paired by image and seed, with 95 % intervals."""
    lines = [["metric", "threshold", "grid", "receptive_field", "difference"], ["---"] * 5]
    for key, grid in found["grid"].items():
        aligned = found["receptive_field"][key]
        lines.append([METRICS[key[1]], key[0], *map(interval, (grid, aligned, aligned - grid))])
    return lines


def scan(found: Mapping[str, Mapping[tuple[ThresholdSource, str], Floats]], side: int) -> Lines:
    """GT-known Loc with the maps moved by hand, and the difference from the grid."""
    lines = [["moved by, px", *(f"{source}{what}" for source in SOURCES for what in ("", ", difference"))], ["---"] * 5]
    for place in shifts(side):
        line = [place.replace("grid", "0")]
        for source in SOURCES:
            own, grid = (found[name][source, "gt_known_loc"] for name in (place, "grid"))
            line += [f"{own.mean():.1f}", "" if place == "grid" else interval(own - grid)]
        lines.append(line)
    return lines


def interval(runs: Floats) -> str:
    """Mean ± half of the 95 % interval over images and seeds, (S, R)."""
    mean, half = statistics.interval(runs)
    return f"{mean:.1f} ± {half:.1f}"


def table(title: str, lines: Lines) -> str:
    """A title and a Markdown table."""
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def notes(runs: Sequence[Localized]) -> str:
    """How the tables were made."""
    where = provenance.provenance()
    lines = [
        f"`python tests/benchmarks/alignment.py STUDY --out FILE.md` at {where['commit']}: {provenance.device_name()}, "
        f"torch {where['versions']['torch']}, fp32, {where['time'][:10]}",
        "runs: " + ", ".join(each.run.name for each in runs),
        "± is half of the 95 % interval, over images and seeds, or over mosaics of photos for where cells look; "
        "differences are paired by image and seed",
    ]
    return "".join(f"- {line}\n" for line in lines)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--results", type=Path, help="the study's folder (default: that of its file)")
    parser.add_argument("--data", type=Path, default=Path("results/data"))
    parser.add_argument("--method", default="cam")
    parser.add_argument("--backbone", help="of the runs (default: the study's first)")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = studies.parse(yaml.safe_load(given.study.read_text()), str(given.study))
    folder = (given.results or given.study.parent) / "runs"
    wanted = given.backbone or study.runs()[0].backbone
    runs = [
        localized(run, folder / run.name, given.data / run.cache)
        for run in study.runs()
        if (run.method, run.backbone) == (given.method, wanted)
        and not run.reuses_network
        and (folder / run.name / "weights.safetensors").exists()
    ]
    if not runs:
        parser.error(f"{folder}: has no weights of {given.method} on {wanted}; --results names the study's folder")
    first, images = runs[0].run, len(runs[0].splits["test"].ids)
    what = f"{given.method} on {first.backbone}, {study.name}, {first.recipe.crop} pixels"
    found = placed(runs, first.recipe.crop)
    write_text(
        given.out,
        table(f"Where a cell looks by geometry, at {SIDE} pixels", geometry())
        + table(
            "Where trained cells look, in pixels from where they are drawn", trained(runs[0], given.data / first.cache)
        )
        + table(f"Scores by alignment: {what}, {len(runs)} seeds, {images} images", worth(found))
        + table(
            "GT-known Loc of these maps, moved down and to the right of where resizing draws them",
            scan(found, first.recipe.crop),
        )
        + notes(runs),
    )


if __name__ == "__main__":
    main()
