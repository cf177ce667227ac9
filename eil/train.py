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

from eil import backbones, step
from eil.data.augment import Batches
from eil.files import InputError, replacing, write_json
from eil.method import Method
from eil.plain import in_a_line
from eil.run import Recipe, Run

_log = logging.getLogger(__name__)
_LOOK_EVERY = 20  # steps between two looks whether the loss is finite


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass
class State:
    """Where a training stands; what a checkpoint holds beside the weights."""

    epoch: int = 0
    best: float = math.inf
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def require_sound(self) -> None:
        """TypeError if a file gave this other things than numbers."""
        counts, numbers = [self.epoch, self.since_best], [value for row in self.history for value in row.values()]
        if not all(isinstance(each, int) for each in counts):
            raise TypeError("epochs that are no whole numbers")
        if not all(isinstance(each, int | float) for each in [self.best, *numbers]):
            raise TypeError("a history of other things than numbers")


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
    fabric, wrapped, optimizer = step.set_up(run, data)
    model = wrapped.module
    pretrained = {"pretrained_sha256": backbones.fingerprint(model.backbone)} if run.pretrained else {}
    training = step.batches(run, data, "train", model, fabric.device)
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
    except (RuntimeError, OSError, LookupError, AttributeError) as error:  # other tensors, or none that torch knows
        raise InputError(f"{path}: not the weights of {run.name}: {in_a_line(error)}") from None


def _epoch(fabric: Fabric, model: Any, optimizer: Any, data: Batches, run: Run, state: State) -> dict[str, float]:
    """One pass over the training images; the mean of every part of the loss, and the time it took."""
    recipe, started = run.recipe, time.monotonic()
    model.train()
    logged: list[Tensor] = []
    names: list[str] = []
    checked = 0
    epoch = data.training(run.seed, state.epoch, recipe.flip)
    for number, batch in enumerate(_progress(epoch, f"epoch {state.epoch + 1}/{recipe.epochs}")):
        factor = step.rate(recipe, state.epoch + (number + 0.5) / len(data))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        parts = step.take(fabric, model, optimizer, batch, recipe)
        names = list(parts)
        logged.append(torch.stack([part.detach().float() for part in parts.values()]))
        if (number + 1) % _LOOK_EVERY == 0:
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
    row = int((~fresh.isfinite()).any(dim=1).nonzero()[0])
    parts = ", ".join(f"{name} {value:g}" for name, value in zip(names, fresh[row].tolist(), strict=True))
    raise NotFinite(f"the loss is not finite at epoch {epoch + 1}, step {start + row + 1}: {parts}")


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
    try:
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
        state.require_sound()
    except Exception as error:  # a damaged file raises half a dozen unrelated kinds
        raise InputError(f"{path}: not a checkpoint; delete it to train afresh: {in_a_line(error)}") from None
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
