"""Compute score maps: maps.npz has the low-resolution maps and the logits of val and test.

An image's map is that of its true class. GT-known Loc needs no other map, and Top-1 Loc counts an image only if the
predicted class is the true one. Maps are not resized or normalised here; that is up to the protocol. Where their cells
look is measured here and stored beside them. A control or an extractor makes its own maps of another run's network.
While a GPU computes maps, the CPU scores earlier ones.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from eil import backbones
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.run import Run
from eil.data import cache
from eil.data.augment import Batches
from eil.data.cache import Cached
from eil.evaluation import iou_curves, protocols
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.maps import require_cells
from eil.methods.base import Method
from eil.training import map_sources, train, train_step
from eil.training.map_sources import MapSource

Arrays = dict[str, npt.NDArray[Any]]
EXAMPLES = 12  # test images whose further views (an erased map, say) are kept for figures


@dataclass(frozen=True)
class _Fetched:
    """Maps (B, h, w) and logits (B, C), float32; complete on the CPU when the event ``ready`` has occurred."""

    maps: torch.Tensor
    logits: torch.Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> "_Fetched":
        if self.ready is not None:
            self.ready.synchronize()
        return self


def localize(run: Run, data: Path, folder: Path, protocol: str | None = None, meanwhile: bool | None = None) -> None:
    """Write maps.npz: ``{split}_maps`` (N, h, w), ``{split}_logits`` (N, C), and the examples' views.

    ``cell_origin`` and ``cell_stride`` (2,) say where the cells look (:class:`eil.core.cell_grid.CellGrid`), unless
    that cannot be measured.

    Args:
        run: a trained run, or one that borrows a network.
        data: folder of the decoded images.
        folder: the run's folder; weights.safetensors is in it, or in that of the run whose network is used.
        protocol: protocol with which to score the maps here; :mod:`eil.evaluation.evaluate` reads the curves.
        meanwhile: whether to score (default: only on a GPU; on a CPU scoring would slow the network down).

    Raises:
        InputError: no weights of this run, or a map that is not finite (the message names the image); the protocol
            needs to know where the cells look, and it cannot be measured.
    """
    made_from = cache.fingerprints(data)
    fabric = train_step.fabric_of(run.recipe)
    model = train_step.build(run, data)
    trained = folder.with_name(run.trained.name) if run.borrows else folder
    train.load_weights(trained / "weights.safetensors", model, run.trained, made_from.photos)
    weights = backbones.fingerprint(model)
    known = _logits_of(trained / "maps.npz", weights, made_from.photos) if run.control else {}
    side = int(cache.describe(data)["crop"])
    cells = map_sources.locate_cells(run, model, side)
    wrapped = _wrapped(fabric, model, run)
    arrays: Arrays = cells.arrays() if cells else {}
    curves: dict[str, IouCurves] = {}
    if meanwhile is None:
        meanwhile = fabric.device.type == "cuda"
    wanted = protocols.find(protocol) if protocol and meanwhile else None
    if wanted:
        require_cells(wanted, cells)
    with torch.inference_mode(), fabric.autocast():
        training = partial(train_step.batches, run, data, "train", model, fabric.device)
        source = map_sources.map_source(run, wrapped, training)
        for split in ("val", "test"):
            batches = train_step.batches(run, data, split, model, fabric.device)
            if wanted and all(map(len, batches.split.boxes)):
                curves[split] = IouCurves(wanted, side, cells)
            maps, logits = map_split(source, batches, curves.get(split), known.get(split))
            if run.recipe.crops > 1 and split not in known:
                logits = over_crops(wrapped, batches)
            for what, values in (("map", maps), ("logits", logits)):
                _check_finite(what, values, batches.split.ids)
            arrays |= {f"{split}_maps": maps.numpy(), f"{split}_logits": logits.numpy()}
        arrays |= _views(wrapped, batches, further=not run.borrows)
    if wanted and len(curves) == 2:
        splits = {name: cache.open_split(data, name) for name in curves}
        iou_curves.keep(folder, curves, iou_curves.stamp(arrays, splits, side, wanted))
    origin = made_from._asdict() | {"weights": weights}
    arrays |= {f"made_from_{what}": np.array(value) for what, value in origin.items()}
    write_arrays(folder / "maps.npz", arrays)


def _wrapped(fabric: Fabric, model: Method, run: Run) -> Any:
    """What stands for the method, in the run's precision and memory layout, in evaluation mode."""
    if run.recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped: Any = fabric.setup_module(model)
    wrapped.mark_forward_method("maps")
    wrapped.mark_forward_method("extra_maps")
    wrapped.eval()
    return wrapped


