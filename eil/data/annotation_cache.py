"""Cache of boxes and masks. It is separate from the photos, so corrected annotations are prepared again in seconds.

The cache's folder ``annotations`` holds annotations.json, and for each split ``{split}.parquet`` (boxes) and, if the
data set has masks, ``{split}.npy``.
"""

import contextlib
import functools
import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from eil.core.files import InputError, atomic_write, locked, read_json, write_json
from eil.data import Boxes, Dataset, Image, Split, decode, fingerprint, geometry, parallel, photo_cache
from eil.data.clipping import Overhang
from eil.data.fingerprint import Stats
from eil.data.geometry import Frame

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
FILE = "annotations.json"
KNOWN = "known.npz"
Row = dict[str, Any]


def build(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Prepare boxes and masks of a data set whose photos are in ``folder``; does nothing if they are current.

    Args:
        dataset: from a reader.
        folder: of the cache, with its photos.
        frame: sides and geometry.

    Raises:
        InputError: no photos in ``folder``; or unusable boxes or an unusable mask; the message names the image.
    """
    with locked(folder.with_name(f".{folder.name}.lock")):
        photos = photo_cache.describe(folder)["photos_sha256"]
        if is_current(dataset, folder):
            return
        with atomic_write(folder / photo_cache.ANNOTATIONS) as beside:
            beside.mkdir()
            rows, overhang = {}, Overhang()
            for name, split in dataset.splits.items():
                rows[name], beyond = _write_split(name, split, folder, beside, frame)
                overhang += beyond
            scored = [split for name, split in dataset.splits.items() if name != "train"]
            description = {
                "photos_sha256": photos,
                "annotations_sha256": fingerprint.of_annotations(
                    [(name, table["id"], table["original"], table["mask_sha256"]) for name, table in rows.items()]
                ),
                "annotations_look": _hash_state(
                    dataset, {name: table[photo_cache.STATS].to_numpy(np.int64) for name, table in rows.items()}
                ),
                "boxed_masks": any(split.masks is not None and not any(map(len, split.boxes)) for split in scored),
                "remark": overhang.remark,
            }
            write_json(beside / FILE, description)
        if overhang.remark:
            _log.info("%s: %s", dataset.name, overhang.remark)


def is_current(dataset: Dataset, folder: Path) -> bool:
    """Whether the cache holds the data set's present boxes and masks, for the cached photos."""
    path = folder / photo_cache.ANNOTATIONS / FILE
    if not path.exists():
        return False
    made = read_json(path)
    same_photos = made.get("photos_sha256") == photo_cache.describe(folder)["photos_sha256"]
    return same_photos and made.get("annotations_look") == source_state(dataset, folder)


def source_state(dataset: Dataset, folder: Path) -> str:
    """Hash of the annotations' inputs: the lists, and stats of mask files.

    It does not change while their content does not (see :func:`eil.data.photo_cache.source_state`).
    """
    import pandas as pd

    annotations = folder / photo_cache.ANNOTATIONS
    made = (annotations / FILE).exists()
    known = dict(np.load(annotations / KNOWN)) if (annotations / KNOWN).exists() else {}
    found, now_known = {}, {}
    for name, split in dataset.splits.items():
        if split.masks is None:
            continue
        rows = (
            pd.read_parquet(annotations / f"{name}.parquet", columns=["id", "mask_sha256", *photo_cache.STATS])
            if made
            else None
        )
        if rows is None or rows["id"].tolist() != list(split.ids):
            found[name] = fingerprint.stats(split.masks)
            continue
        recorded = rows[photo_cache.STATS].to_numpy(np.int64)
        found[name], now_known[name] = fingerprint.reconcile_stats(
            split.masks, recorded, known.get(name, recorded), rows["mask_sha256"]
        )
    if any(name not in known or not np.array_equal(stats, known[name]) for name, stats in now_known.items()):
        with contextlib.suppress(OSError), atomic_write(annotations / KNOWN) as beside:
            np.savez(beside, allow_pickle=False, **now_known)
    return _hash_state(dataset, found)


def describe(folder: Path) -> dict[str, Any]:
    """The content of annotations.json: fingerprints of photos and annotations, and whether boxes come from masks.

    Raises:
        InputError: no annotations, or annotations of other photos.
    """
    found = read_json(folder / photo_cache.ANNOTATIONS / FILE, "eil prepare")
    if found.get("photos_sha256") != photo_cache.describe(folder)["photos_sha256"]:
        raise InputError(f"{folder / photo_cache.ANNOTATIONS}: belong to other photos; run `eil prepare`")
    return found


def open_split(folder: Path, split: str) -> tuple[tuple[Boxes, ...], Image | None]:
    """Boxes of each image in the S x S frame, (K, 4) each, and masks (N, S, S), memory-mapped, or None."""
    import pandas as pd

    describe(folder)
    annotations = folder / photo_cache.ANNOTATIONS
    flat = pd.read_parquet(annotations / f"{split}.parquet", columns=["boxes"])["boxes"]
    masks = np.load(annotations / f"{split}.npy", mmap_mode="r") if (annotations / f"{split}.npy").exists() else None
    return tuple(np.asarray(each, dtype=np.float64).reshape(-1, 4) for each in flat), masks


def _hash_state(dataset: Dataset, stats: dict[str, Stats]) -> str:
    digest = hashlib.sha256()
    for name, split in dataset.splits.items():
        digest.update(f"{name}\t{fingerprint.listed_annotations(split)}".encode())
        if split.masks is not None:
            digest.update(np.ascontiguousarray(stats[name]).tobytes())
    return digest.hexdigest()


def _write_split(name: str, split: Split, folder: Path, target: Path, frame: Frame) -> "tuple[pd.DataFrame, Overhang]":
    """Write a split's boxes and masks; returns its rows, and what of its boxes was clipped."""
    import pandas as pd

    training, count = name == "train", len(split.ids)
    if split.masks is not None:
        side = frame.resize if training else frame.crop
        photo_cache.create_arrays(target, {name: (count, side, side)})
    sizes = pd.read_parquet(folder / name / "index.parquet", columns=["width", "height"]).to_numpy(np.int64)
    tasks = [(block.start, split.take(block), sizes[block.start : block.stop]) for block in parallel.blocks(count)]
    write = functools.partial(_write_block, target / f"{name}.npy", frame, training)
    rows: list[Row] = []
    overhang = Overhang()
    work = parallel.map_in_processes(write, tasks) if split.masks is not None else (write(task) for task in tasks)
    with contextlib.closing(work) as written:
        bar: Iterable[tuple[list[Row], Overhang]] = tqdm(
            written, f"{name}: boxes", len(tasks), leave=False, disable=None
        )
        for part, beyond in bar:
            rows += part
            overhang += beyond
    found = pd.DataFrame(rows)
    found.to_parquet(target / f"{name}.parquet")
    return found, overhang


def _write_block(masks: Path, frame: Frame, training: bool, task: tuple[int, Split, Any]) -> tuple[list[Row], Overhang]:
    """Write the masks of some images into the array; returns the rows with their boxes."""
    start, split, sizes = task
    array = np.lib.format.open_memmap(masks, "r+") if split.masks is not None else None
    place = geometry.train_frame if training else geometry.eval_frame
    rows: list[Row] = []
    overhang = Overhang()
    for i, name in enumerate(split.ids):
        size = (int(sizes[i, 0]), int(sizes[i, 1]))
        stat = fingerprint.stat_of(split.masks[i]) if split.masks is not None else fingerprint.NO_FILE
        found = decode.annotation(split, i, size, scored=not training)
        if array is not None and found.mask is not None:
            array[start + i] = place((found.mask.shape[1], found.mask.shape[0]), frame).mask(found.mask)
        boxes = place(size, frame).boxes(found.boxes, size).ravel().tolist()
        original = found.boxes.ravel().tolist()
        row = {"id": name, "boxes": boxes, "original": original, "mask_sha256": found.content}
        rows.append(row | dict(zip(photo_cache.STATS, stat, strict=True)))
        overhang += found.overhang
    if array is not None:
        array.flush()
    return rows, overhang
