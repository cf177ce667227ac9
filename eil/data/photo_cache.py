"""Photos decoded once: dataset.json, and a folder for each split with images.npy and index.parquet.

The work (decode, check, resize) is done in parallel processes, a block of images at a time. A killed preparation goes
on where it was, as far as the files are still the same; the cache appears as a whole.
"""

import contextlib
import functools
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from eil.core.files import InputError, locked, read_json, remove, replacing, write_json
from eil.data import Dataset, Split, decode, fingerprint, geometry, parallel
from eil.data.fingerprint import Stats
from eil.data.geometry import Frame

cv2.setNumThreads(1)  # the processes are the parallelism; OpenCV's own threads would multiply it
COLUMNS = ["id", "label", "sha256", "width", "height", "bytes", "changed"]
STATS = ["bytes", "changed"]
FORMAT = 3  # of the folder; another one is refused
DESCRIPTION = "dataset.json"
ANNOTATIONS = "annotations"  # folder of boxes and masks
KNOWN = "known.npy"  # stats of photos that were touched and have the same content


def build(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Decode and resize a data set's photos into ``folder``, or go on with it; photos that are current stay.

    Args:
        dataset: what a reader gave.
        folder: where the cache appears.
        frame: sides and geometry.

    Raises:
        InputError: an image that cannot be decoded, by name. What was decoded before is kept, so that the next call
            goes on from there.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder.with_name(f".{folder.name}.lock")):
        if is_current(dataset, folder, frame):  # another process may have made it while this one waited
            return
        listing = _listing(dataset, frame)
        if not (partial / "listing").exists() or (partial / "listing").read_text() != listing:
            remove(partial)
            partial.mkdir(parents=True)
            (partial / "listing").write_text(listing)
        rows = {name: _write_split(name, split, partial / name, frame) for name, split in dataset.splits.items()}
        description = {
            "format": FORMAT,
            "name": dataset.name,
            "classes": list(dataset.classes),
            "whole_classes": dataset.whole,
            "parts": list(dataset.parts),
            **asdict(frame),
            "photos_sha256": fingerprint.of_photos(
                [(name, index["id"], index["label"], index["sha256"]) for name, index in rows.items()]
            ),
            "photos_look": _hash_look(listing, [index[STATS].to_numpy(np.int64) for index in rows.values()]),
        }
        write_json(partial / DESCRIPTION, description)
        for name in ("listing", *(f"{name}/blocks" for name in dataset.splits)):
            remove(partial / name)
        remove(folder)
        partial.replace(folder)


def is_current(dataset: Dataset, folder: Path, frame: Frame) -> bool:
    """Whether ``folder`` holds the photos that the data set has now, by stat calls; a touched photo is read once.

    Raises:
        InputError: a cache of another version.
    """
    return (folder / DESCRIPTION).exists() and describe(folder)["photos_look"] == look(dataset, folder, frame)


def look(dataset: Dataset, folder: Path, frame: Frame) -> str:
    """Hash of what a cache would be made from: names, labels, frame, and stats of photos.

    It is the same as long as the photos' content is: where a cache has recorded a photo with other stats and the same
    content, the recorded ones count, and the present ones are remembered.
    """
    made = (folder / DESCRIPTION).exists() and read_json(folder / DESCRIPTION).get("format") == FORMAT
    found = [_look_at(split, folder / name) if made else _present(split) for name, split in dataset.splits.items()]
    return _hash_look(_listing(dataset, frame), found)


def describe(folder: Path) -> dict[str, Any]:
    """What dataset.json says: name, classes, parts, frame, and the photos' fingerprint.

    Raises:
        InputError: no cache, or one of another version.
    """
    found = read_json(folder / DESCRIPTION, "eil prepare")
    if found.get("format") != FORMAT:
        raise InputError(f"{folder}: was made by another version of eil; remove it and `eil prepare` makes it anew")
    return found


def _present(split: Split) -> Stats:
    return fingerprint.stats(split.sources)


def _look_at(split: Split, target: Path) -> Stats:
    """Stats of a split's photos to hash: the recorded ones of those whose content has not changed, (N, 2)."""
    index = pd.read_parquet(target / "index.parquet", columns=["id", "sha256", *STATS])
    if len(index) != len(split.ids) or index["id"].tolist() != list(split.ids):
        return _present(split)
    recorded = index[STATS].to_numpy(np.int64)
    before = np.load(target / KNOWN) if (target / KNOWN).exists() else recorded
    found, known = fingerprint.look(split.sources, recorded, before, index["sha256"])
    if not np.array_equal(known, before):
        with contextlib.suppress(OSError), replacing(target / KNOWN) as beside:  # a read-only cache looks again
            np.save(beside, known)
    return found


