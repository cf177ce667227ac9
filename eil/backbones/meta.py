"""Networks without memory: shapes and settings are checked with them at the start of every command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _SkipInitialisation(TorchFunctionMode):
    """Leave tensors as they are instead of filling them with random numbers.

    To fill a tensor on the meta device torch first loads its compiler: 1.4 s of processor time.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, unless it only fills a tensor."""
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def meta_tensors() -> Iterator[None]:
    """Create tensors on the meta device inside the block, with shapes but without values."""
    with torch.device("meta"), _SkipInitialisation():
        yield
