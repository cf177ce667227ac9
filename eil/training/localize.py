"""Compute score maps: maps.npz has the low-resolution maps and the logits of val and test.

An image's map is that of its true class. GT-known Loc needs no other map, and Top-1 Loc counts an image only if the
predicted class is the true one. Maps are not resized or normalised here; that is up to the protocol. Where their cells
look is measured here and stored beside them. A control or an extractor makes its own maps of another run's network;
all extractors of a network make theirs in one pass (:mod:`eil.methods.shared_pass`).
"""

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from eil import backbones
from eil.core import source_hash
from eil.core.files import InputError, read_arrays, read_json, write_arrays
from eil.core.run import Run
from eil.data import cache
from eil.data.augment import Batches
from eil.evaluation import iou_curves, protocols
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.maps import require_cells
from eil.evaluation.protocols import Protocol
from eil.methods.base import Method
from eil.training import map_sources, train, train_step
from eil.training.map_split import map_split, over_crops

Arrays = dict[str, npt.NDArray[Any]]
EXAMPLES = 12  # test images whose further views (an erased map, say) are kept for figures
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Network:
    """A trained network: the run that is localized first, the method as Fabric wraps it, and what it was made from."""

    run: Run
    data: Path
    fabric: Fabric
    model: Any
    origin: dict[str, str]
    cached_logits: dict[str, Tensor]  # logits (N, C) of val and test, if a control can take them


@dataclass
class _Result:
    """What a pass gives for a run: the arrays of maps.npz, and curves of val and test if they were made meanwhile."""

    arrays: Arrays
    curves: dict[str, IouCurves] = field(default_factory=dict)
    error: Exception | None = None


def localize(run: Run, data: Path, folder: Path, protocol: str | None = None, score_maps: bool | None = None) -> None:
    """Write a run's maps.npz; see :func:`localize_extractors`.

    Args:
        run: a trained run, or one that borrows a network.
        data: folder of the decoded images.
        folder: the run's folder; weights.safetensors is in it, or in that of the run whose network is used.
        protocol: protocol with which to score the maps here; :mod:`eil.evaluation.evaluate` reads the curves.
        score_maps: whether to score while the network runs (default: only on a GPU; on a CPU it would slow that down).

    Raises:
        InputError: no weights of this run, or a map that is not finite (the message names the image); the protocol
            needs to know where the cells look, and it cannot be measured.
    """
    trained = folder.with_name(run.training_run.name) if run.reuses_network else folder
    for error in localize_extractors([run], data, trained, {run.name: folder}, protocol, score_maps).values():
        raise error


def localize_extractors(
    runs: Sequence[Run],
    data: Path,
    trained: Path,
    folders: Mapping[str, Path],
    protocol: str | None = None,
    score_maps: bool | None = None,
) -> dict[str, Exception]:
    """Write maps.npz of extractors of the same network, in one pass over val and test, or of any one run.

    The file has ``{split}_maps`` (N, h, w), ``{split}_logits`` (N, C), and the examples' views. ``cell_origin`` and
    ``cell_stride`` (2,) say where the cells look (:class:`eil.core.cell_grid.CellGrid`), unless that cannot be
    measured.

    Args:
        runs: extractors of the same network, or one run.
        data: folder of the decoded images.
        trained: folder of the run whose network is used, with weights.safetensors.
        folders: where each run's file is written, by the run's name.
        protocol: see :func:`localize`.
        score_maps: likewise.

    Returns:
        Why a run has no maps, by its name. The other runs have theirs.

    Raises:
        InputError: no weights of this network.
    """
    network = _load(runs[0], data, trained)
    if score_maps is None:
        score_maps = network.fabric.device.type == "cuda"
    scored_by = protocols.find(protocol) if protocol and score_maps else None
    errors = {}
    for run, found in zip(runs, _results(network, runs, scored_by), strict=True):
        if found.error:
            errors[run.name] = found.error
            continue
        folder = folders[run.name]
        if scored_by and len(found.curves) == 2:
            splits = {name: cache.open_split(data, name) for name in found.curves}
            key = iou_curves.curves_key(found.arrays, splits, _side(data), scored_by)
            iou_curves.save_curves(folder, found.curves, key)
        made_from = {f"made_from_{what}": np.array(value) for what, value in (network.origin | _origin(run)).items()}
        write_arrays(folder / "maps.npz", found.arrays | made_from)
    return errors


def has_current_maps(run: Run, data: Path, folder: Path) -> bool:
    """Whether maps.npz of an extractor's run is what :func:`localize` would write now, by what it was made from."""
    try:
        weights = read_json(folder.with_name(run.training_run.name) / "train.json").get("weights_sha256")
        wanted = {"weights": weights, "photos": cache.fingerprints(data).photos} | _origin(run)
        keys = {f"made_from_{what}": value for what, value in wanted.items()}
        found = read_arrays(folder / "maps.npz", only=keys)
    except InputError:
        return False
    return {key: str(found.get(key)) for key in keys} == keys


