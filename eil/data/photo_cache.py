"""Cache of decoded photos: dataset.json, and for each split a folder with images.npy and index.parquet.

Photos are decoded, checked and resized in parallel processes, a block of images at a time. A killed preparation
continues where it stopped if the files are still the same. The finished cache is moved into place in one step.

Pandas takes 0.3 s to import, and a step that only compares hashes does not need it: functions that do import it.
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
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from eil.core.files import InputError, atomic_write, locked, read_json, remove, write_json
from eil.data import Dataset, Split, decode, fingerprint, geometry, parallel
from eil.data.fingerprint import Stats
from eil.data.geometry import Frame

if TYPE_CHECKING:
    import pandas as pd

cv2.setNumThreads(1)  # one thread per process; the processes run in parallel
COLUMNS = ["id", "label", "sha256", "width", "height", "bytes", "changed"]
STATS = ["bytes", "changed"]
FORMAT = 3  # version of the cache; others are refused
DESCRIPTION = "dataset.json"
ANNOTATIONS = "annotations"  # folder of boxes and masks
KNOWN = "known.npy"  # stats of photos that were touched but have the same content


def build(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """Decode and resize a data set's photos into ``folder``, or continue to; does nothing if the cache is current.

    Args:
        dataset: from a reader.
        folder: of the cache.
        frame: sides and geometry.

    Raises:
        InputError: an image that cannot be decoded; the message names it. The next call continues after the images
            that were decoded.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with locked(folder.with_name(f".{folder.name}.lock")):
        if is_current(dataset, folder, frame):  # another process may have made it while this one waited
            return
        listing = _listing(dataset, frame)
        if not (partial / "listing").exists() or (partial / "listing").read_text(encoding="utf-8") != listing:
            remove(partial)
            partial.mkdir(parents=True)
            (partial / "listing").write_text(listing, encoding="utf-8")
        rows = {name: _write_split(name, split, partial / name, frame) for name, split in dataset.splits.items()}
        description = {
            "format": FORMAT,
            "name": dataset.name,
            "classes": list(dataset.classes),
            "whole_classes": dataset.whole_classes,
            "parts": list(dataset.parts),
            **asdict(frame),
            "photos_sha256": fingerprint.of_photos(
                [(name, index["id"], index["label"], index["sha256"]) for name, index in rows.items()]
            ),
            "photos_look": _hash_state(listing, [index[STATS].to_numpy(np.int64) for index in rows.values()]),
        }
        write_json(partial / DESCRIPTION, description)
        for name in ("listing", *(f"{name}/blocks" for name in dataset.splits)):
            remove(partial / name)
        remove(folder)
        partial.replace(folder)


def is_current(dataset: Dataset, folder: Path, frame: Frame) -> bool:
    """Whether ``folder`` holds the data set's present photos; costs stat calls, and one read of each touched photo.

    Raises:
        InputError: a cache of another version.
    """
    return (folder / DESCRIPTION).exists() and describe(folder)["photos_look"] == source_state(dataset, folder, frame)


def source_state(dataset: Dataset, folder: Path, frame: Frame) -> str:
    """Hash of a cache's inputs: names, labels, frame, and stats of photos.

    It does not change while the photos' content does not: if a photo was touched, its recorded stats are hashed, and
    its present ones are remembered (:func:`eil.data.fingerprint.reconcile_stats`).
    """
    made = (folder / DESCRIPTION).exists() and read_json(folder / DESCRIPTION).get("format") == FORMAT
    found = [
        _recorded_stats(split, folder / name) if made else _present(split) for name, split in dataset.splits.items()
    ]
    return _hash_state(_listing(dataset, frame), found)


def describe(folder: Path) -> dict[str, Any]:
    """The content of dataset.json: name, classes, parts, frame, and the photos' fingerprint.

    Raises:
        InputError: no cache, or one of another version.
    """
    found = read_json(folder / DESCRIPTION, "eil prepare")
    if found.get("format") != FORMAT:
        raise InputError(f"{folder}: was made by another version of eil; remove it and run `eil prepare`")
    return found


def _present(split: Split) -> Stats:
    return fingerprint.stats(split.sources)


def _recorded_stats(split: Split, target: Path) -> Stats:
    """Stats of a split's photos to hash, (N, 2): the recorded ones of photos with unchanged content."""
    import pandas as pd

    index = pd.read_parquet(target / "index.parquet", columns=["id", "sha256", *STATS])
    if len(index) != len(split.ids) or index["id"].tolist() != list(split.ids):
        return _present(split)
    recorded = index[STATS].to_numpy(np.int64)
    before = np.load(target / KNOWN) if (target / KNOWN).exists() else recorded
    found, known = fingerprint.reconcile_stats(split.sources, recorded, before, index["sha256"])
    if not np.array_equal(known, before):
        # A read-only cache does not remember.
        with contextlib.suppress(OSError), atomic_write(target / KNOWN) as beside:
            np.save(beside, known)
    return found


