"""Hashes of sources: when one of them changes, what it made is stale.

A source counts with all that it imports from its own package and this one, in functions too, and by its meaning:
comments, docstrings and layout change no hash.
"""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

_OWN = ("eil", "baselines")


@functools.cache
def digest(*modules: str, without: str = "") -> str:
    """Hash of these modules and of all that they import of their own packages, as they were when first asked for.

    Args:
        modules: by name.
        without: a package that is left out, with what it alone imports.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found or f"{name}.".startswith(f"{without}.") else _path(name)
        if path is None:
            continue
        found[name] = _meaning(path)
        own = {*_OWN, name.split(".")[0]}
        waiting += [each for each in _imported(path) if each.split(".")[0] in own]
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


@functools.cache
def _path(name: str) -> Path | None:
    """The file of a module; None if it is no module (a name within one, say). Nothing is imported to find it."""
    top, *rest = name.split(".")
    if not top or (not rest and top in _OWN):  # these hold the version alone
        return None
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    inside = Path(spec.origin).parent.joinpath(*rest)
    candidates = (inside.with_suffix(".py"), inside / "__init__.py") if rest else (Path(spec.origin),)
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _imported(path: Path) -> tuple[str, ...]:
    """Names of modules that a file imports; of ``from a import b`` both a and a.b, whichever are modules."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return tuple(dict.fromkeys(names()))


@functools.cache
def _meaning(path: Path) -> str:
    """Hash of a file's syntax tree without docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
