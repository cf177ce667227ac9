"""wsoleval: the layout of the wsolevaluation benchmark (Choe et al., CVPR 2020): CUB, ILSVRC, OpenImages30k.

A folder ``metadata/{CUB,ILSVRC,OpenImages}/{train,val,test}`` holds image_ids.txt, class_labels.txt (``id,label``),
image_sizes.txt (``id,width,height``) and localization.txt (``id,x0,y0,x1,y1`` with inclusive corners in original
pixels, several lines an image; or ``id,mask.png,ignore.png``). No headers, and no newline at the end. Images and masks
lie under ``{CUB,ILSVRC,OpenImages}/`` by their ids. Its "train-fullsup" is ``val``: CUBV2, ImageNetV2, OpenImages' own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from eil.core.files import InputError
from eil.data import NO_BOX, Boxes, Dataset, Split, photos

T = TypeVar("T")
LARGEST = 2**31 - 1  # of labels, sides and corners


@dataclass(frozen=True)
class Metadata:
    """One split.

    Attributes:
        ids: of the images, which are paths.
        labels: (N,).
        sizes: width and height of each image, (N, 2); None where the list is empty (OpenImages).
        boxes: of each image, (K, 4) as x0, y0, x1, y1, inclusive; None where there are masks.
        masks: of each image, files of masks; the last is the region to ignore, "" without one. None where there are
            boxes.
        box_sources: of each image, ``FILE:LINE`` of each of its boxes; None where there are masks.
    """

    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64] | None
    boxes: tuple[Boxes, ...] | None
    masks: tuple[tuple[str, ...], ...] | None
    box_sources: tuple[tuple[str, ...], ...] | None = None


def read(
    root: Path | None = None, *, benchmark: Literal["CUB", "ILSVRC", "OpenImages"], metadata: Path | None = None
) -> Dataset:
    """List the photos of one of the benchmark's data sets.

    Args:
        root: the folder that holds the folders of images, CUB and so on.
        benchmark: which of them.
        metadata: the folder of the lists (default: metadata under ``root``).

    Raises:
        InputError: a missing folder, list or first photo of a split, or what :func:`lists` refuses.
    """
    if root is None or not (root / benchmark).is_dir():
        raise InputError(
            f"wsoleval: no {benchmark} in {root or 'any folder (no root was given)'}; name the folder that holds "
            f"{benchmark}/ and metadata/{benchmark}/ by dataset.root in the study, by --data-root, or by EIL_DATA"
        )
    folder = (metadata or root / "metadata") / benchmark
    splits = {name: _split(root / benchmark, folder / name, name != "train") for name in ("train", "val", "test")}
    numbers = np.unique(splits["train"].labels)  # of the classes, which may have gaps
    names = _names(splits["train"], numbers)
    splits = {name: _relabelled(split, numbers, folder / name) for name, split in splits.items()}
    return Dataset(name=benchmark.lower(), classes=names, splits=splits)


def _split(images: Path, folder: Path, located: bool) -> Split:
    found = lists(folder, located)
    boxes = found.boxes if found.boxes is not None else (NO_BOX,) * len(found.ids)
    rows = [
        (name, label, photos.path_below(images, name, f"{folder / 'image_ids.txt'}:{line}"), boxes_of_image)
        for line, (name, label, boxes_of_image) in enumerate(
            zip(found.ids, found.labels.tolist(), boxes, strict=True), start=1
        )
    ]
    _require_first(rows[0][2], folder)
    if found.masks is None:
        return photos.split(rows, sizes=found.sizes, box_sources=found.box_sources)
    where = str(folder / "localization.txt")
    masks = [[photos.path_below(images, name, where) if name else None for name in files] for files in found.masks]
    return photos.split(rows, masks)


def _relabelled(split: Split, numbers: npt.NDArray[np.int64], folder: Path) -> Split:
    """Labels as positions among the training photos' labels."""
    labels = np.searchsorted(numbers, split.labels).clip(max=len(numbers) - 1)
    other = np.flatnonzero(numbers[labels] != split.labels)
    if len(other):
        where = label_line(folder, split.ids[other[0]])
        raise InputError(f"{where}: label {split.labels[other[0]]}: no training photo has it")
    return replace(split, labels=labels.astype(np.int64))


def label_line(folder: Path, name: str) -> str:
    """``FILE:LINE`` of an image's label in the lists of a split, for messages."""
    path = folder / "class_labels.txt"
    line = next((number for number, text in photos.lines(path) if text.rpartition(",")[0] == name), 1)
    return f"{path}:{line}"


def _require_first(photo: Path, folder: Path) -> None:
    """Say what is wrong before hours are spent on finding that no photo is where the lists say."""
    if photo.is_file():
        return
    others = sorted(path.name for path in photo.parent.glob("*")) if photo.parent.is_dir() else []
    if others and folder.parent.name == "ILSVRC" and folder.name == "val":
        raise InputError(
            f"{photo}: no such file, but {others[0]} is there: ImageNetV2 was released anew under hashed names, for "
            "which the lists' authors gave no mapping. Use the first release (0.jpeg to 9.jpeg in each "
            "folder), or the data set ilsvrc, which holds val out of the training photos"
        )
    raise InputError(f"{photo}: no such file; {folder / 'image_ids.txt'} names it first")


