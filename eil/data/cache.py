"""Decoded images, once: every split becomes a folder with images.npy and index.parquet.

The reader's work (decode, check, resize) happens here and nowhere else, in parallel processes, a block of images at a
time. A killed preparation goes on where it was; the cache appears as a whole. What comes after reads arrays: by
memory map, or resident on the device where they fit (:mod:`eil.data.augment`).
"""

import contextlib
import functools
import hashlib
import json
import logging
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from eil.data import Boxes, Dataset, Image, Split, geometry
from eil.data.clipping import Overhang
from eil.data.examine import examine
from eil.data.geometry import Frame
from eil.files import InputError, locked, read_json, remove, write_json

cv2.setNumThreads(1)  # the processes are the parallelism; OpenCV's own threads would multiply it
BLOCK = 1000  # images that one process takes at a time, and the most that a kill loses
COLUMNS = ["id", "label", "boxes", "sha256"]
FORMAT = 2  # of the folder; another one is refused
_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Cached:
    """One split, decoded.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        large: likewise at the training images' side, where ten crops are to be classified.
        masks: (N, S, S) uint8, memory-mapped, or None; see :class:`eil.data.Split`.
        labels: (N,).
        ids: N names.
        boxes: per image (K, 4), in pixels of the S x S frame, inclusive corners.
    """

    images: Image
    masks: Image | None
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    large: Image | None = None


def build(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Decode and resize a data set into ``folder``, or go on with it.

    Args:
        dataset: what a reader gave.
        folder: where the cache appears, with one folder a split and dataset.json.
        frame: sides and geometry.

    Raises:
        InputError: an image that cannot be decoded or a box outside its image, by name. What was decoded before
            is kept, so that the next call goes on from there.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder.with_name(f".{folder.name}.lock")):
        if (folder / "dataset.json").exists():  # another process made it while this one waited
            return
        key = listing(dataset, frame, files=False)  # a broken photo that was replaced does not undo the others
        if not (partial / "listing").exists() or (partial / "listing").read_text() != key:
            remove(partial)
            partial.mkdir(parents=True)
            (partial / "listing").write_text(key)
        for remark in dataset.remarks:
            _log.info("%s", remark)
        digest = hashlib.sha256()
        for name, split in dataset.splits.items():
            for fingerprint in _write_split(name, split, partial / name, frame):
                digest.update(bytes.fromhex(fingerprint))
        scored = [split for name, split in dataset.splits.items() if name != "train"]
        description = {
            "format": FORMAT,
            "name": dataset.name,
            "classes": list(dataset.classes),
            "whole_classes": dataset.whole,
            "parts": list(dataset.parts),
            **asdict(frame),
            "boxed_masks": any(split.masks is not None and not any(map(len, split.boxes)) for split in scored),
            "listing": listing(dataset, frame),
            "sha256": digest.hexdigest(),
        }
        write_json(partial / "dataset.json", description)
        for name in ("listing", *(f"{name}/blocks" for name in dataset.splits)):
            remove(partial / name)
        remove(folder)
        partial.replace(folder)


def listing(dataset: Dataset, frame: Frame, files: bool = True) -> str:
    """Hash of what a cache is made from, without decoding: names, labels, boxes, the frame, and sizes of ``files``."""
    digest = hashlib.sha256(json.dumps([FORMAT, dataset.name, dataset.classes, asdict(frame)]).encode())
    for name, split in dataset.splits.items():
        digest.update(name.encode())
        for image, label, boxes, source in zip(split.ids, split.labels, split.boxes, split.sources, strict=True):
            size = source.stat().st_size if files and isinstance(source, Path) and source.exists() else None
            digest.update(f"{image},{label},{boxes.tolist()},{size}\n".encode())
    return digest.hexdigest()


