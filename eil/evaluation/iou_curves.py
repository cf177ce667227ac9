"""IoU curves: the best IoU of each image's box at all 255 thresholds of its 8-bit map.

Every score is computed from these curves. A run's folder keeps them in curves.npz. Localization on a GPU writes that
file while the device computes the next maps; otherwise evaluation writes it.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.core import provenance, source_hash
from eil.core.cell_grid import CellGrid
from eil.core.files import InputError, read_arrays, write_arrays
from eil.core.npz import MAX_BYTES
from eil.core.run import Run
from eil.data import Boxes, Image
from eil.data.cache import Cached, Fingerprints
from eil.evaluation import boxes, maps, metrics
from eil.evaluation.metrics import ImageResults
from eil.evaluation.protocols import Contours, Protocol

Arrays = dict[str, npt.NDArray[Any]]
FILE = "curves.npz"
CHUNK = 256  # full-size maps in memory at once
_log = logging.getLogger(__name__)


class IouCurves:
    """Accumulates IoU curves, Otsu thresholds and flat-map flags of images that come a few at a time.

    >>> curves = IouCurves(Protocol(source="an example"), side=8)
    >>> curves.update([np.pad(np.ones((4, 4)), 2)], [np.array([[2.0, 2, 6, 6]])], ["a.jpg"])
    >>> len(curves), curves.arrays()["curve"].shape, float(curves.arrays()["curve"].max()), curves.flat.tolist()
    (1, (1, 255), 1.0, [False])

    Args:
        protocol: how maps become boxes.
        side: S of the square frame in which true boxes are given.
        cells: where the maps' cells look, if the protocol needs it.
    """

    def __init__(self, protocol: Protocol, side: int, cells: CellGrid | None = None) -> None:
        maps.require_cells(protocol, cells)
        self.protocol, self.side, self.cells = protocol, side, cells
        kinds = dict.fromkeys([protocol.contours, protocol.contours_v2 or protocol.contours])
        self._curves: dict[Contours, list[npt.NDArray[np.float32]]] = {contours: [] for contours in kinds}
        self._otsu: list[int] = []
        self._flat: list[bool] = []

    def __len__(self) -> int:
        """Number of images so far."""
        return len(self._otsu)

    @property
    def flat(self) -> npt.NDArray[np.bool_]:
        """Which maps have no contrast and so no box, (N,)."""
        return np.array(self._flat, dtype=np.bool_)

    def update(self, score_maps: maps.ScoreMaps, true: Sequence[Boxes], ids: Sequence[str]) -> None:
        """Add B images by their score maps.

        Args:
            score_maps: (B, h, w), or B maps of any size.
            true: true boxes of each image in the S x S frame, B times (K, 4).
            ids: of the images, for messages.

        Raises:
            InputError: a map that cannot be used; the message names the image.
        """
        for part in chunks(len(ids)):
            prepared = maps.each_prepared(score_maps[part], ids[part], self.side, self.protocol, self.cells)
            self.update_images([maps.quantised(each) for each in prepared], true[part])

    def update_images(self, images: Sequence[Image], true: Sequence[Boxes]) -> None:
        """Add B images by their 8-bit maps, (S, S) each, and true boxes, (K, 4) each."""
        if not images:
            return
        convention, threads = self.protocol.box_convention, provenance.threads()
        for contours, found in self._curves.items():
            found.append(boxes.iou_curves(images, true, contours, convention, threads).astype(np.float32))
        self._otsu += [maps.otsu(image) for image in images]
        self._flat += [not image.any() for image in images]

    def arrays(self) -> Arrays:
        """``curve`` and, if the protocol has MaxBoxAccV2, ``curve_v2``, (N, 255) float32; ``otsu``, (N,)."""
        v1, v2 = self.protocol.contours, self.protocol.contours_v2
        found: Arrays = {"curve": np.concatenate(self._curves[v1]), "otsu": np.array(self._otsu)}
        return found | ({"curve_v2": np.concatenate(self._curves[v2])} if v2 else {})


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most :data:`CHUNK` that cover ``count`` images."""
    yield from (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def read_maps(path: Path, splits: Mapping[str, Cached], side: int, classes: int) -> Arrays:
    """Read the maps.npz that :func:`eil.training.localize.localize` wrote for these splits.

    Raises:
        InputError: the file is missing or damaged, larger than these splits' maps can be, or has other content.
    """
    images = sum(len(split.ids) for split in splits.values())
    arrays = read_arrays(path, "eil localize", max_bytes=MAX_BYTES + 8 * images * (side**2 + classes))
    dimensions = {"examples": 1} | {key: 3 for key in arrays if key.startswith("extra_")}
    dimensions |= {f"{name}_{what}": count for name in splits for what, count in (("maps", 3), ("logits", 2))}
    for key, count in dimensions.items():
        found = arrays.get(key)
        if found is None or found.ndim != count or found.dtype.kind != ("i" if key == "examples" else "f"):
            raise InputError(f"{path}: has no {key} of {count} dimensions; delete the file and localize again")
    for name, split in splits.items():
        maps_, logits = arrays[f"{name}_maps"], arrays[f"{name}_logits"]
        if len(maps_) != len(split.ids) or logits.shape != (len(split.ids), classes):
            raise InputError(
                f"{path}: {len(maps_)} maps for {len(split.ids)} images of {name}, with logits {logits.shape} for "
                f"{classes} classes: it was made from another data set"
            )
    if not np.isin(arrays["examples"], np.arange(len(splits["test"].ids))).all():
        raise InputError(f"{path}: its examples are not test images; delete the file and localize again")
    return arrays


def require_same_data(arrays: Arrays, now: Fingerprints, run: Run, path: Path) -> None:
    """Refuse maps made from other photos; those of a control also if made from other boxes, which it may use.

    Raises:
        InputError: they were; the message names the file.
    """
    for what, value in now._asdict().items():
        if str(arrays.get(f"made_from_{what}")) != value and (what == "photos" or run.control):
            raise InputError(f"{path}: was made from other {what} than there are now; localize the run again")


def cells_for(protocol: Protocol, arrays: Arrays, path: Path) -> CellGrid | None:
    """Where the cells of a run's maps look, from its maps.npz; None if nobody has measured it.

    Args:
        protocol: how the maps are drawn.
        arrays: of maps.npz.
        path: its path, for messages.

    Raises:
        InputError: the protocol needs it, and the file does not have it.
    """
    cells = CellGrid.of_arrays(arrays, str(path))
    maps.require_cells(protocol, cells, str(path))
    return cells


def require_matching(score_maps: Sized, ids: Sequence[str]) -> None:
    """Refuse maps of another number of images.

    Raises:
        InputError: the numbers differ.
    """
    if len(score_maps) != len(ids):
        raise InputError(f"{len(score_maps)} maps for {len(ids)} images: maps.npz was made from another data set")


def score(arrays: Arrays, name: str, split: Cached, side: int, protocol: Protocol) -> ImageResults:
    """Curves and classification of a split's maps under a protocol; no file is written."""
    require_matching(arrays[f"{name}_maps"], split.ids)
    curves = IouCurves(protocol, side, CellGrid.of_arrays(arrays, "maps.npz"))
    curves.update(arrays[f"{name}_maps"], split.boxes, split.ids)
    return image_results(curves.arrays(), arrays[f"{name}_logits"], split)


def reused_curves(protocol: Protocol, made: Arrays, made_by: Protocol) -> Arrays | None:
    """Curves under a protocol from those of another one; None if they must be computed from the maps.

    Two protocols share curves if they make the same 8-bit maps, draw the same boxes and measure IoU alike. Where the
    threshold comes from does not matter.

    Args:
        protocol: whose curves are wanted.
        made: :meth:`IouCurves.arrays` of ``made_by``.
        made_by: the protocol whose curves there are.
    """
    if _makes_boxes(protocol) != _makes_boxes(made_by):
        return None
    there = {made_by.contours_v2: "curve_v2", made_by.contours: "curve"}
    wanted = {"curve": protocol.contours} | ({"curve_v2": protocol.contours_v2} if protocol.contours_v2 else {})
    if not there.keys() >= set(wanted.values()):
        return None
    return {"otsu": made["otsu"]} | {name: made[there[contours]] for name, contours in wanted.items()}


def _makes_boxes(protocol: Protocol) -> dict[str, Any]:
    """What of a protocol decides each contour's box and IoU."""
    others = {"source", "geometry", "hit", "threshold_from", "fixed", "thresholds", "contours", "contours_v2"}
    return protocol.model_dump(exclude=others)


def image_results(curves: Arrays, logits: npt.NDArray[np.floating], split: Cached) -> ImageResults:
    """Scores of a split from :meth:`IouCurves.arrays` and logits (N, C)."""
    return ImageResults(
        curve=curves["curve"],
        curve_v2=curves.get("curve_v2"),
        otsu=curves["otsu"],
        top1=metrics.topk_correct(logits, split.labels, 1),
        top5=metrics.topk_correct(logits, split.labels, 5),
    )


def load_curves(folder: Path, key: str) -> dict[str, Arrays]:
    """Curves of each split from a run's curves.npz; {} if none has this :func:`curves_key`, or the file is damaged."""
    path = folder / FILE
    try:
        arrays = read_arrays(path) if path.exists() else {}
    except InputError as error:
        _log.warning("%s; computed again", error)
        return {}
    if str(arrays.get("key")) != key:
        return {}
    found: dict[str, Arrays] = {}
    for name, array in arrays.items():
        split, _, what = name.partition("_")
        if what:
            found.setdefault(split, {})[what] = array
    return found


def save_curves(folder: Path, curves: Mapping[str, IouCurves], key: str) -> dict[str, Arrays]:
    """Write each split's curves to curves.npz as ``{split}_curve`` etc., and return them by split."""
    found = {name: each.arrays() for name, each in curves.items()}
    flat = {f"{name}_{what}": array for name, arrays in found.items() for what, array in arrays.items()}
    write_arrays(folder / FILE, flat | {"key": np.array(key)})
    return found


def curves_key(arrays: Arrays, splits: Mapping[str, Cached], side: int, protocol: Protocol) -> str:
    """Hash of all that curves depend on: maps, true boxes, frame, protocol and source code."""
    digest = hashlib.sha256()
    placed = protocol.alignment == "receptive_field"
    for name in sorted(name for name in arrays if name.endswith("_maps") or (placed and name.startswith("cell_"))):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for name in sorted(splits):
        digest.update(json.dumps([name, *(boxes_of_image.tolist() for boxes_of_image in splits[name].boxes)]).encode())
    how = protocol.model_dump(mode="json", exclude={"source", "threshold_from", "fixed", "thresholds"})
    digest.update(
        json.dumps([how, side, source_hash.digest(__name__, "eil.evaluation.map_pass")], sort_keys=True).encode()
    )
    return digest.hexdigest()
