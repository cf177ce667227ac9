"""The metadata layout of the wsolevaluation benchmark: image lists, labels, sizes, and boxes or masks.

A folder ``metadata/{CUB,ILSVRC,OpenImages}/{train,val,test}`` holds image_ids.txt, class_labels.txt (``id,label``),
image_sizes.txt (``id,width,height``) and localization.txt (``id,x0,y0,x1,y1`` with inclusive corners in original
pixels, several lines an image; or ``id,mask.png,ignore.png``). No headers, and no newline at the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from eil.data import Boxes
from eil.files import InputError

T = TypeVar("T")


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
    """

    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64] | None
    boxes: tuple[Boxes, ...] | None
    masks: tuple[tuple[str, ...], ...] | None


def read(folder: Path) -> Metadata:
    """Read the lists of one split.

    Raises:
        InputError: a missing list, a malformed line (file and line number), an id that is unknown or given twice,
            an image without a label, size or box, or a box with x1 < x0.
    """
    ids = tuple(line for _, line in _lines(folder / "image_ids.txt"))
    known = {name: k for k, name in enumerate(ids)}
    if len(known) < len(ids):
        seen: set[str] = set()
        twice = next(k for k, name in enumerate(ids, start=1) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{folder / 'image_ids.txt'}:{twice}: {ids[twice - 1]} stands there twice")
    labels = _one_each(folder / "class_labels.txt", known, 1)[:, 0]
    empty_list = not any(_lines(folder / "image_sizes.txt"))
    sizes = None if empty_list else _one_each(folder / "image_sizes.txt", known, 2)
    located: list[list[list[str]]] = [[] for _ in ids]
    for _, image, rest, where in _entries(folder / "localization.txt", known):
        if len(rest) not in (2, 4):
            raise InputError(f"{where}: expected id,x0,y0,x1,y1 or id,mask,ignore")
        if len(rest) == 4:
            x0, y0, x1, y1 = _numbers(rest, float, where)
            if not (x1 >= x0 and y1 >= y0):
                raise InputError(f"{where}: a box that ends before it begins: {','.join(rest)}")
        if located[image] and len(located[image][0]) != len(rest):
            raise InputError(f"{where}: a mask beside boxes")
        located[image].append(rest)
    empty = next((ids[k] for k, own in enumerate(located) if not own), None)
    if empty is not None:
        raise InputError(f"{folder / 'localization.txt'}: has no line for {empty}")
    kinds = {len(rest) for own in located for rest in own}
    if len(kinds) > 1:
        raise InputError(f"{folder / 'localization.txt'}: boxes for some images and masks for others")
    if kinds == {4}:
        return Metadata(ids, labels, sizes, tuple(np.array(own, dtype=np.float64) for own in located), None)
    masks = tuple((*(mask for mask, _ in own), next((ignore for _, ignore in own if ignore), "")) for own in located)
    return Metadata(ids, labels, sizes, None, masks)


def _one_each(path: Path, known: dict[str, int], count: int) -> npt.NDArray[np.int64]:
    """``count`` whole numbers for each image, (N, count)."""
    found: dict[int, list[int]] = {}
    for _, image, rest, where in _entries(path, known):
        if len(rest) != count:
            raise InputError(f"{where}: expected {count + 1} values, found {len(rest) + 1}")
        if image in found:
            raise InputError(f"{where}: the image stands there twice")
        found[image] = _numbers(rest, int, where)
    missing = next((name for name, k in known.items() if k not in found), None)
    if missing is not None:
        raise InputError(f"{path}: has no line for {missing}")
    return np.array([found[k] for k in range(len(known))], dtype=np.int64).reshape(-1, count)


def _entries(path: Path, known: dict[str, int]) -> Iterator[tuple[int, int, list[str], str]]:
    """Line number, image, the values after its id, and ``file:line`` for messages."""
    for number, line in _lines(path):
        name, *rest = line.split(",")
        where = f"{path}:{number}"
        if name not in known:
            raise InputError(f"{where}: unknown image id {name}")
        yield number, known[name], rest, where


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            raise InputError(f"{path}:{number}: an empty line")
        yield number, line.strip()


def _numbers(texts: list[str], kind: Callable[[str], T], where: str) -> list[T]:
    try:
        return [kind(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