def _listing(dataset: Dataset, frame: Frame) -> str:
    """Hash of names, labels and frame: an unfinished cache of another listing is begun anew."""
    digest = hashlib.sha256(json.dumps([FORMAT, dataset.name, dataset.classes, asdict(frame)]).encode())
    for name, split in dataset.splits.items():
        digest.update("\n".join([name, *split.ids]).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(split.labels).tobytes())
    return digest.hexdigest()


def _hash_look(listing: str, stats: Sequence[Stats]) -> str:
    digest = hashlib.sha256(listing.encode())
    for each in stats:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def _write_split(name: str, split: Split, target: Path, frame: Frame) -> pd.DataFrame:
    """Write images.npy, index.parquet and what else there is; the index."""
    training = name == "train"
    if not (target / "blocks").exists():
        remove(target)
        target.mkdir()
        _create(target, split, frame, training)
        (target / "blocks").mkdir()
    todo = [block for block in parallel.blocks(len(split.ids)) if not _is_done(target, split.take(block), block)]
    tasks = [(block.start, split.take(block)) for block in todo]
    write = functools.partial(_write_block, target, frame, training)
    with contextlib.closing(parallel.over_processes(write, tasks)) as written:
        bar: Iterable[int] = tqdm(written, f"{name}: decoding", len(tasks), leave=False, disable=None, unit="block")
        for _ in bar:
            pass
    # As a frame a block takes a tenth of the memory that its rows take.
    parts = [_rows(target, block) for block in parallel.blocks(len(split.ids))]
    index = pd.concat(parts, ignore_index=True)
    index.to_parquet(target / "index.parquet")
    return index


def _is_done(target: Path, split: Split, block: range) -> bool:
    """Whether a block was decoded, and from the files that there are now."""
    if not (target / "blocks" / f"{block.start:09d}.json").exists():
        return False
    rows = _rows(target, block)
    recorded = rows[STATS].to_numpy(np.int64)
    found, _ = fingerprint.look(split.sources, recorded, recorded, rows["sha256"])
    return len(rows) == len(split.ids) and np.array_equal(found, recorded)


def _rows(target: Path, block: range) -> pd.DataFrame:
    return pd.DataFrame(read_json(target / "blocks" / f"{block.start:09d}.json")["rows"], columns=COLUMNS)


def _create(target: Path, split: Split, frame: Frame, training: bool) -> None:
    """Arrays of the right size, without content."""
    count, side = len(split.ids), frame.resize if training else frame.crop
    shapes: dict[str, tuple[int, ...]] = {"images": (count, side, side, 3)}
    if frame.crops > 1 and not training:
        shapes["large"] = (count, frame.resize, frame.resize, 3)
    create_arrays(target, shapes)


def create_arrays(target: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Files ``{name}.npy`` of uint8 zeros.

    Raises:
        InputError: the disk has no room for them; else processes that write would die of it, without a word.
    """
    needed, free = sum(math.prod(shape) for shape in shapes.values()), shutil.disk_usage(target).free
    if needed > free:
        raise InputError(f"{target}: needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free")
    for name, shape in shapes.items():
        np.lib.format.open_memmap(target / f"{name}.npy", "w+", np.uint8, shape).flush()


def _write_block(target: Path, frame: Frame, training: bool, task: tuple[int, Split]) -> int:
    """Decode some photos into the arrays, and note what they are once they are there."""
    start, split = task
    arrays = {path.stem: np.lib.format.open_memmap(path, "r+") for path in target.glob("*.npy")}
    rows = []
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        stat = fingerprint.stat_of(split.sources[i])  # before it is read: what changes meanwhile is noticed later
        found = decode.photo(split, i)
        place = geometry.whole if training else geometry.seen
        arrays["images"][start + i] = place(found.size, frame).image(found.image)
        if "large" in arrays:
            arrays["large"][start + i] = geometry.whole(found.size, frame).image(found.image)
        rows.append(dict(zip(COLUMNS, (name, label, found.content, *found.size, *stat), strict=True)))
    for array in arrays.values():
        array.flush()
    write_json(target / "blocks" / f"{start:09d}.json", {"rows": rows})
    return len(rows)
