"""Training on several devices: each process's share of a batch, and batch norm over the whole batch.

Every process reads and augments the whole batch and trains on its share, so order and augmentation do not depend on the
number of devices. Torch's DistributedDataParallel averages the gradients.
"""

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from eil.methods.base import Targets

T = TypeVar("T", bound=Targets)


def share(images: Tensor, targets: T, rank: int, world_size: int) -> tuple[Tensor, T]:
    """A process's share of a batch: (B, 3, H, W) -> (B / world_size, 3, H, W), and of targets with B elements."""
    count = len(images)
    rows = slice(rank * count // world_size, (rank + 1) * count // world_size)
    values = {field.name: getattr(targets, field.name) for field in fields(targets)}
    cut = {name: v[rows] for name, v in values.items() if isinstance(v, Tensor) and v.dim() and len(v) == count}
    return images[rows], replace(targets, **cut)


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over all processes on a CPU, where torch's SyncBatchNorm does not run."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        processes = distributed.get_world_size()
        mean = _sum(x.mean(dim=(0, 2, 3))) / processes  # (C,), shares are equal
        centred = x - mean[:, None, None]
        variance = _sum(centred.square().mean(dim=(0, 2, 3))) / processes  # (C,)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            count = x.numel() / x.shape[1] * processes
            momentum = self.momentum or 0.0
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = torch.rsqrt(variance + self.eps)
        found = centred * scale[:, None, None]
        return found * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else found


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        found = values.clone()
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        found = gradients[0].clone()
        distributed.all_reduce(found)
        return found


def _sum(values: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return found


def synchronise_batch_norm(model: nn.Module, on_gpu: bool) -> None:
    """Make every batch norm of a model use the whole batch; names and values of parameters do not change."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is not nn.BatchNorm2d:
                continue
            if on_gpu:
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
            else:
                child.__class__ = CpuSyncBatchNorm  # the class adds no state
