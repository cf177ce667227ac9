"""What makes a run's maps: its method, a control, or an extractor; and where the cells of these maps look."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

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
Control = Callable[[Method, Batch, Sequence[Boxes]], torch.Tensor]
# A batch, the true boxes of the whole split, logits (B, C) if they are known -> logits (B, C), maps (B, h, w).
MapSource = Callable[[Batch, Sequence[Boxes], torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]
_log = logging.getLogger(__name__)


def map_source(run: Run, model: Any, training: Callable[[], Batches]) -> MapSource:
    """What makes a run's logits and maps from a batch; an extractor that learns is fitted to the training images first.

    Args:
        run: the run.
        model: its network, in evaluation mode, as Fabric wraps it.
        training: opens the training images.
    """
    if run.control:
        control: Control = registry.load(registry.CONTROLS, run.control)

        def controlled(
            batch: Batch, boxes: Sequence[Boxes], known: torch.Tensor | None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            logits = model.maps(batch.images, batch.labels)[0] if known is None else known
            return logits, control(model, batch, [boxes[i] for i in batch.index.tolist()])

        return controlled
    if run.extractor:
        network: Method = model.module
        extractor: Extractor = registry.load(registry.EXTRACTORS, run.extractor.name)(network, **run.extractor.settings)
        if extractor.needs_fit:
            fit(network, [extractor], training().by_class())

        def extracted(
            batch: Batch, boxes: Sequence[Boxes], known: torch.Tensor | None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            logits, maps = extract(network, {"": extractor}, batch.images, batch.labels)
            return logits, maps[""]

        return extracted
    return lambda batch, boxes, known: model.maps(batch.images, batch.labels)


def locate_cells(run: Run, model: Method, side: int) -> CellGrid | None:
    """Where the cells of a run's maps look; None, with a line in the log, if nobody can say.

    Args:
        run: the run.
        model: its network.
        side: S of its square input.
    """
    try:
        return receptive_field.locate_cells(model, side, _maps_of(run, model, side))
    except receptive_field.Unlocated as error:
        _log.info("where the maps' cells look is unknown (alignment: receptive_field needs it): %s", error)
        return None


def _maps_of(run: Run, model: Method, side: int) -> receptive_field.Maps:
    """What makes the run's maps, as :func:`eil.methods.receptive_field.locate_cells` measures it."""
    if run.control:
        control: Control = registry.load(registry.CONTROLS, run.control)

        def of_control(equal: Method, images: torch.Tensor) -> torch.Tensor:
            batch = Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)), None)
            return control(equal, batch, [np.array([[0.0, 0.0, side - 1, side - 1]])])

        return of_control
    if run.extractor:
        at = registry.load(registry.EXTRACTORS, run.extractor.name)(model, **run.extractor.settings).at

        def of_stage(equal: Method, images: torch.Tensor) -> torch.Tensor:
            """An extractor's map has the cells of the features that it reads."""
            features = equal.backbone.forward_stages(images, stop=at)
            return (equal.head.features(features) if at is None else features).mean(dim=1)

        return of_stage
    return receptive_field.of_class_zero
