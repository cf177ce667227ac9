"""Fingerprints of a data set: one of its photos and one of its annotations.

A fingerprint hashes content, so touching or copying a file does not change it. Detecting changes costs one stat call a
file; a file is only read if its size or times changed. Photos and annotations have separate fingerprints, so that
corrected annotations cause a new evaluation but no training.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from eil.data import Split

Stats = npt.NDArray[np.int64]
NO_FILE = (-1, -1)
_READ = 2**20  # bytes at a time


class FilePaths(Sequence[Path]):
    """Paths kept as text: a million path objects would take most of the time of looking at a data set."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "FilePaths": ...
    def __getitem__(self, index: int | slice) -> "Path | FilePaths":
        """A path, or some of them."""
        return FilePaths(self.texts[index]) if isinstance(index, slice) else Path(self.texts[index])


def files_of(source: Any) -> Iterator[Path]:
    """The files that a source names: itself if it is a path, else those inside its lists and tuples."""
    if isinstance(source, Path):
        yield source
    elif isinstance(source, list | tuple):
        for each in source:
            yield from files_of(each)


def stats(sources: Sequence[Any]) -> Stats:
    """:func:`stat_of` each source, (N, 2)."""
    found = map(_stat, sources.texts) if isinstance(sources, FilePaths) else map(stat_of, sources)
    return np.fromiter(itertools.chain.from_iterable(found), np.int64).reshape(-1, 2)


def stat_of(source: Any) -> tuple[int, int]:
    """Total size of a source's files, and a combination of their modification times; :data:`NO_FILE` without files."""
    if isinstance(source, Path):
        return _stat(source)
    found = [_stat(path) for path in files_of(source)]
    if not found or NO_FILE in found:
        return NO_FILE
    return sum(size for size, _ in found), sum(k * times for k, (_, times) in enumerate(found, start=1)) % 2**62


def _stat(path: Path | str) -> tuple[int, int]:
    try:
        stat = os.stat(path)  # noqa: PTH116  # a third faster than Path.stat, for a million files
    except OSError:
        return NO_FILE
    # ctime too: it detects a copy that keeps the modification time (cp -p).
    return stat.st_size, (31 * stat.st_mtime_ns + stat.st_ctime_ns) % 2**62


def content_of(source: Any) -> str:
    """SHA-256 of the bytes of a source's files, or of its value if it names none; "gone" if a file cannot be read."""
    digest = hashlib.sha256()
    paths = list(files_of(source))
    if not paths:
        return hashlib.sha256(repr(source).encode()).hexdigest()
    try:
        for path in paths:
            with path.open("rb") as file:
                while part := file.read(_READ):
                    digest.update(part)
    except OSError:
        return "gone"
    return digest.hexdigest()


def reconcile_stats(
    sources: Sequence[Any], recorded: Stats, known: Stats, contents: Iterable[str]
) -> tuple[Stats, Stats]:
    """Stats in which only sources with changed content differ from the recorded ones.

    A source whose stats are neither recorded nor known is read once, because a touched file may have the same content.

    Args:
        sources: N of them.
        recorded: their stats when their content was read, (N, 2).
        known: the last stats at which the content was found unchanged, (N, 2).
        contents: the recorded content, by :func:`content_of`.

    Returns:
        Stats to hash, (N, 2): the present ones of sources with changed content, the recorded ones of all others; and
        the updated ``known``, (N, 2).
    """
    now, were = stats(sources), list(contents)
    found, known = recorded.copy(), known.copy()
    for i in np.flatnonzero((now != recorded).any(axis=1) & (now != known).any(axis=1)).tolist():
        if content_of(sources[i]) == were[i]:
            known[i] = now[i]
        else:
            found[i] = now[i]
    return found, known


def of_photos(splits: Iterable[tuple[str, Iterable[str], Iterable[int], Iterable[str]]]) -> str:
    """Fingerprint of photos: hash of each split's name, and of ids, labels and contents of its photos."""
    digest = hashlib.sha256()
    for name, ids, labels, contents in splits:
        digest.update(f"{name}\n".encode())
        for row in zip(ids, labels, contents, strict=True):
            digest.update("{}\t{}\t{}\n".format(*row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def of_annotations(splits: Iterable[tuple[str, Iterable[str], Iterable[Any], Iterable[str]]]) -> str:
    """Fingerprint of annotations: hash of each split's name, and of ids, boxes (in the photo's pixels) and masks."""
    digest = hashlib.sha256()
    for name, ids, boxes, masks in splits:
        digest.update(f"{name}\n".encode())
        for image, boxes_of_image, mask in zip(ids, boxes, masks, strict=True):
            digest.update(
                f"{image}\t{np.asarray(boxes_of_image).ravel().tolist()}\t{mask}\n".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()


def of_data(photos: str, annotations: str) -> str:
    """Fingerprint of a whole data set."""
    return hashlib.sha256(f"{photos}{annotations}".encode()).hexdigest()


def listed_annotations(split: Split) -> str:
    """Hash of a split's annotations as the reader lists them: boxes and the sources of masks; no mask is read."""
    digest = hashlib.sha256()
    for i, boxes in enumerate(split.boxes):
        if len(boxes):
            digest.update(f"{i}\t{boxes.ravel().tolist()}\n".encode())
    for source in split.masks or ():
        digest.update(repr(source).encode("utf-8", "surrogateescape"))
    if split.sizes is not None:
        digest.update(np.ascontiguousarray(split.sizes).tobytes())
    return digest.hexdigest()
