"""What the steps depend on: the sources of each, the method's and the backbone's among them."""

import functools
from typing import Final

from eil import backbones, data
from eil.core import registry
from eil.core.registry import Group
from eil.core.run import Run
from eil.core.source_hash import digest

STEPS: Final = {
    "train": "eil.training.train",
    "localize": "eil.training.localize",
    "evaluate": "eil.evaluation.evaluate",
}


def of_prepare(dataset: str) -> str:
    """Hash of what decodes a data set's photos."""
    return digest("eil.data.photo_cache", data.module_of(dataset) or "")


def of_annotate(dataset: str) -> str:
    """Hash of what prepares a data set's boxes and masks."""
    return digest("eil.data.annotation_cache", data.module_of(dataset) or "")


def of_step(step: str, run: Run) -> str:
    """Hash of what a step of a run depends on, the method's and the backbone's files among them.

    Args:
        step: one of :data:`STEPS`.
        run: whose.
    """
    if step == "evaluate":
        return digest(STEPS[step])
    control = [_module(registry.CONTROLS, run.control)] if run.control and step == "localize" else []
    modules = (STEPS[step], _module(registry.METHODS, run.method), backbones.module_of(run.backbone), *control)
    # The curves that localizing makes meanwhile say themselves what they depend on (eil.evaluation.iou_curves.stamp).
    return digest(*modules, without="eil.evaluation")


@functools.cache
def _module(group: Group, name: str) -> str:
    return registry.module(group, name) or ""
