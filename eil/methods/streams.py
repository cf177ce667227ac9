"""Run several streams through the same layers, jointly, in turn or frozen, and choose what batch norm sees."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eil.core.settings import SettingError

Streams = Literal["joint", "sequential"]
BatchNorm = Literal["joint", "sequential", "unerased_only"]


def forward_streams(
    model: nn.Module, layers: Callable[[Tensor], Tensor], streams: Sequence[Tensor], mode: Streams, bn: BatchNorm
) -> list[Tensor]:
    """The same layers on every stream.

    Args:
        model: holds the batch norms of ``layers``.
        layers: one function for all streams, with shared weights: (B, K, h, w) -> (B, ...).
        streams: the unerased features, then the erased ones, (B, K, h, w) each.
        mode: "joint" runs all streams as one batch; "sequential" runs them in turn, the erased ones first, as the
            authors' code does. Results differ with batch norm only.
        bn: see :func:`check_bn`.

    Returns:
        The output of each stream, (B, ...), in the order of ``streams``.
    """
    if mode == "joint":
        return list(layers(torch.cat(list(streams))).chunk(len(streams)))
    with frozen_running_averages(model) if bn == "unerased_only" else contextlib.nullcontext():
        erased = [layers(stream) for stream in streams[1:]]
    return [layers(streams[0]), *erased]


def check_bn(bn: BatchNorm | None, mode: Streams) -> BatchNorm:
    """What batch norm sees of the streams.

    Args:
        bn: "joint": statistics of all streams at once; "sequential": of each stream by itself; "unerased_only": of
            each stream by itself, but only the unerased one updates the running averages. None: as ``mode``.
        mode: see :func:`forward_streams`.

    Returns:
        ``bn``, or the default.

    Raises:
        SettingError: "joint" with sequential streams, or another value with joint ones.
    """
    if bn is not None and (bn == "joint") != (mode == "joint"):
        raise SettingError("bn", bn, f"does not go with streams = {mode}")
    return bn or mode


@contextlib.contextmanager
def frozen_running_averages(module: nn.Module) -> Iterator[None]:
    """Batch norm uses the batch's statistics, but does not update its running averages."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def forward_frozen(model: nn.Module, layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run layers with their parameters as constants, and without changing a buffer: gradients reach ``x`` alone.

    Args:
        model: holds the parameters and buffers of ``layers``; in training batch norm uses the batch's statistics.
        layers: a function of ``model``'s modules, (B, K, h, w) -> (B, ...).
        x: (B, K, h, w).

    Returns:
        The same values as ``layers(x)``.
    """
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    found: Tensor = functional_call(_Layers(model, layers), {f"model.{name}": each for name, each in state.items()}, x)
    return found


class _Layers(nn.Module):
    """A function of a model's modules as a module."""

    def __init__(self, model: nn.Module, layers: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, h, w) -> (B, ...)."""
        return self.layers(x)
