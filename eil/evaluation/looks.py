"""Images as figures show them: photo, map, predicted and true box, in the S x S frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil.data import cache
from eil.data.cache import Cached
from eil.evaluation import boxes, maps, metrics, protocols
from eil.evaluation.curves import FILE, read_maps
from eil.evaluation.protocols import Protocol
from eil.files import read_arrays
from eil.records import Record

Arrays = dict[str, npt.NDArray[Any]]


def examples(arrays: Arrays, split: Cached, side: int, protocol: Protocol, level: int | metrics.Ints) -> Arrays:
    """The test images that were chosen when localizing, with the method's further views."""
    views = {
        name: np.stack([maps.to_8_bit(view, side, protocol) for view in array])
        for name, array in arrays.items()
        if name.startswith("view_")
    }
    return look(arrays["test_maps"], split, side, protocol, level, arrays["examples"].tolist()) | views


def look(
    score_maps: npt.NDArray[np.floating],
    split: Cached,
    side: int,
    protocol: Protocol,
    level: int | metrics.Ints,
    positions: Sequence[int],
) -> Arrays:
    """``ids``, ``images``, 8-bit ``maps``, ``predicted`` and first ``true`` boxes of the images at these positions."""
    levels = np.broadcast_to(level, len(split.ids))
    seen = {i: maps.to_8_bit(score_maps[i], side, protocol) for i in positions}
    return {
        "ids": np.array([split.ids[i] for i in positions]),
        "images": np.stack([split.images[i] for i in positions]),
        "maps": np.stack(list(seen.values())),
        "predicted": np.stack([boxes.largest_box(image, int(levels[i])) for i, image in seen.items()]),
        "true": np.stack([split.boxes[i][0] for i in positions]),
    }


def of_run(record: Record, data: Path, folder: Path, positions: Sequence[int]) -> Arrays:
    """:func:`look` at any test images of a finished run, by the maps that it has kept.

    Raises:
        InputError: maps or decoded images are not there any more.
    """
    description, splits = cache.describe(data), {name: cache.open_split(data, name) for name in ("val", "test")}
    side, split = int(description["crop"]), splits["test"]
    arrays = read_maps(folder / "maps.npz", splits, side, len(description["classes"]))
    protocol = protocols.find(record.protocol)
    level = _levels(record, arrays["test_maps"], side, protocol)
    return look(arrays["test_maps"], split, side, protocol, level, positions)


def overlaps(record: Record, folder: Path) -> npt.NDArray[np.floating]:
    """IoU of each test image's box at the run's own threshold, (N,).

    Raises:
        InputError: curves are not there any more.
    """
    kept = read_arrays(folder / FILE, "eil evaluate")
    level = kept["test_otsu"] if protocols.find(record.protocol).threshold == "otsu" else _chosen(record)
    return np.asarray(metrics.at(kept["test_curve"], level))


def _levels(record: Record, score_maps: npt.NDArray[np.floating], side: int, protocol: Protocol) -> int | metrics.Ints:
    if protocol.threshold != "otsu":
        return _chosen(record)
    return np.array([maps.otsu(maps.to_8_bit(score_map, side, protocol)) for score_map in score_maps])


def _chosen(record: Record) -> int:
    return round(record.metrics[f"threshold.{protocols.find(record.protocol).threshold}"])