def _origin(run: Run) -> dict[str, str]:
    return {"run": run.key, "sources": source_hash.of_step("localize", run)}


def _load(run: Run, data: Path, trained: Path) -> _Network:
    """A run's network with its trained weights, in evaluation mode."""
    made_from = cache.fingerprints(data)
    model = train_step.build(run, data)
    train.load_weights(trained / "weights.safetensors", model, run.training_run, made_from.photos)
    weights = backbones.fingerprint(model)
    cached_logits = _logits_of(trained / "maps.npz", weights, made_from.photos) if run.control else {}
    fabric = train_step.fabric_of(run.recipe)
    origin = made_from._asdict() | {"weights": weights}
    return _Network(run, data, fabric, _wrapped(fabric, model, run), origin, cached_logits)


def _results(network: _Network, runs: Sequence[Run], protocol: Protocol | None) -> list[_Result]:
    """What each run gives. If a pass fails, each half of the runs is tried, until what fails is alone.

    Which run makes a pass fail is not always known, and a half needs less memory than the whole.
    """
    try:
        return _pass(network, runs, protocol)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
        if len(runs) == 1:
            return [_Result({}, error=error)]
        _log.warning("maps of %d runs in one pass: %s: %s", len(runs), type(error).__name__, error)
    half = len(runs) // 2
    return [*_results(network, runs[:half], protocol), *_results(network, runs[half:], protocol)]


def _pass(network: _Network, runs: Sequence[Run], protocol: Protocol | None) -> list[_Result]:
    """Maps of val and test of all runs, scored by ``protocol`` while the network runs."""
    first, model, side = network.run, network.model, _side(network.data)
    cells = map_sources.locate_cells(runs, model.module, side)
    results = {name: _Result(grid.arrays() if grid else {}) for name, grid in cells.items()}
    if protocol:
        for grid in cells.values():
            require_cells(protocol, grid)
    with torch.inference_mode(), network.fabric.autocast():
        opened = partial(train_step.batches, first, network.data, model=model.module, device=network.fabric.device)
        source = map_sources.map_source(runs, model, partial(opened, "train"))
        for split in ("val", "test"):
            batches, cached_logits = opened(split), network.cached_logits.get(split)
            if protocol and all(map(len, batches.split.boxes)):
                for name, found in results.items():
                    found.curves[split] = IouCurves(protocol, side, cells[name])
            curves = {name: found.curves[split] for name, found in results.items() if split in found.curves}
            logits, maps = map_split(source, batches, curves, cached_logits)
            if first.recipe.crops > 1 and cached_logits is None:
                logits = over_crops(model, batches)
            for name, found in results.items():
                found.error = found.error or _not_finite(batches.split.ids, map=maps[name], logits=logits)
                found.arrays |= {f"{split}_maps": maps[name].numpy(), f"{split}_logits": logits.numpy()}
        views = _views(model, batches, further=not first.reuses_network)
    for found in results.values():
        found.arrays |= views
    return [results[run.name] for run in runs]


def _side(data: Path) -> int:
    return int(cache.describe(data)["crop"])


def _wrapped(fabric: Fabric, model: Method, run: Run) -> Any:
    """What stands for the method, in the run's precision and memory layout, in evaluation mode."""
    if run.recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped: Any = fabric.setup_module(model)
    wrapped.mark_forward_method("maps")
    wrapped.mark_forward_method("extra_maps")
    wrapped.eval()
    return wrapped


def _logits_of(path: Path, weights: str, photos: str) -> dict[str, Tensor]:
    """Logits (N, C) of val and test that the network of these weights gave for these photos; empty if it did not."""
    try:
        arrays = read_arrays(path)
    except InputError:
        return {}
    keys = {split: f"{split}_logits" for split in ("val", "test")}
    same = [str(arrays.get(f"made_from_{what}")) for what in ("weights", "photos")] == [weights, photos]
    if not same or not arrays.keys() >= set(keys.values()):
        return {}
    return {split: torch.from_numpy(arrays[key]) for split, key in keys.items()}


def _views(model: Method, batches: Batches, further: bool) -> Arrays:
    """``examples`` (E,), the chosen test images, and ``extra_{name}`` (E, h, w) if there shall be ``further`` ones."""
    count = len(batches.split.ids)
    examples = np.unique(np.linspace(0, count - 1, EXAMPLES).round().astype(np.int64))
    found = {"examples": examples}
    batch = batches.at(torch.from_numpy(examples))
    for name, view in (model.extra_maps(batch.images, batch.labels) if further else {}).items():
        found[f"extra_{name}"] = view.float().cpu().numpy()
    return found


def _not_finite(ids: Sequence[str], **arrays: Tensor) -> InputError | None:
    """What to say of the first image with a value that is not finite in arrays (N, ...), if there is one."""
    for what, values in arrays.items():
        finite = values.isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            return InputError(f"image {ids[int((~finite).nonzero()[0])]}: its {what} is not finite (NaN or infinite)")
    return None
