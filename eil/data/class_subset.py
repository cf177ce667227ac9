"""Subsets of a data set's classes: selection by name or id, and texts such as "20 of 200 classes".

Scores on a subset do not compare with scores on the full data set, so the full size is kept with every subset.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from eil.core.files import InputError

NAMED: Final = 3  # classes of a long list that are written out


class FullSize(NamedTuple):
    """Published size of a full data set: classes and test images."""

    classes: int
    test: int


# Wah et al. 2011; Russakovsky et al. 2015; Choe et al. 2020 (OpenImages30k); Le and Yang 2015.
FULL_SIZES: Final[Mapping[str, FullSize]] = {
    "cub": FullSize(200, 5_794),
    "ilsvrc": FullSize(1_000, 50_000),
    "openimages": FullSize(100, 5_000),
    "tiny_imagenet": FullSize(200, 10_000),
}


def _require_choice(value: Any) -> Any:
    """Accept a number or a list. A pydantic union would report one error for each of its types."""
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 2
    listed = isinstance(value, list | tuple) and len(value) >= 2
    if not number and not (listed and all(type(each) in (str, int) for each in value)):
        raise PydanticCustomError(
            "classes", "expected a number of classes, or a list of their names or ids, 2 or more of them"
        )
    return value


ClassChoice = Annotated[int | tuple[str | int, ...], PlainValidator(_require_choice)]


def positions(wanted: Sequence[str | int], names: Sequence[str], ids: Sequence[str], source: str) -> list[int]:
    """Positions of the listed classes, in the order of the data set.

    Args:
        wanted: names or ids; a number is an id, and so is its text, with leading zeros or without.
        names: of all classes.
        ids: of all classes.
        source: the data set's name, for messages.

    Raises:
        InputError: an unknown class (the message has similar names), an ambiguous name, or a class listed twice.
    """
    found: dict[int, str | int] = {}
    for k, each in enumerate(wanted):
        place = f"dataset.classes[{k}] = {each}"
        same = _matches(str(each), names, ids)
        if not same:
            raise InputError(f"{place}: {source} has no such class; {_closest(str(each), names, ids)}")
        if len(same) > 1:
            raise InputError(
                f"{place}: {len(same)} classes have this name; their ids: {', '.join(ids[i] for i in same)}"
            )
        if same[0] in found:
            raise InputError(f"{place}: is the same class as {found[same[0]]}")
        found[same[0]] = each
    return sorted(found)


def describe_count(classes: int, whole: int | None) -> str:
    """``20 of 200 classes``, or ``200 classes`` if they are all."""
    return f"{classes} of {whole} classes" if whole is not None and whole > classes else f"{classes} classes"


def abbreviated(listed: Sequence[object]) -> str:
    """A list for a table: its length and its first items."""
    dots = ", …" if len(listed) > NAMED else ""
    return f"{len(listed)}: {', '.join(map(str, listed[:NAMED]))}{dots}"


def _matches(wanted: str, names: Sequence[str], ids: Sequence[str]) -> list[int]:
    named = [i for i, name in enumerate(names) if name == wanted]
    same = [i for i, text in enumerate(ids) if text == wanted]
    if same and (not named or set(same) <= set(named)):  # an id is unique where a name is not
        return same
    if named or not wanted.isdecimal():
        return named
    return [i for i, text in enumerate(ids) if text.isdecimal() and int(text) == int(wanted)]


def _closest(wanted: str, names: Sequence[str], ids: Sequence[str]) -> str:
    known = list(dict.fromkeys([*names, *ids]))
    close = [] if wanted.isdecimal() else difflib.get_close_matches(wanted, known, NAMED, cutoff=0.5)
    return f"closest: {', '.join(close)}" if close else f"it has {abbreviated(ids)}"