def map_split(
    source: MapSource, batches: Batches, curves: IouCurves | None = None, known: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of the true classes (N, h, w) and logits (N, C) of a split, float32 on the CPU.

    Args:
        source: of the maps.
        batches: of the split.
        curves: receives the maps from another thread as they are computed.
        known: the logits, if the network has classified the images before; a control then needs no pass for them.
    """
    fetched: list[_Fetched] = []
    with ThreadPoolExecutor(1) as scorer:  # one thread: curves take maps in the order of the split
        scored = []
        for batch in batches.in_order():
            logits, maps = source(batch, batches.split.boxes, None if known is None else known[batch.index.cpu()])
            fetched.append(_fetch(maps, logits))
            if curves is not None:
                scored.append(scorer.submit(_score, curves, batches.split, fetched[-1]))
        for each in scored:
            each.result()
    parts = [each.wait() for each in fetched]
    return torch.cat([part.maps for part in parts]), torch.cat([part.logits for part in parts])


def _logits_of(path: Path, weights: str, photos: str) -> dict[str, torch.Tensor]:
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


def _fetch(maps: torch.Tensor, logits: torch.Tensor) -> _Fetched:
    """Start copying to the CPU, without waiting for a GPU; a control's maps and known logits may be there already."""
    on_host = []
    for each in (maps, logits):
        if each.device.type != "cuda":
            on_host.append(each.float())
            continue
        on_host.append(torch.empty(each.shape, dtype=torch.float32, pin_memory=True))
        on_host[-1].copy_(each, non_blocking=True)
    if "cuda" not in (maps.device.type, logits.device.type):
        return _Fetched(on_host[0], on_host[1], None)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record()
    return _Fetched(on_host[0], on_host[1], ready)


def _score(curves: IouCurves, split: Cached, fetched: _Fetched) -> None:
    maps = fetched.wait().maps.numpy()
    part = slice(len(curves), len(curves) + len(maps))  # batches come in the order of the split
    curves.update(maps, split.boxes[part], split.ids[part])


def over_crops(model: Method, batches: Batches) -> torch.Tensor:
    """Logarithms of the ten crops' mean softmax (N, C), float32 on the CPU."""
    found = []
    for batch, crops in zip(batches.in_order(), batches.crops_in_order(), strict=True):
        shares = [model.maps(crop, batch.labels)[0].float().softmax(dim=1) for crop in crops]
        found.append(torch.stack(shares).mean(dim=0).clamp(min=1e-38).log().cpu())
    return torch.cat(found)


def _views(model: Method, batches: Batches, further: bool) -> Arrays:
    """``examples`` (E,), the chosen test images, and ``view_{name}`` (E, h, w) if there shall be ``further`` ones."""
    count = len(batches.split.ids)
    examples = np.unique(np.linspace(0, count - 1, EXAMPLES).round().astype(np.int64))
    found = {"examples": examples}
    batch = batches.at(torch.from_numpy(examples))
    for name, view in (model.extra_maps(batch.images, batch.labels) if further else {}).items():
        found[f"view_{name}"] = view.float().cpu().numpy()
    return found


def _check_finite(what: str, values: torch.Tensor, ids: tuple[str, ...]) -> None:
    finite = values.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise InputError(f"image {ids[int((~finite).nonzero()[0])]}: its {what} is not finite (NaN or infinite)")
