"""Read untrusted YAML safely: only text, finite numbers, lists and mappings, and only a limited number of them.

YAML can construct objects, and a few lines of nested aliases can fill any memory. Tags that construct objects are
refused, and aliases are counted as if written out before anything is constructed.
"""

import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from eil.core.files import InputError

MOST_CHARACTERS: Final = 1_000_000
MOST_VALUES: Final = 100_000  # a study of a thousand runs has about a hundred values
MOST_LEVELS: Final = 20
_LONGEST_INT: Final = 2**63


def read(text: str) -> Any:
    """Parse a YAML document.

    Raises:
        InputError: it is not YAML, constructs an object, gives a key twice, or is too large.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"is longer than {MOST_CHARACTERS:,} characters")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_bounded(node)
        return loader.construct_document(node)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"not YAML: nested deeper than {MOST_LEVELS} levels") from None
    except Exception as error:  # such as a date with month 13 or a tag on the wrong text: many unrelated exceptions
        raise InputError(f"not YAML: {error or type(error).__name__}") from None


def load(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, or as in :func:`read`; the message starts with the file.
    """
    try:
        with path.open("rb") as file:
            return read(file.read(4 * MOST_CHARACTERS + 1).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def require(content: Any) -> None:
    """Refuse content that a study cannot hold.

    Raises:
        InputError: a value of another type, a number that is not finite, or too many values; the message says where.
    """
    waiting, count = [("", 0, content)], 1
    while waiting:
        path, level, value = waiting.pop()
        if text := _fault(value, level):
            raise InputError(f"{path}: {text}" if path else text)
        inner = [(_joined(path, step), level + 1, each) for step, each in _inner(value)]
        count += len(inner)
        if count > MOST_VALUES:
            raise InputError(f"{path}: more than {MOST_VALUES:,} values, aliases written out")
        waiting += inner


def _require_bounded(node: yaml.Node) -> None:
    """Count the nodes of a document as if every alias were written out."""
    waiting, count = [node], 1
    while waiting:
        node = waiting.pop()
        found = node.value
        if isinstance(found, str):
            continue
        if isinstance(node, yaml.MappingNode):
            _require_each_key_once(node)
        inner = [each for entry in found for each in (entry if isinstance(entry, tuple) else (entry,))]
        count += len(inner)
        if count > 2 * MOST_VALUES:  # a key is a node as well
            raise InputError(f"more than {MOST_VALUES:,} values, aliases written out")
        waiting += inner


def _require_each_key_once(mapping: yaml.MappingNode) -> None:
    """YAML's parser would take the last of two equal keys without a word."""
    lines: dict[str, int] = {}
    for key, _ in mapping.value:
        line = key.start_mark.line + 1
        if isinstance(key.value, str):
            if key.value in lines:
                raise InputError(f"line {line}: {key.value} is given twice, first in line {lines[key.value]}")
            lines[key.value] = line


def _inner(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _fault(value: Any, level: int) -> str:
    """What is wrong with a value itself, not with its elements; "" if nothing."""
    text = ""
    if level > MOST_LEVELS:
        text = f"nested deeper than {MOST_LEVELS} levels"
    elif isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str) or _has_controls(key)]
        text = f"a key that is not plain text: {shown(odd[0])}" if odd else ""
    elif isinstance(value, str):
        text = f"{shown(value)}: text with control characters" if _has_controls(value) else ""
    elif isinstance(value, float):
        text = "" if math.isfinite(value) else f"{value}: expected a finite number"
    elif isinstance(value, int):
        text = "" if abs(value) < _LONGEST_INT else "an integer of more than 64 bits"
    elif value is not None and not isinstance(value, list | tuple):
        text = f"{shown(value)}: expected text (in quotes if it looks like a date), a number, true, false or null"
    return text


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def shown(value: object) -> str:
    """A value as a message shows it: its repr, shortened to 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def in_a_line(error: Exception) -> str:
    """An error in one line, without torch's advice to unpickle untrusted files."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].partition(" Please use")[0]
    return " ".join(f"{type(error).__name__}: {text}".split())[:300]
