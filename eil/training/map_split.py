"""Maps and logits of a split, batch by batch. While a GPU computes maps, the CPU scores earlier ones."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from eil.data.augment import Batches
from eil.data.cache import Cached
from eil.evaluation.iou_curves import IouCurves
from eil.methods.base import Method
from eil.training.map_sources import MapSource


@dataclass(frozen=True)
class _Fetched:
    """Logits (B, C) and each run's maps (B, h, w), float32; complete on the CPU when ``ready`` has occurred."""

    logits: Tensor
    maps: dict[str, Tensor]
    ready: torch.cuda.Event | None

    def wait(self) -> "_Fetched":
        if self.ready is not None:
            self.ready.synchronize()
        return self


def map_split(
    source: MapSource,
    batches: Batches,
    curves: Mapping[str, IouCurves] | None = None,
    cached_logits: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (N, C) of a split and each run's maps of the true classes (N, h, w), float32 on the CPU.

    Args:
        source: of the maps.
        batches: of the split.
        curves: by the run's name; they receive the maps from another thread as they are computed.
        cached_logits: if the network has classified the images before; a control then needs no pass for them.
    """
    fetched: list[_Fetched] = []
    with ThreadPoolExecutor(1) as scorer:  # one thread: curves take maps in the order of the split
        scored = []
        for batch in batches.in_order():
            logits_of_batch = None if cached_logits is None else cached_logits[batch.index.cpu()]
            made = source(batch, batches.split.boxes, logits_of_batch)
            fetched.append(_fetch(*made))
            if curves:
                scored.append(scorer.submit(_score, curves, batches.split, fetched[-1]))
        for each in scored:
            each.result()
    parts = [each.wait() for each in fetched]
    maps = {name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps}
    return torch.cat([part.logits for part in parts]), maps


def _fetch(logits: Tensor, maps: Mapping[str, Tensor]) -> _Fetched:
    """Start copying to the CPU, without waiting for a GPU; a control's maps and known logits may be there already."""
    on_host = {name: _to_host(each) for name, each in maps.items()}
    host_logits, ready = _to_host(logits), None
    if any(each.device.type == "cuda" for each in (logits, *maps.values())):
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
    return _Fetched(host_logits, on_host, ready)


def _to_host(values: Tensor) -> Tensor:
    if values.device.type != "cuda":
        return values.float()
    return torch.empty(values.shape, dtype=torch.float32, pin_memory=True).copy_(values, non_blocking=True)


def _score(curves: Mapping[str, IouCurves], split: Cached, fetched: _Fetched) -> None:
    fetched.wait()
    for name, accumulator in curves.items():
        maps = fetched.maps[name]
        part = slice(len(accumulator), len(accumulator) + len(maps))  # batches come in the order of the split
        if maps.isfinite().all():  # else the run fails in the end, and no other
            accumulator.update(maps.numpy(), split.boxes[part], split.ids[part])


def over_crops(model: Method, batches: Batches) -> Tensor:
    """Logarithms of the ten crops' mean softmax (N, C), float32 on the CPU."""
    found = []
    for batch, crops in zip(batches.in_order(), batches.crops_in_order(), strict=True):
        shares = [model.maps(crop, batch.labels)[0].float().softmax(dim=1) for crop in crops]
        found.append(torch.stack(shares).mean(dim=0).clamp(min=1e-38).log().cpu())
    return torch.cat(found)