def _names(train: Split, numbers: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """The lists have no names: that of a class is the folder in which its first training photo lies."""
    first = {int(label): name for name, label in zip(reversed(train.ids), reversed(train.labels), strict=True)}
    return tuple(Path(first[number]).parent.name for number in numbers.tolist())


def lists(folder: Path, located: bool = True) -> Metadata:
    """Read the lists of one split.

    Args:
        folder: of the lists.
        located: whether to read sizes, and boxes or masks, as well; training has none, or does not look at them.

    Raises:
        InputError: a missing list, a malformed line (file and line number), an id that is unknown or given twice,
            an image without a label, size or box, or a box with x1 < x0.
    """
    ids = tuple(line for _, line in photos.lines(folder / "image_ids.txt"))
    known = {name: k for k, name in enumerate(ids)}
    if len(known) < len(ids):
        seen: set[str] = set()
        twice = next(k for k, name in enumerate(ids, start=1) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{folder / 'image_ids.txt'}:{twice}: {ids[twice - 1]} is listed twice")
    if not ids:
        raise InputError(f"{folder / 'image_ids.txt'}: names no image")
    labels = _one_each(folder / "class_labels.txt", known, 1, least=0)[:, 0]
    if not located:
        return Metadata(ids, labels, None, None, None)
    empty_list = not any(photos.lines(folder / "image_sizes.txt"))
    sizes = None if empty_list else _one_each(folder / "image_sizes.txt", known, 2, least=1)
    boxes, masks, sources = _localization(folder / "localization.txt", known)
    return Metadata(ids, labels, sizes, boxes, masks, sources)


def _localization(
    path: Path, known: dict[str, int]
) -> tuple[tuple[Boxes, ...] | None, tuple[tuple[str, ...], ...] | None, tuple[tuple[str, ...], ...] | None]:
    """Boxes or masks of each image, of which the other is None, and where each box is from."""
    found: list[list[list[str]]] = [[] for _ in known]
    sources: list[list[str]] = [[] for _ in known]
    for _, image, rest, where in _entries(path, known):
        if len(rest) not in (2, 4):
            raise InputError(f"{where}: expected id,x0,y0,x1,y1 or id,mask,ignore")
        if len(rest) == 4:
            x0, y0, x1, y1 = _numbers(rest, float, where)
            if not (x1 >= x0 and y1 >= y0):
                raise InputError(f"{where}: a box that ends before it begins: {','.join(rest)}")
            if max(map(abs, (x0, y0, x1, y1))) > LARGEST:
                raise InputError(f"{where}: a box that no photo is large enough for: {','.join(rest)}")
        if found[image] and len(found[image][0]) != len(rest):
            raise InputError(f"{where}: the image has a mask on one line and a box on another")
        found[image].append(rest)
        sources[image].append(where)
    empty = next((name for name, k in known.items() if not found[k]), None)
    if empty is not None:
        raise InputError(f"{path}: has no line for {empty}")
    kinds = {len(rest) for lines in found for rest in lines}
    if len(kinds) > 1:
        raise InputError(f"{path}: boxes for some images and masks for others")
    if kinds == {4}:
        boxes = tuple(np.array([[float(text) for text in rest] for rest in lines]) for lines in found)
        return boxes, None, tuple(map(tuple, sources))
    masks = tuple(
        (*(mask for mask, _ in lines), next((ignore for _, ignore in lines if ignore), "")) for lines in found
    )
    return None, masks, None


def _one_each(path: Path, known: dict[str, int], count: int, least: int) -> npt.NDArray[np.int64]:
    """``count`` whole numbers for each image, (N, count), of at least ``least``."""
    found: dict[int, list[int]] = {}
    for _, image, rest, where in _entries(path, known):
        if len(rest) != count:
            raise InputError(f"{where}: expected {count + 1} values, found {len(rest) + 1}")
        if image in found:
            raise InputError(f"{where}: the image is listed twice")
        found[image] = _numbers(rest, int, where)
        if not all(least <= number <= LARGEST for number in found[image]):
            raise InputError(f"{where}: {','.join(rest)}: expected whole numbers from {least} to {LARGEST}")
    missing = next((name for name, k in known.items() if k not in found), None)
    if missing is not None:
        raise InputError(f"{path}: has no line for {missing}")
    return np.array([found[k] for k in range(len(known))], dtype=np.int64).reshape(-1, count)


def _entries(path: Path, known: dict[str, int]) -> Iterator[tuple[int, int, list[str], str]]:
    """Line number, image, the values after its id, and ``file:line`` for messages."""
    for number, line in photos.lines(path):
        name, *rest = line.split(",")
        where = f"{path}:{number}"
        if name not in known:
            raise InputError(f"{where}: unknown image id {name}")
        yield number, known[name], rest, where


def _numbers(texts: list[str], kind: Callable[[str], T], where: str) -> list[T]:
    try:
        return [kind(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
