"""Train one run: SGD on Lightning Fabric, a checkpoint an epoch, resumed where it was killed.

Leaves weights.safetensors (bound to the run's settings), history.csv (a row an epoch), train.json and
train.log in the run's folder. The step never waits for the device: the parts of the loss stay there until
the epoch ends, or until a look, every few steps, whether they are still finite.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from eil import backbones
from eil import method as methods
from eil.data import cache
from eil.data.augment import Batches
from eil.files import InputError, replacing, write_json
from eil.method import Method, Targets
from eil.run import Recipe, Run

_log = logging.getLogger(__name__)
_LOOK_EVERY = 20  # steps between two looks whether the loss is finite
PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass
class State:
    """Where a training stands; what a checkpoint holds beside the weights."""

    epoch: int = 0
    best: float = math.inf
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def train(run: Run, data: Path, folder: Path) -> None:
    """Train a run, or go on with it.

    Args:
        run: what to train.
        data: folder of the decoded images.
        folder: the run's folder.

    Raises:
        NotFinite: the loss is no number any more; the step and the parts are named.
        InputError: missing data or pretrained weights, or a control.
    """
    if run.control:
        raise InputError(f"{run.name}: a control has no training; it takes the network of {run.trained.name}")
    started = time.monotonic()
    torch.use_deterministic_algorithms(True, warn_only=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=PRECISION[run.recipe.precision])  # type: ignore[arg-type]
    model = build(run, data)
    optimizer = torch.optim.SGD(
        parameter_groups(model, run.recipe), momentum=run.recipe.momentum, nesterov=run.recipe.momentum > 0
    )
    if run.recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, optimizer = fabric.setup(model, optimizer)
    wrapped.mark_forward_method("loss")
    pretrained = {"pretrained_sha256": backbones.fingerprint(model.backbone)} if run.pretrained else {}
    training = batches(run, data, "train", model, fabric.device)
    checkpoint = folder / "last.ckpt"
    state = _resume(checkpoint, run, model, optimizer)
    while not _finished(state, run.recipe):
        parts = _epoch(fabric, wrapped, optimizer, training, run, state)
        _close_epoch(state, parts, run.recipe)
        _save(checkpoint, run, model, optimizer, state)
    with replacing(folder / "history.csv") as beside:
        pd.DataFrame(state.history).to_csv(beside, index=False)
    save_weights(folder / "weights.safetensors", model, run)
    write_json(folder / "train.json", _summary(state, time.monotonic() - started) | pretrained)
    checkpoint.unlink()  # the weights are whole now; a checkpoint costs twice their size


def parameter_groups(model: Method, recipe: Recipe) -> list[dict[str, Any]]:
    """New layers learn ``head_multiplier`` times as fast; the backbone's, and they alone, at the base rate."""
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    new = [parameter for parameter in model.parameters() if id(parameter) not in backbone]
    base = recipe.learning_rate
    return [
        {
            "params": list(model.backbone.parameters()),
            "base": base,
            "weight_decay": recipe.weight_decay,
            "lr": base,
        },
        {
            "params": new,
            "base": base * recipe.head_multiplier,
            "weight_decay": recipe.weight_decay,
            "lr": base * recipe.head_multiplier,
        },
    ]


