"""State dicts from files: inside a checkpoint, prefixed by DataParallel, with any classifier or none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."  # of DataParallel and DistributedDataParallel
COUNTER = ".num_batches_tracked"  # of batch norm; older files lack it, and nothing here uses it
_SHOWN = 3


class IncompatibleTensors(ValueError):
    """The tensors do not fit the network; the message says what was expected and what was found."""


def unwrapped(content: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint, from its ``state_dict`` or ``model``, without the prefix ``module.``.

    Args:
        content: of a file.

    Raises:
        IncompatibleTensors: no state dict, or two.
    """
    while isinstance(content, Mapping):
        inner = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if len(inner) > 1:
            raise IncompatibleTensors(f"expected one state dict, found {' and '.join(inner)}")
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping):
        raise IncompatibleTensors(f"expected a state dict, found {type(content).__name__}")
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise IncompatibleTensors(f"expected a state dict, found no tensors but {_listed(map(str, content))}")
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def required_tensors(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], without: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors of a state dict that a network needs.

    Args:
        found: the state dict.
        wanted: the network's state dict, for names, shapes and types.
        without: prefixes of the tensors that are ignored in both: the classifier's.

    Raises:
        IncompatibleTensors: names, shapes or types differ; the message names the first few.
    """
    needed = {name: value for name, value in wanted.items() if not name.startswith(without)}
    given = {name: value for name, value in found.items() if not name.startswith(without)}
    missing = [name for name in needed if name not in given and not name.endswith(COUNTER)]
    unknown = [name for name in given if name not in needed]
    if missing or unknown:
        expected = f"expected {_listed(missing)}" if missing else "expected nothing besides the network's"
        raise IncompatibleTensors(f"{expected}, found {_listed(unknown or given)}")
    other = [name for name, value in given.items() if kind_of(value) != kind_of(needed[name])]
    if other:
        expected, there = (_listed(f"{name} {kind_of(each[name])}" for name in other) for each in (needed, given))
        raise IncompatibleTensors(f"expected {expected}, found {there}")
    return given


def kind_of(value: Tensor) -> str:
    """Shape, and the type if it is not a float or int64: half precision fits, quantised weights do not."""
    kind = "" if value.is_floating_point() or value.dtype == torch.int64 else f" {value.dtype}"
    return f"({', '.join(map(str, value.shape))}){kind}"


def _listed(names: Any) -> str:
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "") or "nothing"
