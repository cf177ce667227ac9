"""Streams through the same layers: together in one batch or in turn, and what batch norm sees of each."""

import contextlib
from collections.abc import Iterator
from typing import Literal

from torch import nn

Streams = Literal["joint", "sequential"]
BatchNorm = Literal["joint", "sequential", "unerased_only"]


@contextlib.contextmanager
def running_averages_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by batch statistics without moving its running averages."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