def rate(recipe: Recipe, epoch: float) -> float:
    """Factor of the learning rate after ``epoch`` epochs, a fraction within one."""
    factor = min(1.0, epoch / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return factor * recipe.decay ** sum(epoch >= milestone for milestone in recipe.milestones)


def save_weights(path: Path, model: Method, run: Run) -> None:
    """Write the weights as safetensors, bound to the run's settings."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as beside:
        save_file(state, beside, metadata={"run": run.name, "key": run.key})


def load_weights(path: Path, model: Method, run: Run) -> None:
    """Read weights that :func:`save_weights` wrote.

    Raises:
        InputError: no safetensors file, or the weights of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made_by = file.metadata() or {}
        if made_by.get("key") != run.key:
            raise InputError(
                f"{path}: holds weights of run {made_by.get('run', 'unknown')} with other settings than "
                f"{run.name}'s; delete it to train again"
            )
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the run first") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from None


def build(run: Run, data: Path) -> Method:
    """The run's method on its backbone, with initial weights."""
    return methods.build(
        run.method,
        run.settings,
        run.backbone,
        len(cache.describe(data)["classes"]),
        pretrained=run.pretrained,
        output_stride=run.output_stride,
        seed=run.seed,
    )


def batches(run: Run, data: Path, split: str, model: Method, device: torch.device) -> Batches:
    """Batches of a cached split as the run's backbone wants them."""
    traits = model.backbone.traits
    images = cache.open_split(data, split)
    return Batches(images, run.recipe.batch_size, run.recipe.crop, traits.mean, traits.std, device)


def _epoch(fabric: Fabric, model: Any, optimizer: Any, data: Batches, run: Run, state: State) -> dict[str, float]:
    """One pass over the training images; the mean of every part of the loss, and the time it took."""
    recipe, started = run.recipe, time.monotonic()
    model.train()
    logged: list[Tensor] = []
    names: list[str] = []
    checked = 0
    epoch = data.training(run.seed, state.epoch, recipe.flip)
    for step, batch in enumerate(_progress(epoch, f"epoch {state.epoch + 1}/{recipe.epochs}")):
        factor = rate(recipe, state.epoch + (step + 0.5) / len(data))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        images, targets = model.module.augment(batch.images, Targets(batch.labels, batch.masks))
        parts = model.loss(images, targets)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(parts["total"])
        if recipe.clip_norm is not None:
            fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        names = list(parts)
        logged.append(torch.stack([part.detach().float() for part in parts.values()]))
        if (step + 1) % _LOOK_EVERY == 0:
            _check_finite(logged, names, checked, state.epoch)
            checked = len(logged)
    _check_finite(logged, names, checked, state.epoch)
    means = torch.stack(logged).mean(dim=0).tolist()
    seconds = time.monotonic() - started
    shown = {"lr": recipe.learning_rate * factor, "seconds": seconds}
    return shown | {"images_per_s": len(logged) * recipe.batch_size / seconds} | dict(zip(names, means, strict=True))


def _check_finite(logged: list[Tensor], names: list[str], start: int, epoch: int) -> None:
    fresh = torch.stack(logged[start:]) if logged[start:] else torch.zeros(1, 1)
    if bool(fresh.isfinite().all()):
        return
    step = int((~fresh.isfinite()).any(dim=1).nonzero()[0])
    parts = ", ".join(f"{name} {value:g}" for name, value in zip(names, fresh[step].tolist(), strict=True))
    raise NotFinite(f"the loss is not finite at epoch {epoch + 1}, step {start + step + 1}: {parts}")


def _close_epoch(state: State, parts: dict[str, float], recipe: Recipe) -> None:
    """Count the epoch, keep its row, and note whether the loss still falls."""
    state.epoch += 1
    state.history.append({"epoch": state.epoch} | parts)
    if parts["total"] < state.best * (1 - recipe.min_delta):
        state.best, state.since_best = parts["total"], 0
    else:
        state.since_best += 1
    _log.info("epoch %d/%d: %s", state.epoch, recipe.epochs, ", ".join(f"{k} {v:.4g}" for k, v in parts.items()))


def _finished(state: State, recipe: Recipe) -> bool:
    converged = recipe.stop == "plateau" and state.since_best >= recipe.patience
    return state.epoch >= recipe.epochs or converged


def _save(path: Path, run: Run, model: Method, optimizer: Any, state: State) -> None:
    content = {
        "key": run.key,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with replacing(path) as beside:
        torch.save(content, beside)


def _resume(path: Path, run: Run, model: Method, optimizer: Any) -> State:
    """Load the checkpoint if there is one of these settings; else start afresh."""
    if not path.exists():
        return State()
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["key"] != run.key:
        _log.info("%s belongs to other settings: starting afresh", path)
        return State()
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"])
    for device, random in enumerate(content["random_cuda"]):
        torch.cuda.set_rng_state(random, device)
    state = State(**content["state"])
    _log.info("resumed after epoch %d", state.epoch)
    return state


def _summary(state: State, seconds: float) -> dict[str, Any]:
    steady = [row["images_per_s"] for row in state.history[1:]] or [state.history[0]["images_per_s"]]
    return {
        "epochs": state.epoch,
        "seconds": sum(row["seconds"] for row in state.history),
        "wall_seconds_of_last_start": seconds,
        "images_per_s": sorted(steady)[len(steady) // 2],
        "last": state.history[-1],
        "history": state.history,
    }


def _progress(batches: Iterator[Any], title: str) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere."""
    return iter(tqdm(batches, title, leave=False, disable=None))
