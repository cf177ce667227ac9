"""Estimate the cost of a study before it runs: operations, hours, disk space.

Torch counts the operations on tensors without memory. Hours follow from measured rates: each ``step-*.csv`` written by
``make bench`` has the operations per second of a device in training steps. Assumed rates can be given as well.
"""

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from eil import backbones
from eil.backbones.meta import meta_tensors
from eil.core import project_files, registry
from eil.core.files import InputError
from eil.core.run import Run
from eil.methods.base import Method, Targets

# Where `make bench` writes step-*.csv, and the committed tables.
RATES = (Path("results"), project_files.folder() / "results" / "reference")
_BATCH = 2  # images on which operations are counted
_GIGA, _TERA = 1e9, 1e12
_TEN_CROPS = 10


@dataclass(frozen=True)
class Cost:
    """Floating-point operations and disk space of a study, or of its runs on one backbone.

    Attributes:
        trainings: number of runs that train; controls, extractors and imported networks do not.
        training: operations in training steps, forward and backward.
        inference: operations for the maps and logits of val and test.
        weights: bytes of the trained weights; likewise ``maps``.
    """

    trainings: int
    training: float
    inference: float
    weights: float
    maps: float


@dataclass(frozen=True)
class Rate:
    """Measured operations per second of a device in training steps, by backbone."""

    device: str
    by_backbone: Mapping[str, float]

    def for_backbone(self, backbone: str) -> float:
        """The backbone's rate; if it was not measured, the median of the others."""
        return self.by_backbone.get(backbone, statistics.median(self.by_backbone.values()))


def cost(runs: Sequence[Run], images: Mapping[str, int], classes: int) -> dict[str, Cost]:
    """Cost of a study's runs by backbone.

    Args:
        runs: of a study, controls and extractors included.
        images: number of images in train, val and test.
        classes: number of classes.
    """
    found: dict[str, list[Cost]] = {}
    known: dict[str, Cost] = {}
    for run in (run for run in runs if not run.reuses_network):
        label = run.name.rsplit("-", 1)[0]  # repetitions cost the same
        if label not in known:
            known[label] = _cost(run, images, classes)
        found.setdefault(run.backbone, []).append(known[label])
    return {
        name: Cost(
            len(costs_of_backbone),
            *(
                sum(getattr(each, key) for each in costs_of_backbone)
                for key in ("training", "inference", "weights", "maps")
            ),
        )
        for name, costs_of_backbone in found.items()
    }


