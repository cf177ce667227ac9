"""Settings: the keyword-only arguments of a constructor or function; their types are the schema."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from eil.core import safe_yaml

# A list in a study is an axis of its grid: [a, b] means a in one run and b in another.
LIST_HINT = "; a setting that is itself a list goes in a list of one: [[...]]"


class SettingError(ValueError):
    """A setting has a value that cannot be used.

    Args:
        setting: its name.
        value: the value.
        expected: what was expected, as it follows "gamma = 1.4: ".
    """

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(f"{setting} = {value}: {expected}")
        self.setting, self.value, self.expected = setting, value, expected


class IncompatibleSetting(ValueError):
    """Valid settings that make no sense together, on this backbone; a study's grid leaves them out and says why."""


@functools.cache  # to make a model takes longer than to use it for a run
def schema(factory: Callable[..., object]) -> type[BaseModel]:
    """The keyword-only parameters of ``factory`` as a strict pydantic model (unknown keys are errors)."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    hints = get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(factory.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def problems(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line per problem: ``recipe.epochs = -3: Input should be greater than 0``.

    Args:
        error: from validating ``model``.
        model: its keys are listed where a key is unknown.
        prefix: put before every key.
    """
    lines = []
    for problem in error.errors():
        path = prefix
        for step in problem["loc"]:
            path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
        if problem["type"] == "missing":
            lines.append(f"{path}: missing")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown key (known: {', '.join(_keys(model, problem['loc'])) or 'none'})")
        else:
            text = problem["msg"].removeprefix("Value error, ") + _hint(problem["type"], path)
            lines.append(f"{path} = {safe_yaml.shown(problem['input'])}: {text}" if path else text)
    return lines


def _hint(kind: str, path: str) -> str:
    """A setting of a method stands below others, a list of the study does not."""
    if kind != "tuple_type":
        return ""
    return LIST_HINT if "." in path else "; a list stands in brackets: [...]"


def check(factory: Callable[..., object], settings: Mapping[str, Any], prefix: str) -> list[str]:
    """Problems of ``settings`` as arguments of ``factory``, one per line; for an unknown key the known ones are listed.

    Types are strict, as in JSON: '0.5' is not a number; a list is a tuple, and text is a path.
    """
    model = schema(factory)
    try:
        model.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        return problems(error, model, prefix)
    return []


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Known keys at the level of the key at ``place``."""
    kind: Any = model
    for step in place[:-1]:
        inside = inspect.isclass(kind) and issubclass(kind, BaseModel)
        kind = kind.model_fields[step].annotation if inside else get_args(kind)[-1]  # a mapping: the type of its values
        if type(None) in get_args(kind):  # an optional setting
            kind = next(each for each in get_args(kind) if each is not type(None))
    return list(kind.model_fields)
