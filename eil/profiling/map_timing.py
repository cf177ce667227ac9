"""Measure what a map extractor costs: time for the maps of a batch beside that of CAM's, on the same network.

Batches of all extractors alternate with batches of the method's own maps, so that other load slows all equally.
"""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eil.core import registry
from eil.core.records import extractor_label
from eil.core.run import Run
from eil.methods.extractor import Extractor
from eil.methods.shared_pass import extract, fit
from eil.profiling.stopwatch import stopwatch
from eil.profiling.timing import TimedRun, on_one_device, quartiles

ALL = "all of these in one pass"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapTiming:
    """One extractor on one network.

    Attributes:
        method: whose network it is; its own maps are CAM's.
        extractor: with its settings, or :data:`ALL`.
        batch_size: images in a batch.
        precision: of the forward pass.
        batches: number of timed batches.
        seconds: for an image's map and logits, as lower quartile, median, upper quartile.
        ratio: to the method's own maps of the same batch, likewise.
    """

    backbone: str
    method: str
    extractor: str
    batch_size: int
    precision: str
    batches: int
    seconds: tuple[float, float, float]
    ratio: tuple[float, float, float]


def timings(runs: Sequence[Run], data: Path, batches: int = 30, warmup: int = 5) -> list[MapTiming]:
    """Time the extractors of each backbone's first method that has some.

    Args:
        runs: of a study.
        data: folder in which the decoded images' folders are.
        batches: number of timed batches of each.
        warmup: number of batches before them.
    """
    found = []
    for backbone in dict.fromkeys(run.backbone for run in runs):
        here = [run for run in runs if run.backbone == backbone and run.extractor]
        if here:
            found += _of_network(
                [run for run in here if run.training_run == here[0].training_run], data, batches, warmup
            )
    return found


def _of_network(runs: Sequence[Run], data: Path, batches: int, warmup: int) -> list[MapTiming]:
    """Of runs with the same trained network."""
    run = on_one_device(runs[0].training_run)
    timed = TimedRun(run, data / run.cache)
    timed.model.eval()
    network, device = timed.model.module, timed.fabric.device
    extractors: dict[str, Extractor] = {
        str(extractor_label(each)): registry.load(registry.EXTRACTORS, each.extractor.name)(
            network, **each.extractor.settings
        )
        for each in runs
        if each.extractor
    }

    def extracting(chosen: Mapping[str, Extractor]) -> Callable[[Tensor, Tensor], object]:
        return lambda images, labels: extract(network, chosen, images, labels)

    contestants = {"": timed.model.maps} | {name: extracting({name: each}) for name, each in extractors.items()}
    contestants[ALL] = extracting(extractors)
    with torch.inference_mode():
        fit(network, extractors.values(), itertools.islice(timed.batches.by_class(), 1))
    watches = {name: stopwatch(device) for name in contestants}
    with torch.inference_mode(), timed.fabric.autocast():
        for k in range(warmup + batches):
            batch = next(timed.endless)
            for name, maps in contestants.items():
                watch = watches[name] if k >= warmup else stopwatch(device)
                watch.start()
                maps(batch.images, batch.labels)
                watch.lap("maps")
    taken = {name: watch.seconds()["maps"] for name, watch in watches.items()}
    size = timed.batches.images_in(1)
    found = [
        MapTiming(
            *(run.backbone, run.method, name, size, run.recipe.precision, batches),
            quartiles([each / size for each in taken[name]]),
            quartiles([each / baseline for each, baseline in zip(taken[name], taken[""], strict=True)]),
        )
        for name in contestants
        if name
    ]
    for each in found:
        _log.info("%s: %s: %.2f times the method's own maps", run.name, each.extractor, each.ratio[1])
    return found
