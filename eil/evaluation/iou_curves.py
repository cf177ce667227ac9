"""Maps to curves, as they come: curves.npz keeps them beside the maps, so that no metric needs them made again.

Whoever comes first makes them: localizing while the device computes the next maps, or evaluating.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core import provenance, source_hash
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.npz import MOST
from eil.data import Image
from eil.data.cache import Cached
from eil.evaluation import boxes, maps, metrics
from eil.evaluation.metrics import Scores
from eil.evaluation.protocols import Contours, Protocol

Arrays = dict[str, npt.NDArray[Any]]
FILE = "curves.npz"
CHUNK = 256  # maps at full size at once


class Tally:
    """Curves of a split's maps, which come a few at a time in their order.

    Args:
        split: whose maps.
        side: S of the square frame of boxes.
        protocol: how maps become boxes.
    """

    def __init__(self, split: Cached, side: int, protocol: Protocol) -> None:
        self.split, self.side, self.protocol, self._count = split, side, protocol, 0
        rules = {protocol.contours} | ({protocol.contours_v2} if protocol.contours_v2 else set())
        self._curves: dict[Contours, list[npt.NDArray[np.float32]]] = {contours: [] for contours in rules}
        self._otsu: list[int] = []

    def take(self, score_maps: npt.NDArray[np.floating]) -> None:
        """Score the next maps, (B, h, w)."""
        start, stop = self._count, self._count + len(score_maps)
        ids, true = self.split.ids[start:stop], self.split.boxes[start:stop]
        for at, images in chunks(score_maps, ids, self.side, self.protocol):
            own = true[at : at + len(images)]
            for contours, found in self._curves.items():
                curve = boxes.iou_curves(images, own, contours, self.protocol.rules, provenance.threads())
                found.append(curve.astype(np.float32))
            self._otsu += [maps.otsu(image) for image in images]
        self._count = stop

    def arrays(self) -> Arrays:
        """``curve`` and ``curve_v2``, (N, 255) float32, and ``otsu`` (N,)."""
        own, v2 = self.protocol.contours, self.protocol.contours_v2
        found: Arrays = {"curve": np.concatenate(self._curves[own]), "otsu": np.array(self._otsu)}
        return found | ({"curve_v2": np.concatenate(self._curves[v2])} if v2 else {})


def read_maps(path: Path, splits: Mapping[str, Cached], side: int, classes: int) -> Arrays:
    """What :func:`eil.training.localize.localize` leaves of these splits.

    Raises:
        InputError: the file is missing or damaged, larger than these splits' maps can be, or holds anything else.
    """
    images = sum(len(split.ids) for split in splits.values())
    arrays = read_arrays(path, "eil localize", most=MOST + 8 * images * (side**2 + classes))
    dimensions = {"examples": 1} | {key: 3 for key in arrays if key.startswith("view_")}
    dimensions |= {f"{name}_{what}": count for name in splits for what, count in (("maps", 3), ("logits", 2))}
    for key, count in dimensions.items():
        found = arrays.get(key)
        if found is None or found.ndim != count or found.dtype.kind != ("i" if key == "examples" else "f"):
            raise InputError(f"{path}: has no {key} of {count} dimensions; delete it to make it anew")
    for name, split in splits.items():
        maps_, logits = arrays[f"{name}_maps"], arrays[f"{name}_logits"]
        if len(maps_) != len(split.ids) or logits.shape != (len(split.ids), classes):
            raise InputError(
                f"{path}: {len(maps_)} maps for {len(split.ids)} images of {name}, with logits {logits.shape} for "
                f"{classes} classes: it is of another data set"
            )
    if not np.isin(arrays["examples"], np.arange(len(splits["test"].ids))).all():
        raise InputError(f"{path}: examples that are no test images; delete it to make it anew")
    return arrays


def scores(
    folder: Path, arrays: Arrays, splits: Mapping[str, Cached], side: int, protocol: Protocol
) -> dict[str, Scores]:
    """Scores of every split, from the curves that a run's folder keeps if they are of these maps and this protocol."""
    path, mark = folder / FILE, stamp(arrays, splits, side, protocol)
    kept = read_arrays(path) if path.exists() else {}
    if str(kept.get("stamp")) != mark:
        tallies = {name: _tally(arrays, name, split, side, protocol) for name, split in splits.items()}
        kept = keep(folder, tallies, mark)
    return {name: _scores(_of(kept, name), arrays[f"{name}_logits"], split) for name, split in splits.items()}


def score(arrays: Arrays, name: str, split: Cached, side: int, protocol: Protocol) -> Scores:
    """Curves and classification of a split's maps under a protocol; nothing is kept."""
    return _scores(_tally(arrays, name, split, side, protocol).arrays(), arrays[f"{name}_logits"], split)


def keep(folder: Path, tallies: Mapping[str, Tally], mark: str) -> Arrays:
    """Write curves.npz, ``{split}_curve`` and so on: every threshold policy is array work from here."""
    found = {f"{name}_{key}": value for name, tally in tallies.items() for key, value in tally.arrays().items()}
    found["stamp"] = np.array(mark)
    write_arrays(folder / FILE, found)
    return found


def stamp(arrays: Arrays, splits: Mapping[str, Cached], side: int, protocol: Protocol) -> str:
    """Hash of what curves depend on: the maps, the true boxes, the frame, the protocol, the sources."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.endswith("_maps")):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for name in sorted(splits):
        digest.update(json.dumps([name, *(own.tolist() for own in splits[name].boxes)]).encode())
    how = protocol.model_dump(mode="json", exclude={"source", "threshold", "fixed", "levels"})
    digest.update(json.dumps([how, side, source_hash.digest(__name__)], sort_keys=True).encode())
    return digest.hexdigest()


def chunks(
    score_maps: npt.NDArray[np.floating], ids: Sequence[str], side: int, protocol: Protocol
) -> Iterator[tuple[int, list[Image]]]:
    """8-bit maps by the chunk, with the position of each chunk's first."""
    if len(score_maps) != len(ids):
        raise InputError(f"{len(score_maps)} maps for {len(ids)} images: maps.npz is of another data set")
    for start in range(0, len(ids), CHUNK):
        images = []
        for score_map, name in zip(score_maps[start : start + CHUNK], ids[start : start + CHUNK], strict=True):
            try:
                images.append(maps.to_8_bit(score_map, side, protocol))
            except InputError as error:
                raise InputError(f"image {name}: {error}") from None
        yield start, images


def _tally(arrays: Arrays, name: str, split: Cached, side: int, protocol: Protocol) -> Tally:
    score_maps = arrays[f"{name}_maps"]
    if len(score_maps) != len(split.ids):
        raise InputError(f"{len(score_maps)} maps for {len(split.ids)} images: maps.npz is of another data set")
    tally = Tally(split, side, protocol)
    tally.take(score_maps)
    return tally


def _of(kept: Arrays, name: str) -> Arrays:
    return {key.removeprefix(f"{name}_"): value for key, value in kept.items() if key.startswith(f"{name}_")}


def _scores(found: Arrays, logits: npt.NDArray[np.floating], split: Cached) -> Scores:
    return Scores(
        curve=found["curve"],
        curve_v2=found.get("curve_v2"),
        otsu=found["otsu"],
        top1=metrics.in_top(logits, split.labels, 1),
        top5=metrics.in_top(logits, split.labels, 5),
    )
