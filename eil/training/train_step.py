"""One training iteration and what it needs: the method in the recipe's precision, the optimizer, the batches."""

import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from eil.core import ranks
from eil.core.run import Recipe, Run
from eil.data import cache
from eil.data.augment import Batch, Batches
from eil.methods import base as methods
from eil.methods.base import Method, Targets
from eil.methods.parameter_groups import parameter_groups
from eil.training import distributed

_log = logging.getLogger(__name__)
_PRECISION = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


def set_up(run: Run, data: Path) -> tuple[Fabric, Any, Any]:
    """Fabric, the run's method wrapped by Fabric, and its optimizer, ready for :func:`train_step`."""
    recipe = run.recipe
    fabric = fabric_of(recipe, recipe.devices)
    fabric.launch()
    model = build(run, data)
    if recipe.devices > 1:
        distributed.synchronise_batch_norm(model, fabric.device.type == "cuda")
    optimizer = optimizer_of(model, recipe)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.compile:
        fast = _compiled(model.loss)
        model.loss = MethodType(lambda _, images, targets: fast(images, targets), model)  # type: ignore[method-assign]
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    wrapped.mark_forward_method("maps")
    return fabric, wrapped, optimizer


def fabric_of(recipe: Recipe, count: int = 1) -> Fabric:
    """Fabric on ``count`` devices in the recipe's precision; TF32 and determinism are set explicitly."""
    products = "tf32" if recipe.precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    exact = not torch.cuda.is_available() if recipe.deterministic is None else recipe.deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at the first product
    torch.use_deterministic_algorithms(exact, warn_only=True)
    # Else PyTorch fills each new tensor with NaN first: up to a tenth of a step, for no other result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = exact
    torch.backends.cudnn.benchmark = not exact  # find the fastest algorithm for each shape; there are few
    here = ranks.local_devices(count)
    # Fabric starts the processes, in a cluster's job too, unless torchrun or srun has started them.
    outside = "RANK" in os.environ or ranks.launched_by_slurm()
    return Fabric(
        accelerator="auto",
        devices=here,
        num_nodes=count // here,
        strategy="ddp" if count > 1 else "auto",
        precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]
        plugins=[] if outside and count > 1 else [LightningEnvironment()],
    )


def optimizer_of(model: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer of a method's parameters, in their groups."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def train_step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batch: Batch,
    recipe: Recipe,
    lap: Callable[[str], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Run one training iteration on a batch, without waiting for the device.

    Args:
        fabric: from :func:`set_up`.
        model: likewise.
        optimizer: likewise.
        batch: images and labels.
        recipe: the run's.
        lap: called with the name of each part of the iteration at its end.

    Returns:
        The parts of the loss.
    """
    images, targets = model.module.augment(batch.images, Targets(batch.labels, batch.masks))
    if fabric.world_size > 1:
        images, targets = distributed.share(images, targets, fabric.global_rank, fabric.world_size)
    with fabric.autocast():  # on one device Fabric uses autocast only for `forward`
        parts: dict[str, Tensor] = model.loss(images, targets)
    lap("forward")
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(parts["total"])
    if recipe.clip_norm is not None:
        fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
    lap("backward")
    optimizer.step()
    lap("optimizer")
    return parts


def lr_factor(recipe: Recipe, epoch: float) -> float:
    """Factor of the learning rate after ``epoch`` epochs, which may be fractional."""
    factor = min(1.0, epoch / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return factor * recipe.decay ** sum(epoch >= milestone for milestone in recipe.milestones)


def build(run: Run, data: Path) -> Method:
    """The run's method on its backbone, with initial weights."""
    return methods.build(
        run.method,
        run.settings,
        run.backbone,
        len(cache.describe(data)["classes"]),
        pretrained=run.pretrained,
        output_stride=run.output_stride,
        network=run.network,
        seed=run.rng_seed,
    )


def batches(run: Run, data: Path, split: str, model: Method, device: torch.device) -> Batches:
    """Batches of a cached split, normalised for the run's backbone."""
    info = model.backbone.info
    images = cache.open_split(data, split)
    return Batches(images, run.recipe.batch_size, run.recipe.crop, info.mean, info.std, device)


def _compiled(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss compiled for static shapes; where compiling fails, the loss itself, with a warning."""
    fast: list[Callable[..., Any]] = [torch.compile(loss, dynamic=False)]

    def act(images: Tensor, targets: Targets) -> Any:
        try:
            return fast[0](images, targets)
        except Exception as error:  # no compiler, an unsupported operation: many unrelated exceptions
            if fast[0] is loss:
                raise
            _log.warning("torch.compile failed, continuing without it: %s", " ".join(str(error).split())[:200])
            fast[0] = loss
            return loss(images, targets)

    return act
