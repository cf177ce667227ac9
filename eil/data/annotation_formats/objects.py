"""Annotated objects, whatever their file format: names, boxes and shapes.

:mod:`eil.data.annotation_formats.coco` and :mod:`eil.data.annotation_formats.voc` read them; :func:`truth` turns them
into true boxes and masks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import numpy as np

from eil.core.files import InputError
from eil.data import Boxes, Image, names
from eil.data.clipping import Overhang, clip

LARGEST_SIDE: Final = 65_535
LARGEST_AREA: Final = 350_000_000  # pixels, about the most that Pillow decodes
LARGEST_NUMBER: Final = 2**31 - 1


@dataclass(frozen=True)
class Polygons:
    """Outlines x0, y0, x1, y1, ... in pixels, of at least three points each."""

    rings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Rle:
    """Lengths of runs of background and object in turn, column by column, or COCO's compressed text of them."""

    counts: tuple[int, ...] | str


@dataclass(frozen=True)
class Object:
    """One object of a photo.

    Attributes:
        name: of its category.
        box: x0, y0, x1, y1, inclusive corners.
        where: file and place, for messages.
        shape: its outline or mask, if there is one.
        crowd: whether it is a region to ignore, not an object.
    """

    name: str
    box: tuple[float, float, float, float]
    where: str
    shape: Polygons | Rle | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Annotated:
    """Annotations of one photo: its (width, height) and its objects."""

    size: tuple[int, int]
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Shapes:
    """Source of a mask: shapes of objects and of regions to ignore, in an image of (width, height)."""

    size: tuple[int, int]
    objects: tuple[Polygons | Rle, ...]
    ignored: tuple[Polygons | Rle, ...]
    where: str


@dataclass(frozen=True)
class Truth:
    """True boxes and masks of photos, by id.

    Attributes:
        source: the file or kind of file that they come from; "" without one.
        boxes: (K, 4) for each photo that has boxes.
        masks: the argument of ``load_mask`` for each photo that has a mask.
        sizes: (width, height) at which boxes were drawn, if the source gives it.
        load_mask: decodes a mask, if there are masks.
        box_sources: for each photo, ``FILE:LINE`` of each of its boxes, if known.
        remarks: lines about what was left out or is suspicious.
    """

    source: str = ""
    boxes: Mapping[str, Boxes] = field(default_factory=dict)
    masks: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    load_mask: Callable[[Any], Image] | None = None
    box_sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def truth(
    found: Mapping[str, Annotated], classes: Mapping[str, str], source: str, load_mask: Callable[[Any], Image]
) -> Truth:
    """True boxes and masks of photos from their annotations.

    If any object has the name of a class, only objects of the photo's own class count. Otherwise all objects count.

    Args:
        found: annotations by a photo's id.
        classes: the class of each of these photos, and of those that have no annotation.
        source: the file or kind of file, for messages.
        load_mask: decodes :class:`Shapes`.

    Raises:
        InputError: a photo without an object of its class, or a box outside the photo.
    """
    chosen, remarks = _of_class(found, classes)
    boxes: dict[str, Boxes] = {}
    overhang = Overhang()
    for name, objects in chosen.items():
        clipped = [clip(np.array([each.box]), found[name].size, each.where) for each in objects if not each.crowd]
        if not clipped:
            raise InputError(
                f"{source}: {name}: no object of its class, {classes[name]} (found: "
                f"{names.first_few({each.name for each in found[name].objects}) or 'none'})"
            )
        boxes[name] = np.concatenate([box for box, _ in clipped])
        overhang = sum((over for _, over in clipped), overhang)
    masks, left = _shapes(found, chosen)
    return Truth(
        source,
        boxes,
        masks,
        {name: found[name].size for name in chosen},
        load_mask,
        remarks=tuple(line for line in (*remarks, overhang.remark, left) if line),
    )


def _of_class(
    found: Mapping[str, Annotated], classes: Mapping[str, str]
) -> tuple[dict[str, Sequence[Object]], tuple[str, ...]]:
    """The objects of each photo that count, and remarks about the others."""
    every = {each.name for annotated in found.values() for each in annotated.objects}
    if not {_key(name) for name in every} & {_key(name) for name in classes.values()}:
        remark = f"objects are called {names.first_few(every)}, which is no class: every object counts for its photo"
        return {name: annotated.objects for name, annotated in found.items()}, (remark,) if every else ()
    chosen = {
        name: [each for each in annotated.objects if _key(each.name) == _key(classes[name])]
        for name, annotated in found.items()
    }
    count = sum(map(len, chosen.values())) - sum(len(annotated.objects) for annotated in found.values())
    return dict(chosen), (f"{-count} objects of another class than their photo's are left out",) if count else ()


def _shapes(found: Mapping[str, Annotated], chosen: Mapping[str, Sequence[Object]]) -> tuple[dict[str, Shapes], str]:
    """A mask of each photo if every object has a shape, and a remark if only some have."""
    objects = [each for objects_of_photo in chosen.values() for each in objects_of_photo if not each.crowd]
    bare = next((each for each in objects if each.shape is None), None)
    if bare is not None:
        some = sum(each.shape is not None for each in objects)
        return {}, f"{some} of {len(objects)} objects have a shape, {bare.where} has none: no masks" if some else ""
    return {
        name: Shapes(
            found[name].size,
            tuple(each.shape for each in objects_of_photo if each.shape is not None and not each.crowd),
            tuple(each.shape for each in objects_of_photo if each.shape is not None and each.crowd),
            objects_of_photo[0].where,
        )
        for name, objects_of_photo in chosen.items()
    }, ""


def side(value: Any) -> TypeGuard[int]:
    """Whether a value is a photo's width or height."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIDE


def numbers(values: Any, counts: Collection[int] = ()) -> TypeGuard[list[float]]:
    """Whether values are a list of finite numbers of plausible size, of one of these lengths if any is given."""
    return (
        isinstance(values, list)
        and (not counts or len(values) in counts)
        and all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= LARGEST_NUMBER for x in values)
    )


def _key(name: str) -> str:
    """A key that is equal for names that only differ in case, spaces or Unicode normal form."""
    return " ".join(names.nfc(name).casefold().replace("_", " ").split())
