"""Resolve the paths in a study: relative to the study's file, with ``~`` and environment variables.

``$NAME`` and ``${NAME}`` stand for environment variables, ``$$`` for a dollar sign. Which keys are paths:
``dataset.root``, those settings of a reader that are annotated as paths, and FILE in ``FILE@sha256:HASH`` of a
backbone's ``pretrained`` and of its methods' ``checkpoint``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from eil.core import registry
from eil.core.files import InputError, expand_home
from eil.core.run import LOCAL_WEIGHTS

Change = Callable[[str, str], str]  # (path, key) -> path


def absolute(path: str, folder: Path, key: str) -> str:
    """Make a study's path absolute.

    Args:
        path: as written in the study.
        folder: folder that the path is relative to.
        key: its key in the study, for the message.

    Raises:
        InputError: the path is empty, or names an environment variable that is missing or empty.
    """
    try:
        found = Template(path).substitute({name: value for name, value in os.environ.items() if value})
    except KeyError as error:
        raise InputError(f"{key} = {path}: the environment variable {error.args[0]} is not set, or empty") from None
    except ValueError:
        raise InputError(f"{key} = {path}: expected $NAME or ${{NAME}}, or $$ for a dollar sign") from None
    if not found:
        raise InputError(f"{key}: empty, expected a path")
    whole = (folder / expand_home(Path(found), key)).absolute()
    tidy = Path(os.path.normpath(whole))  # without "..", unless it follows a link and so means another folder
    return str(tidy if tidy.resolve() == whole.resolve() else whole)


def located(content: Any, folder: Path, reader: object = None) -> Any:
    """A study's content with absolute paths; wrong content is left for the later check.

    Args:
        content: content of a study's file, or a part of it.
        folder: folder that relative paths are relative to.
        reader: ``dataset.name``, if ``content`` lacks it.

    Raises:
        InputError: as in :func:`absolute`; the message starts with the key.
    """
    return _changed(content, lambda path, key: absolute(path, folder, key), reader)


def merged(parts: Sequence[tuple[str, Path, Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge a study from several files with absolute paths; later files override earlier ones.

    Args:
        parts: for each file the start of error messages, the folder of its relative paths, and its content.

    Raises:
        InputError: as in :func:`absolute`; the message starts with the file and the key.
    """
    whole: dict[str, Any] = {}
    for _, _, content in parts:
        whole = over(whole, content)
    reader = whole["dataset"].get("name") if isinstance(whole.get("dataset"), Mapping) else None
    found: dict[str, Any] = {}
    for source, folder, content in parts:
        try:
            found = over(found, located(content, folder, reader))
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return found


def over(below: Any, above: Any) -> Any:
    """Merge mappings recursively; ``above`` overrides ``below``."""
    if not isinstance(above, Mapping):
        return above
    below = below if isinstance(below, Mapping) else {}
    return {**below, **{key: over(below.get(key), value) for key, value in above.items()}}


def escaped(content: Any) -> Any:
    """A study's content with escaped dollar signs in its paths; :func:`located` reverses this."""
    return _changed(content, lambda path, _: path.replace("$", "$$"))


def _changed(content: Any, change: Change, reader: object = None) -> Any:
    if not isinstance(content, Mapping):
        return content
    changed = dict(content)
    if isinstance(chosen := content.get("dataset"), Mapping):
        changed["dataset"] = _dataset(chosen, change, reader)
    if isinstance(backbones := content.get("backbones"), Mapping):
        changed["backbones"] = {name: _backbone(name, choice, change) for name, choice in backbones.items()}
    return changed


def _dataset(chosen: Mapping[str, Any], change: Change, reader: object) -> dict[str, Any]:
    name = chosen.get("name", reader)
    places = {"root", *(registry.location_settings(name) if isinstance(name, str) else ())}
    return {key: _value(value, change, f"dataset.{key}") if key in places else value for key, value in chosen.items()}


def _backbone(name: str, choice: Any, change: Change) -> Any:
    place = f"backbones.{name}"
    changed = _weights(choice, "pretrained", place, change)
    if isinstance(changed, Mapping) and isinstance(methods := changed.get("methods"), Mapping):
        found = {key: _weights(each, "checkpoint", f"{place}.methods.{key}", change) for key, each in methods.items()}
        return {**changed, "methods": found}
    return changed


def _weights(given: Any, key: str, place: str, change: Change) -> Any:
    """A mapping with the path of ``FILE@sha256:HASH`` under a key changed; other content is left as it is."""
    weights = given.get(key) if isinstance(given, Mapping) else None
    if not isinstance(weights, str) or not LOCAL_WEIGHTS.fullmatch(weights):
        return given
    path, _, digest = weights.rpartition("@sha256:")
    return {**given, key: f"{change(path, f'{place}.{key}')}@sha256:{digest}"}


def _value(value: Any, change: Change, key: str) -> Any:
    """A path, or each of a list or a mapping of paths."""
    if isinstance(value, str):
        return change(value, key)
    if isinstance(value, list | tuple):
        return [_value(each, change, f"{key}[{k}]") for k, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {name: _value(each, change, f"{key}.{name}") for name, each in value.items()}
    return value
