"""What makes a run's maps: its method, a control, or an extractor; and where the cells of these maps look.

Extractors of one network make their maps in one pass.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eil.core import registry
from eil.core.cell_grid import CellGrid
from eil.core.run import Run
from eil.data import Boxes
from eil.data.augment import Batch, Batches
from eil.methods import receptive_field
from eil.methods.base import Method
from eil.methods.extractor import Extractor
from eil.methods.shared_pass import extract, fit

# Network, images and their true boxes -> maps (B, h, w); what the group "eil.controls" holds.
Control = Callable[[Method, Batch, Sequence[Boxes]], Tensor]
# A batch, the true boxes of the whole split, its logits if cached -> logits (B, C), maps (B, h, w) by run.
MapSource = Callable[[Batch, Sequence[Boxes], Tensor | None], tuple[Tensor, dict[str, Tensor]]]
_log = logging.getLogger(__name__)


def map_source(runs: Sequence[Run], model: Any, training: Callable[[], Batches]) -> MapSource:
    """What makes logits and maps from a batch; extractors that learn are fitted to the training images first.

    Args:
        runs: one run, or extractors of the same network.
        model: their network, in evaluation mode, as Fabric wraps it.
        training: opens the training images.
    """
    (name, control), extractors = (runs[0].name, runs[0].control), build_extractors(runs, model.module)
    if extractors:
        if any(each.needs_fit for each in extractors.values()):
            fit(model.module, extractors.values(), training().by_class())
        return lambda batch, boxes, cached: extract(model.module, extractors, batch.images, batch.labels)

    def of_method(batch: Batch, boxes: Sequence[Boxes], cached: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        logits, maps = model.maps(batch.images, batch.labels)
        return logits, {name: maps}

    if not control:
        return of_method
    made_by: Control = registry.load(registry.CONTROLS, control)

    def of_control(batch: Batch, boxes: Sequence[Boxes], cached: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model.maps(batch.images, batch.labels)[0] if cached is None else cached
        return logits, {name: made_by(model, batch, [boxes[i] for i in batch.index.tolist()])}

    return of_control


def build_extractors(runs: Sequence[Run], model: Method) -> dict[str, Extractor]:
    """The extractors of those runs that have one, by the run's name."""
    chosen = {run.name: run.extractor for run in runs if run.extractor}
    return {name: registry.load(registry.EXTRACTORS, one.name)(model, **one.settings) for name, one in chosen.items()}


def locate_cells(runs: Sequence[Run], model: Method, side: int) -> dict[str, CellGrid | None]:
    """Where the cells of each run's maps look, by its name; None, with a line in the log, if nobody can say.

    Args:
        runs: one run, or extractors of the same network; it is measured once for all that read the same stage.
        model: their network.
        side: S of its square input.
    """
    stages = {name: each.at for name, each in build_extractors(runs, model).items()}
    if not stages:
        return {run.name: _located(model, side, _maps_of(run, side)) for run in runs}
    of_stages = {
        stage: _located(model, side, partial(_channel_mean, stage)) for stage in dict.fromkeys(stages.values())
    }
    return {name: of_stages[stage] for name, stage in stages.items()}


def _located(model: Method, side: int, maps: receptive_field.Maps) -> CellGrid | None:
    try:
        return receptive_field.locate_cells(model, side, maps)
    except receptive_field.Unlocated as error:
        _log.info(
            "the centres of the cells' receptive fields are unknown (alignment: receptive_field needs them): %s", error
        )
        return None


def _channel_mean(stage: str | None, equal: Method, images: Tensor) -> Tensor:
    """An extractor's map has the cells of the features that it reads; (B, 3, H, W) -> (B, h, w)."""
    features = equal.backbone.forward_stages(images, stop=stage)
    return (equal.head.features(features) if stage is None else features).mean(dim=1)


def _maps_of(run: Run, side: int) -> receptive_field.Maps:
    """What makes a method's or a control's maps, as :func:`eil.methods.receptive_field.locate_cells` measures it."""
    if not run.control:
        return receptive_field.of_class_zero
    control: Control = registry.load(registry.CONTROLS, run.control)

    def of_control(equal: Method, images: Tensor) -> Tensor:
        batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)), None)
        return control(equal, batch, [np.array([[0.0, 0.0, side - 1, side - 1]])])

    return of_control