def require_same(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Refuse a cache that was made from other files or settings than these.

    Raises:
        InputError: it was; the message says what to do.
    """
    if describe(folder)["listing"] != listing(dataset, frame):
        raise InputError(
            f"{folder}: was made from other photos, lists or settings than there are now; remove the folder and "
            "`eil prepare` makes it anew"
        )


def open_split(folder: Path, split: str) -> Cached:
    """Open one split of a cache made by :func:`build`.

    Raises:
        InputError: there is no whole cache in ``folder``.
    """
    describe(folder)
    index = pd.read_parquet(folder / split / "index.parquet")
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in (folder / split).glob("*.npy")}
    return Cached(
        images=arrays["images"],
        masks=arrays.get("masks"),
        large=arrays.get("large"),
        labels=index["label"].to_numpy(np.int64),
        ids=tuple(index["id"]),
        boxes=tuple(np.asarray(flat, dtype=np.float64).reshape(-1, 4) for flat in index["boxes"]),
    )


def describe(folder: Path) -> dict[str, Any]:
    """What dataset.json says: name, classes, parts, frame, and the content's hash.

    Raises:
        InputError: no cache, or one of another version.
    """
    found = read_json(folder / "dataset.json", "eil prepare")
    if found.get("format") != FORMAT:
        raise InputError(f"{folder}: was made by another version of eil; remove it and `eil prepare` makes it anew")
    return found


def over_processes(act: Callable[[T], R], tasks: Sequence[T]) -> Generator[R]:
    """``act`` on each task, in processes of its own for two or more; results as in ``map``.

    Raises:
        InputError: as ``act`` does, or a process was killed (for want of memory, say).
    """
    if len(tasks) < 2:
        yield from map(act, tasks)
        return
    # A forked process would inherit the locks of threads that it does not have.
    pool = ProcessPoolExecutor(min(len(tasks), cores()), multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(act, tasks)
    except BrokenProcessPool:
        raise InputError("a process that decodes images was killed: is there memory and disk enough?") from None
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blocks(count: int) -> list[range]:
    """Positions of ``count`` images by the block."""
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _write_split(name: str, split: Split, target: Path, frame: Frame) -> Iterable[str]:
    """Write images.npy, index.parquet and what else there is; the images' fingerprints."""
    training = name == "train"
    if not (target / "blocks").exists():
        remove(target)
        target.mkdir()
        _create(target, split, frame, training)
        (target / "blocks").mkdir()
    done = {int(path.stem) for path in (target / "blocks").glob("[0-9]*.json")}
    todo = [block for block in blocks(len(split.ids)) if block.start not in done]
    tasks = [(block.start, split.take(block)) for block in todo]
    write = functools.partial(_write_block, target, frame, training)
    with contextlib.closing(over_processes(write, tasks)) as written:
        bar: Iterable[int] = tqdm(written, f"{name}: decoding", len(tasks), leave=False, disable=None, unit="block")
        for _ in bar:
            pass
    found = (read_json(target / "blocks" / f"{block.start:09d}.json") for block in blocks(len(split.ids)))
    overhang = sum((Overhang(**each.get("overhang", {})) for each in found), Overhang())
    if overhang.remark:
        _log.info("%s: %s", name, overhang.remark)
    # As a frame a block takes a tenth of the memory that its rows take.
    parts = [
        pd.DataFrame(read_json(target / "blocks" / f"{block.start:09d}.json")["rows"], columns=COLUMNS)
        for block in blocks(len(split.ids))
    ]
    index = pd.concat(parts, ignore_index=True)
    index.to_parquet(target / "index.parquet")
    return index["sha256"]


def _create(target: Path, split: Split, frame: Frame, training: bool) -> None:
    """Arrays of the right size, without content."""
    count, side = len(split.ids), frame.resize if training else frame.crop
    shapes: dict[str, tuple[int, ...]] = {"images": (count, side, side, 3)}
    if split.masks is not None:
        shapes["masks"] = (count, side, side)
    if frame.crops > 1 and not training:
        shapes["large"] = (count, frame.resize, frame.resize, 3)
    needed, free = sum(math.prod(shape) for shape in shapes.values()), shutil.disk_usage(target).free
    if needed > free:  # else the processes that write die of it, without a word
        raise InputError(f"{target}: needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
    for name, shape in shapes.items():
        np.lib.format.open_memmap(target / f"{name}.npy", "w+", np.uint8, shape).flush()


def _write_block(target: Path, frame: Frame, training: bool, task: tuple[int, Split]) -> int:
    """Decode some images into the arrays, and note what they are once they are there."""
    start, split = task
    arrays = {path.stem: np.lib.format.open_memmap(path, "r+") for path in target.glob("*.npy")}
    rows, overhang = [], Overhang()
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        found = examine(split, i, scored=not training)
        overhang += found.overhang
        place = geometry.whole if training else geometry.seen
        size = (found.image.shape[1], found.image.shape[0])
        placed = place(size, frame)
        arrays["images"][start + i] = placed.image(found.image)
        if found.mask is not None:
            arrays["masks"][start + i] = place((found.mask.shape[1], found.mask.shape[0]), frame).mask(found.mask)
        if "large" in arrays:
            arrays["large"][start + i] = geometry.whole(size, frame).image(found.image)
        boxes = placed.boxes(found.boxes, size).ravel().tolist()
        rows.append({"id": name, "label": label, "boxes": boxes, "sha256": found.fingerprint})
    for array in arrays.values():
        array.flush()
    write_json(target / "blocks" / f"{start:09d}.json", {"rows": rows, "overhang": asdict(overhang)})
    return len(rows)
