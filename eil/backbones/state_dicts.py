"""State dicts as people keep them: wrapped in a checkpoint, prefixed by DataParallel, with any classifier or none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."  # of DataParallel and DistributedDataParallel
_OPTIONAL = ".num_batches_tracked"  # a counter that older files lack and that nothing here reads
_SHOWN = 3


class NotFitting(ValueError):
    """The tensors are not those that a network needs; the message says what was expected and what was found."""


def unwrapped(content: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint: under ``state_dict`` or ``model`` if it is wrapped, without ``module.``.

    Args:
        content: what a file holds.

    Raises:
        NotFitting: there is none, or there are two.
    """
    while isinstance(content, Mapping):
        inner = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if len(inner) > 1:
            raise NotFitting(f"expected one state dict, found {' and '.join(inner)}")
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping):
        raise NotFitting(f"expected a state dict, found {type(content).__name__}")
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise NotFitting(f"expected a state dict, found no tensors but {_listed(map(str, content))}")
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def fitting(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], without: tuple[str, ...]) -> dict[str, Tensor]:
    """What of a state dict a network needs.

    Args:
        found: the state dict.
        wanted: that of the network, for names, shapes and kinds.
        without: prefixes of what is left out of both, the classifier's.

    Raises:
        NotFitting: names, shapes or kinds differ; the first of each are named.
    """
    needed = {name: value for name, value in wanted.items() if not name.startswith(without)}
    given = {name: value for name, value in found.items() if not name.startswith(without)}
    missing = [name for name in needed if name not in given and not name.endswith(_OPTIONAL)]
    unknown = [name for name in given if name not in needed]
    if missing or unknown:
        expected = f"expected {_listed(missing)}" if missing else "expected nothing besides the network's"
        raise NotFitting(f"{expected}, found {_listed(unknown or given)}")
    other = [name for name, value in given.items() if _kind(value) != _kind(needed[name])]
    if other:
        expected, there = (_listed(f"{name} {_kind(each[name])}" for name in other) for each in (needed, given))
        raise NotFitting(f"expected {expected}, found {there}")
    return given


def _kind(value: Tensor) -> str:
    """Shape, and what is no real number: halves are taken, quantised weights are not."""
    kind = "" if value.is_floating_point() or value.dtype == torch.int64 else f" {value.dtype}"
    return f"({', '.join(map(str, value.shape))}){kind}"


def _listed(names: Any) -> str:
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "") or "nothing"
