"""What the steps depend on: the sources of each, the method's and the backbone's among them (:mod:`eil.sources`)."""

import functools
from importlib.metadata import entry_points
from typing import Final

from eil import backbones, plugins
from eil.plugins import Group
from eil.run import Run
from eil.sources import digest

STEPS: Final = {"train": "eil.train", "localize": "eil.localize", "evaluate": "eil.evaluation.evaluate"}


def of_prepare(dataset: str) -> str:
    """Hash of what decodes a data set's images."""
    return digest("eil.data.cache", f"eil.data.{dataset}")


def of_step(step: str, run: Run) -> str:
    """Hash of what a step of a run depends on, the method's and the backbone's files among them.

    Args:
        step: one of :data:`STEPS`.
        run: whose.
    """
    if step == "evaluate":
        return digest(STEPS[step])
    control = [_module(plugins.CONTROLS, run.control)] if run.control and step == "localize" else []
    return digest(STEPS[step], _module(plugins.METHODS, run.method), backbones.BUILDERS[run.backbone], *control)


@functools.cache
def _module(group: Group, name: str) -> str:
    return next((entry.module for entry in entry_points(group=group, name=name)), "")
