"""Hashes of source code: when a hash changes, the results of the steps that use this code are stale.

The hash of a module covers all that it imports from its own package and from this project, inside functions too. It
covers meaning only: comments, docstrings and layout change no hash.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from eil.core import registry, source_files
from eil.core.registry import Group
from eil.core.run import Run

STEPS: Final = {
    "train": "eil.training.train",
    "localize": "eil.training.localize",
    "evaluate": "eil.evaluation.evaluate",
}
_PROJECT = ("eil", "baselines")


def of_prepare(dataset: str) -> str:
    """Hash of the code that decodes a data set's photos."""
    return digest("eil.data.photo_cache", _module(registry.READERS, dataset))


def of_annotate(dataset: str) -> str:
    """Hash of the code that prepares a data set's boxes and masks."""
    return digest("eil.data.annotation_cache", _module(registry.READERS, dataset))


def of_step(step: str, run: Run) -> str:
    """Hash of the code that a step of a run depends on, with the method's and the backbone's files.

    Args:
        step: one of :data:`STEPS`.
        run: the run.
    """
    if step == "evaluate":
        return digest(STEPS[step])
    maps = []
    if step == "localize":
        maps += [_module(registry.CONTROLS, run.control)] if run.control else []
        maps += [_module(registry.EXTRACTORS, run.extractor.name)] if run.extractor else []
    method, backbone = _module(registry.METHODS, run.method), _module(registry.BACKBONES, run.backbone)
    # Localizing may also compute curves, which have their own hash (eil.evaluation.iou_curves.curves_key).
    return digest(STEPS[step], method, backbone, *maps, without="eil.evaluation")


@functools.cache
def _module(group: Group, name: str) -> str:
    return registry.module(group, name) or ""


@functools.cache
def digest(*modules: str, without: str = "") -> str:
    """Hash of modules and of all that they import from their own packages; later calls give the first call's hash.

    Args:
        modules: their names.
        without: a package to leave out, with what only it imports.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found or f"{name}.".startswith(f"{without}.") else _path(name)
        if path is None:
            continue
        source = source_files.parse(path)
        found[name] = source.meaning
        followed = {*_PROJECT, name.split(".")[0]}
        waiting += [each for each in source.imports if each.split(".")[0] in followed]
    source_files.remember()
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


@functools.cache
def _path(name: str) -> Path | None:
    """The file of a module, found without an import; None if the name is not a module's (a function's, say)."""
    top, *rest = name.split(".")
    if not top or (not rest and top in _PROJECT):  # their __init__.py: no result depends on it
        return None
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    inside = Path(spec.origin).parent.joinpath(*rest)
    candidates = (inside.with_suffix(".py"), inside / "__init__.py") if rest else (Path(spec.origin),)
    return next((path for path in candidates if path.is_file()), None)