def _listing(dataset: Dataset, frame: Frame) -> str:
    """Hash of names, labels and frame: an unfinished cache with another listing is started again."""
    digest = hashlib.sha256(json.dumps([FORMAT, dataset.name, dataset.classes, asdict(frame)]).encode())
    for name, split in dataset.splits.items():
        digest.update("\n".join([name, *split.ids]).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(split.labels).tobytes())
    return digest.hexdigest()


def _hash_state(listing: str, stats: Sequence[Stats]) -> str:
    digest = hashlib.sha256(listing.encode())
    for each in stats:
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def _write_split(name: str, split: Split, target: Path, frame: Frame) -> "pd.DataFrame":
    """Write a split's arrays and index.parquet; returns the index."""
    import pandas as pd

    training = name == "train"
    if not (target / "blocks").exists():
        remove(target)
        target.mkdir()
        _create(target, split, frame, training)
        (target / "blocks").mkdir()
    todo = [block for block in parallel.blocks(len(split.ids)) if not _is_done(target, split.take(block), block)]
    tasks = [(block.start, split.take(block)) for block in todo]
    write = functools.partial(_write_block, target, frame, training)
    with contextlib.closing(parallel.map_in_processes(write, tasks)) as written:
        bar: Iterable[int] = tqdm(written, f"{name}: decoding", len(tasks), leave=False, disable=None, unit="block")
        for _ in bar:
            pass
    # A block takes a tenth of the memory as a data frame.
    parts = [_rows(target, block) for block in parallel.blocks(len(split.ids))]
    index = pd.concat(parts, ignore_index=True)
    index.to_parquet(target / "index.parquet")
    return index


def _is_done(target: Path, split: Split, block: range) -> bool:
    """Whether a block was decoded from the present files."""
    if not (target / "blocks" / f"{block.start:09d}.json").exists():
        return False
    rows = _rows(target, block)
    recorded = rows[STATS].to_numpy(np.int64)
    found, _ = fingerprint.reconcile_stats(split.sources, recorded, recorded, rows["sha256"])
    return len(rows) == len(split.ids) and np.array_equal(found, recorded)


def _rows(target: Path, block: range) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(read_json(target / "blocks" / f"{block.start:09d}.json")["rows"], columns=COLUMNS)


def _create(target: Path, split: Split, frame: Frame, training: bool) -> None:
    """Create a split's arrays, filled with zeros."""
    count, side = len(split.ids), frame.resize if training else frame.crop
    shapes: dict[str, tuple[int, ...]] = {"images": (count, side, side, 3)}
    if frame.crops > 1 and not training:
        shapes["large"] = (count, frame.resize, frame.resize, 3)
    create_arrays(target, shapes)


def create_arrays(target: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Files ``{name}.npy`` of uint8 zeros.

    Raises:
        InputError: the disk is too small; otherwise a process that writes to the mapped file would be killed silently.
    """
    needed, free = sum(math.prod(shape) for shape in shapes.values()), shutil.disk_usage(target).free
    if needed > free:
        raise InputError(f"{target}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free")
    for name, shape in shapes.items():
        np.lib.format.open_memmap(target / f"{name}.npy", "w+", np.uint8, shape).flush()


def _write_block(target: Path, frame: Frame, training: bool, task: tuple[int, Split]) -> int:
    """Decode some photos into the arrays, and then record them in the block's JSON file."""
    start, split = task
    arrays = {path.stem: np.lib.format.open_memmap(path, "r+") for path in target.glob("*.npy")}
    rows = []
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        stat = fingerprint.stat_of(split.sources[i])  # before reading, so that a later change is detected
        found = decode.photo(split, i)
        place = geometry.train_frame if training else geometry.eval_frame
        arrays["images"][start + i] = place(found.size, frame).image(found.image)
        if "large" in arrays:
            arrays["large"][start + i] = geometry.train_frame(found.size, frame).image(found.image)
        rows.append(dict(zip(COLUMNS, (name, label, found.content, *found.size, *stat), strict=True)))
    for array in arrays.values():
        array.flush()
    write_json(target / "blocks" / f"{start:09d}.json", {"rows": rows})
    return len(rows)
