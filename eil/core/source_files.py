"""What a Python file means and what it imports, remembered between processes.

To parse the project takes half a second, which each step of each run would spend again.
"""

import ast
import contextlib
import functools
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from eil.core import user_cache
from eil.core.files import write_json

# A file may change twice within one tick of the clock that dates it, and within one size.
_SECONDS_UNTIL_SETTLED: Final = 2.0


class SourceFile(NamedTuple):
    """What is known of a Python file.

    Attributes:
        meaning: hash of its syntax tree without docstrings.
        imports: names of the modules that it imports, inside functions too.
    """

    meaning: str
    imports: tuple[str, ...]


_parsed: dict[Path, SourceFile] = {}  # those that were read in this process
_fresh: dict[str, list[object]] = {}  # those of them that the cache does not know yet, as it stores them


def parse(path: Path) -> SourceFile:
    """Parse a Python file, or recall what an earlier process found in it; later calls give the first call's answer."""
    if path not in _parsed:
        _parsed[path] = _recalled(path) or _parse(path)
    return _parsed[path]


def forget() -> None:
    """Look at all files again."""
    _parsed.clear()
    _fresh.clear()
    _stored.cache_clear()


def remember() -> None:
    """Store what was parsed in this process for later ones."""
    if _fresh:
        # Read again, to keep what an earlier call and other processes have stored since the first reading.
        known = {path: found for path, found in _read().items() if Path(path).exists()}
        with contextlib.suppress(OSError):  # a full disk, say: only time is lost
            write_json(_cache(), known | _fresh)
        _fresh.clear()


def _recalled(path: Path) -> SourceFile | None:
    with contextlib.suppress(KeyError, TypeError, ValueError):  # unknown, or damaged
        *state, meaning, imports = _stored()[str(path)]
        if state == _state(path):
            return SourceFile(str(meaning), tuple(map(str, imports)))
    return None


def _parse(path: Path) -> SourceFile:
    state = _state(path)
    tree = ast.parse(path.read_bytes())
    imports = tuple(dict.fromkeys(_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    found = SourceFile(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports)
    if time.time() - max(state[:2]) / 1e9 > _SECONDS_UNTIL_SETTLED:
        _fresh[str(path)] = [*state, *found]
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            # ``from baselines import CAM`` imports baselines/cam.py (registry.class_finder).
            yield from (f"{node.module}.{alias.name.lower()}" for alias in node.names)


def _state(path: Path) -> list[int]:
    """Dates of the content and of the file itself in nanoseconds, and size in bytes.

    An archive may give each version of a file the same date of its content; that of the file nobody can set.
    """
    found = path.stat()
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size]


@functools.cache
def _stored() -> dict[str, Any]:
    """What processes had found when this one asked first."""
    return _read()


def _read() -> dict[str, Any]:
    """What processes have found by now: state, meaning and imports, by path."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_cache().read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


@functools.cache
def _cache() -> Path:
    """The file; syntax trees differ between versions of Python, and how they are read differs with this module."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    how = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return user_cache.private_folder("sources") / f"{version}-{how}.json"