def operations(act: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products, as torch counts them.

    Torch counts the backward pass of a grouped convolution as if it had one group, 32 to 1,152 times too many
    operations for a depthwise convolution; this is corrected here.
    """
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward}) as counter:
        act()
    return int(counter.get_total_flops())


def measured() -> list[Path]:
    """All existing tables of step times."""
    return [path for folder in RATES for path in sorted(folder.glob("step-*.csv"))]


def rates(files: Iterable[Path]) -> list[Rate]:
    """Measured rates from the tables of ``make bench``.

    Raises:
        InputError: a file is not such a table.
    """
    found = []
    for path in files:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["what"] == "training step"]
            by_backbone: dict[str, list[float]] = {}
            for row in rows:
                by_backbone.setdefault(row["backbone"], []).append(float(row["GFLOP/s"]) * _GIGA)
            device = f"{rows[0]['device']}, {rows[0]['precision']}"
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise InputError(f"{path}: not a table of step times (make bench): {error!r}") from None
        found.append(Rate(device, {name: statistics.median(rates) for name, rates in by_backbone.items()}))
    return found


def lines(costs: Mapping[str, Cost], measured: Sequence[Rate], assumed: Sequence[float], cached: float) -> list[str]:
    """The estimate in words.

    Args:
        costs: by backbone.
        measured: measured rates of devices.
        assumed: further rates, in TFLOP/s.
        cached: size of the decoded images in bytes.
    """
    text = [
        f"{name}: {each.trainings} trainings, {_scaled(each.training)}FLOP to train, "
        f"{_scaled(each.inference)}FLOP for maps"
        for name, each in costs.items()
    ]
    disk = cached + sum(each.weights + each.maps for each in costs.values())
    text.append(f"disk: {_scaled(disk)}B, {_scaled(cached)}B of it decoded images")
    for rate in measured:
        others = [name for name in costs if name not in rate.by_backbone]
        note = f" ({', '.join(others)} not measured: by the median of the others' rates)" if others else ""
        seconds = sum((each.training + each.inference) / rate.for_backbone(name) for name, each in costs.items())
        text.append(f"{_duration(seconds)} on one {rate.device}{note}")
    for tera in assumed:
        seconds = sum(each.training + each.inference for each in costs.values()) / tera / _TERA
        text.append(f"{_duration(seconds)} at {tera:g} TFLOP/s, if a device sustains that (not measured)")
    return text


def _scaled(value: float) -> str:
    """Three digits and a prefix: ``59.3 G``."""
    for prefix, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value / 1e6:.3g} M"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "under a minute"
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def cached_bytes(runs: Iterable[Run], images: Mapping[str, int]) -> float:
    """Size in bytes of the decoded images that the runs read, three bytes per pixel."""
    recipes = {run.cache: run.recipe for run in runs}.values()
    total = 0
    for recipe in recipes:
        test = recipe.crop**2 + (recipe.resize**2 if recipe.crops > 1 else 0)
        total += 3 * (images["train"] * recipe.resize**2 + (images["val"] + images["test"]) * test)
    return float(total)


def kept_bytes(act: Callable[[], torch.Tensor]) -> int:
    """Memory in bytes that a computation keeps for its gradients, without weights: most of a training step's peak."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = act()  # while the graph exists no address is reused
    del alive
    return sum(kept.values())


def _backward(gradient: Any, images: Any, weights: Any, *rest: Any, **_: Any) -> int:
    """Operations of ``aten.convolution_backward``, from shapes: the forward pass once for each gradient asked for."""
    transposed, wanted = rest[4], rest[7]
    places = math.prod((images if transposed else gradient)[2:])
    return 2 * int(images[0]) * places * math.prod(weights) * (bool(wanted[0]) + bool(wanted[1]))


def _cost(run: Run, images: Mapping[str, int], classes: int) -> Cost:
    model = _shapes(run, classes)
    side, recipe = run.recipe.crop, run.recipe
    # Augmentation has no products to count, and its random draws need real memory.
    photos, targets = model.augment(torch.zeros(_BATCH, 3, side, side), Targets(torch.zeros(_BATCH, dtype=torch.int64)))
    photos, targets = photos.to("meta"), _without_memory(targets)
    step = operations(lambda: torch.autograd.backward(model.loss(photos, targets)["total"]))
    model.eval()
    found: list[torch.Tensor] = []
    with torch.no_grad():
        inference = operations(lambda: found.extend(model.maps(photos, targets.labels)))
    maps = found[1]
    batches = max(images["train"] // recipe.batch_size, 1)
    scored = images["val"] + images["test"]
    trainings = 0 if run.checkpoint else 1
    return Cost(
        trainings,
        trainings * step / _BATCH * min(recipe.batch_size, images["train"]) * batches * recipe.epochs,
        inference / _BATCH * scored * (1 + (_TEN_CROPS if recipe.crops > 1 else 0)),
        4 * sum(parameter.numel() for parameter in model.parameters()),
        4 * scored * (math.prod(maps.shape[1:]) + classes),
    )


def _without_memory(targets: Targets) -> Targets:
    held = {each.name: getattr(targets, each.name) for each in fields(targets)}
    return replace(
        targets, **{name: value.to("meta") for name, value in held.items() if isinstance(value, torch.Tensor)}
    )


def _shapes(run: Run, classes: int) -> Method:
    """The run's method without memory or weights."""
    cls: type[Method] = registry.load(registry.METHODS, run.method)
    with meta_tensors():
        return cls(
            backbones.build_shapes(run.backbone, run.pretrained, run.output_stride, run.network),
            classes,
            **run.settings,
        ).train()
