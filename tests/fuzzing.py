"""Helpers of the fuzz tests: the number of inputs, what counts as a refusal, and how files are damaged.

Every fuzz test runs on a few dozen inputs, the same in every run, and with ``-m slow`` on thousands of new ones. Each
input must give a right result, or an error that names the file. Any other exception is a fault, and so is an input that
takes 20 seconds or 2 GB (fixture bounded_memory).
"""

import copy
import faulthandler
import json
import math
import re
import signal
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eil.core.files import InputError
from eil.core.settings import SettingError

T = TypeVar("T")
SECONDS = 20


class Hang(BaseException):
    """An input took too long. It is no Exception, so that no reader mistakes it for a damaged file."""


class File(bytes):
    """A file's content, shortened in messages."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes: {bytes(self[:200])!r}"


def thoroughly(quick: int, slow: int) -> Any:
    """Parametrize a test with its number of inputs: ``quick`` by default, ``slow`` with ``-m slow``."""
    return pytest.mark.parametrize("inputs", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def fuzz(inputs: int, holds: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Check ``holds`` on random inputs; fewer than 100 are the same in every run."""
    few = inputs < 100
    chosen = settings(
        max_examples=inputs, deadline=None, derandomize=few, database=None, suppress_health_check=list(HealthCheck)
    )
    chosen(given(*strategies)(holds))()


def outcome(act: Callable[[], T], *names: str) -> T | None:
    """A reader's result, or None if it refuses; a refusal names the file and does not come from a lack of memory."""

    def hang(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # compiled code that hangs heeds no signal
    try:
        return act()
    except (InputError, SettingError) as error:
        assert any(name in str(error) for name in names), error
        assert len(str(error)) < 100_000
        cause: BaseException | None = error
        while cause is not None:
            assert "allocate" not in str(cause), error
            cause = cause.__context__
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


# What stands where something else is expected.
ODD: list[Any] = [
    *(
        "",
        "0.5",
        "1e-3",
        "../../x",
        "/etc/passwd",
        "a" * 300,
        "9" * 5000,
        "\0",
        "\x1b[2J",
        "\ud800",
        "é",
        "²",
        "٣",
        "nan",
    ),
    *(
        "cam",
        "eil",
        "vgg_small",
        "pool9",
        "__class__",
        "os.system",
        "self",
        "<<",
        None,
        True,
        0,
        -1,
        2**31,
        2**70,
        1e308,
    ),
    *(-(10**4000), math.nan, math.inf, [], {}, [[]], [[[0.5]]], {"a": {}}, [0.5, 0.5], [None], [{}], {"": ""}),
    *(
        list(range(1000)),
        [k / 1000 for k in range(1, 1000)],
        [[k] for k in range(200)],
        {str(k): {} for k in range(300)},
    ),
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(ODD))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
YAML = st.one_of(JSON, st.dates(), st.datetimes(), st.binary(max_size=5), st.sets(st.integers(), max_size=3))


@st.composite
def spoilt(draw: st.DrawFn, content: Any, junk: st.SearchStrategy[Any], shared: bool = False) -> Any:
    """A copy of what a file holds, with one to three places changed; ``shared`` may make it refer to itself."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            return content
        container, key = draw(st.sampled_from(places))
        act = draw(st.sampled_from(["replace", "replace", "delete", "rename", "wrap", "repeat", "share"]))
        if act == "replace":
            container[key] = copy.deepcopy(draw(junk))
        elif act == "delete":
            del container[key]
        elif act == "wrap":
            container[key] = [container[key]]
        elif act == "share":
            other, place = draw(st.sampled_from(places))
            container[key] = other[place] if shared and place in _keys(other) else copy.deepcopy(draw(junk))
        elif isinstance(container, list):
            container += container[:5]
        else:
            container[draw(st.text(max_size=5)) if act == "rename" else "x"] = container.pop(key)
    return content


def _keys(container: Any) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every place of a nested content, as its container and its key there."""
    if depth > 6 or not isinstance(content, dict | list):
        return
    for key in list(_keys(content)):
        yield content, key
        yield from _places(content[key], depth + 1)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, early: int = 0) -> bytes:
    """Bytes of a file, one to four of their places changed; half of these among the first ``early`` ones."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        end = early if early and draw(st.booleans()) else len(found)
        at = draw(st.integers(0, max(0, min(end, len(found)) - 1)))
        act = draw(st.sampled_from(["flip", "write", "insert", "delete", "cut", "number"]))
        if act == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif act == "write":
            piece = draw(st.binary(min_size=1, max_size=8))
            found[at : at + len(piece)] = piece
        elif act == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif act == "delete":
            del found[at : at + draw(st.integers(1, 20))]
        elif act == "cut":
            del found[at:]
        else:
            found[at : at + 8] = struct.pack("<q", draw(st.sampled_from([0, -1, 2**31 - 1, 2**31, 2**40, 2**63 - 1])))
    return File(found)


# What stands in a list.
WORDS = [
    *("nan", "inf", "-inf", "-1", "0", "1", "2", "99", "9" * 12, "9" * 30, "9" * 5000, "1e400", "1e308", "-1e308"),
    *("", "1.5", "1_0", "²", "٣", "é", "\0", "\ufeff", "\u2028", "\x1c", ".", "..", "../../x", "/etc/passwd", "a\\b"),
    *(",", ",,,,", '"', '"a', " ", "\t", "\r", "\n", "\n\n", "n00000000", "&a;", "<a>", "</a>", "<!--"),
    *("a" * 300, "b/" * 3000, "x" * 200_000),
]
ENTITIES = [f"<!ENTITY a{k} '{f'&a{k - 1};' * 10}'>" for k in range(1, 12)]
XML = [
    f"<!DOCTYPE a [<!ENTITY a0 'x'>{''.join(ENTITIES)}]><annotation>&a11;</annotation>".encode(),
    b"<?xml version='1.0' encoding='utf-7'?><annotation/>",
    b"<?xml version='1.0' encoding='none'?><annotation/>",
    b"<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><annotation><size><width>&a;</width></size></annotation>",
    File(b"<object>" * 100_000),
    b"",
]


@st.composite
def relisted(draw: st.DrawFn, whole: bytes) -> bytes:
    """A list with some of its words or lines changed, or any of its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.one_of(damaged(whole), st.binary(max_size=30), st.sampled_from(XML)))
    text = whole.decode()
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            words = [match.span() for match in re.finditer(r"[^\s,<>]+", text)] or [(0, 0)]
            start, end = draw(st.sampled_from(words))
            text = text[:start] + draw(st.sampled_from(WORDS) | st.text(max_size=8)) + text[end:]
        else:
            lines = text.splitlines() or [""]
            at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            act = draw(st.sampled_from(["delete", "repeat", "swap", "only", "none"]))
            if act == "swap":
                lines[at], lines[other] = lines[other], lines[at]
            else:
                lines[at : at + 1] = {"delete": [], "repeat": [lines[at]] * 2, "only": [lines[other]], "none": [""]}[
                    act
                ]
            text = "\n".join(lines)
    return File(text.encode("utf-8", "replace"))
