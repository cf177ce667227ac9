"""Compute score maps: maps.npz has the low-resolution maps and the logits of val and test.

An image's map is that of its true class. GT-known Loc needs no other map, and Top-1 Loc counts an image only if the
predicted class is the true one. Maps are not resized or normalised here; that is up to the protocol. A control or an
extractor uses the logits of another run's network and makes its own maps. While a GPU computes maps, the CPU scores
earlier ones.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from eil.core import registry
from eil.core.files import InputError, write_arrays
from eil.core.run import Run
from eil.data import Boxes, cache
from eil.data.augment import Batch, Batches
from eil.data.cache import Cached
from eil.evaluation import iou_curves, protocols
from eil.evaluation.iou_curves import IouCurves
from eil.methods.base import Method
from eil.methods.extractor import Extractor
from eil.methods.shared_pass import extract
from eil.training import train, train_step

Arrays = dict[str, npt.NDArray[Any]]
# Network, images and their true boxes -> maps (B, h, w); what the group "eil.controls" holds.
Control = Callable[[Method, Batch, Sequence[Boxes]], torch.Tensor]
# A batch and the true boxes of the whole split -> logits (B, C), maps (B, h, w).
MapSource = Callable[[Batch, Sequence[Boxes]], tuple[torch.Tensor, torch.Tensor]]
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

    Args:
        run: a trained run, or one that borrows a network.
        data: folder of the decoded images.
        folder: the run's folder; weights.safetensors is in it, or in that of the run whose network is used.
        protocol: protocol with which to score the maps here; :mod:`eil.evaluation.evaluate` reads the curves.
        meanwhile: whether to score (default: only on a GPU; on a CPU scoring would slow the network down).

    Raises:
        InputError: no weights of this run, or a map that is not finite; the message names the image.
    """
    made_from = cache.fingerprints(data)
    fabric = train_step.fabric_of(run.recipe)
    model = train_step.build(run, data)
    trained = folder.with_name(run.trained.name) if run.borrows else folder
    train.load_weights(trained / "weights.safetensors", model, run.trained, made_from.photos)
    if run.recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped: Any = fabric.setup_module(model)  # stands for the method, in the run's precision
    wrapped.mark_forward_method("maps")
    wrapped.mark_forward_method("extra_maps")
    wrapped.eval()
    source = map_source(run, wrapped)
    arrays: Arrays = {}
    curves: dict[str, IouCurves] = {}
    side = int(cache.describe(data)["crop"])
    if meanwhile is None:
        meanwhile = fabric.device.type == "cuda"
    wanted = protocols.find(protocol) if protocol and meanwhile else None
    with torch.inference_mode(), fabric.autocast():
        for split in ("val", "test"):
            batches = train_step.batches(run, data, split, model, fabric.device)
            if wanted and all(map(len, batches.split.boxes)):
                curves[split] = IouCurves(wanted, side)
            maps, logits = map_split(source, batches, curves.get(split))
            if run.recipe.crops > 1:
                logits = over_crops(wrapped, batches)
            for what, values in (("map", maps), ("logits", logits)):
                _check_finite(what, values, batches.split.ids)
            arrays |= {f"{split}_maps": maps.numpy(), f"{split}_logits": logits.numpy()}
        arrays |= _views(wrapped, batches, further=not run.borrows)
    if wanted and len(curves) == 2:
        splits = {name: cache.open_split(data, name) for name in curves}
        iou_curves.keep(folder, curves, iou_curves.stamp(arrays, splits, side, wanted))
    arrays |= {f"made_from_{what}": np.array(value) for what, value in made_from._asdict().items()}
    write_arrays(folder / "maps.npz", arrays)


def map_source(run: Run, model: Any) -> MapSource:
    """What makes a run's logits and maps from a batch: its method, a control, or an extractor.

    Args:
        run: the run.
        model: its network, in evaluation mode, as Fabric wraps it.
    """
    if run.control:
        control: Control = registry.load(registry.CONTROLS, run.control)

        def controlled(batch: Batch, boxes: Sequence[Boxes]) -> tuple[torch.Tensor, torch.Tensor]:
            logits, _ = model.maps(batch.images, batch.labels)
            return logits, control(model, batch, [boxes[i] for i in batch.index.tolist()])

        return controlled
    if run.extractor:
        network: Method = model.module
        extractor: Extractor = registry.load(registry.EXTRACTORS, run.extractor.name)(network, **run.extractor.settings)

        def extracted(batch: Batch, boxes: Sequence[Boxes]) -> tuple[torch.Tensor, torch.Tensor]:
            logits, maps = extract(network, {"": extractor}, batch.images, batch.labels)
            return logits, maps[""]

        return extracted
    return lambda batch, boxes: model.maps(batch.images, batch.labels)


def map_split(
    source: MapSource, batches: Batches, curves: IouCurves | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of the true classes (N, h, w) and logits (N, C) of a split, float32 on the CPU.

    Args:
        source: of the maps.
        batches: of the split.
        curves: receives the maps from another thread as they are computed.
    """
    fetched: list[_Fetched] = []
    with ThreadPoolExecutor(1) as scorer:  # one thread: curves take maps in the order of the split
        scored = []
        for batch in batches.in_order():
            logits, maps = source(batch, batches.split.boxes)
            fetched.append(_fetch(maps, logits))
            if curves is not None:
                scored.append(scorer.submit(_score, curves, batches.split, fetched[-1]))
        for each in scored:
            each.result()
    parts = [each.wait() for each in fetched]
    return torch.cat([part.maps for part in parts]), torch.cat([part.logits for part in parts])


def _fetch(maps: torch.Tensor, logits: torch.Tensor) -> _Fetched:
    """Start copying to the CPU, without waiting for a GPU."""
    if maps.device.type != "cuda":
        return _Fetched(maps.float(), logits.float(), None)
    on_host = [torch.empty(each.shape, dtype=torch.float32, pin_memory=True) for each in (maps, logits)]
    for host, each in zip(on_host, (maps, logits), strict=True):
        host.copy_(each, non_blocking=True)
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
