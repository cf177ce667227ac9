"""Train one run: SGD or AdamW on Lightning Fabric, with a checkpoint every epoch and every ten minutes.

Writes weights.safetensors (bound to the run's settings), history.csv (a row for each epoch), train.json and train.log
to the run's folder. A step never waits for the device: the parts of the loss stay there until the epoch ends or until
they are checked, every few steps.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from eil import backbones
from eil.core import provenance, ranks, source_hash
from eil.core.files import InputError, atomic_write, write_json
from eil.core.run import Recipe, Run
from eil.core.safe_yaml import in_a_line
from eil.data import cache
from eil.data.augment import Batch
from eil.execution import signals
from eil.methods.base import Method
from eil.training import checkpoint, train_step
from eil.training.accuracy import accuracy
from eil.training.checkpoint import State
from eil.training.cpu_slowdowns import CpuShare, warn_if_bf16_slow
from eil.training.tensorboard import Logger

_log = logging.getLogger(__name__)
_CHECK_EVERY = 20  # steps between two checks that the loss is finite
_SAVE_EVERY = 600  # seconds between two checkpoints within an epoch


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite."""


def train(run: Run, data: Path, folder: Path, logger: str | None = None) -> None:
    """Train a run, or continue its training; import the weights of a run with a checkpoint.

    Args:
        run: what to train.
        data: folder of the decoded images.
        folder: the run's folder.
        logger: see :class:`eil.training.tensorboard.Logger`.

    Raises:
        NotFinite: the loss became NaN or infinite; the message names step and parts.
        InputError: missing data or pretrained weights, a control or extractor, or a checkpoint of another network.
    """
    if run.reuses_network:
        raise InputError(f"{run.name}: has no training of its own; it takes the network of {run.training_run.name}")
    if run.checkpoint:
        from eil.training import imported  # it needs `save_weights`

        return imported.import_run(run, data, folder)
    started = time.monotonic()
    meter = provenance.ResourceMeter()
    with signals.deferred() as due, _nondeterministic_operations() as inexact:
        training = _Training(run, data, folder, due, Logger(logger if ranks.rank() == 0 else None, folder))
        try:
            training.train_remaining()
        except torch.OutOfMemoryError as error:
            raise InputError(f"{run.name}: out of memory with batch_size = {run.recipe.batch_size}: {error}") from None
        training.fabric.barrier()
    if training.fabric.global_rank:
        return  # the first process writes
    state, model = training.state, training.model.module
    if inexact:
        _log.warning("not deterministic: %s", "; ".join(inexact))
    with atomic_write(folder / "history.csv") as beside:
        pd.DataFrame(state.history).to_csv(beside, index=False)
    save_weights(folder / "weights.safetensors", model, run, training.photos)
    write_json(
        folder / "train.json",
        _summary(run, state, time.monotonic() - started)
        | training.began_with
        | {"weights_sha256": backbones.fingerprint(model), "not_deterministic": inexact}
        | {"photos_sha256": training.photos}
        | {"provenance": provenance.provenance() | meter.read()},
    )
    checkpoint.remove(folder)


def save_weights(path: Path, model: Method, run: Run, photos: str = "") -> None:
    """Write the weights as safetensors, bound to the run's settings and to the fingerprint of its photos."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as beside:
        beside.write_bytes(save(state, metadata={"run": run.name, "key": run.key, "photos": photos}))


def load_weights(path: Path, model: Method, run: Run, photos: str | None = None) -> None:
    """Read weights that :func:`save_weights` wrote.

    Args:
        path: of the file.
        model: receives the weights.
        run: the run to which the weights must belong.
        photos: fingerprint of the photos on which they must be trained; None accepts any.

    Raises:
        InputError: not a safetensors file, or the weights of another run or of other photos.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made_by = file.metadata() or {}
        if made_by.get("key") != run.key:
            raise InputError(
                f"{path}: holds weights of run {made_by.get('run', 'unknown')} with different settings than "
                f"{run.name}'s; delete it to train again"
            )
        if photos is not None and made_by.get("photos") != photos:
            raise InputError(f"{path}: was trained on photos that have changed since; train the run again")
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the run first") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    except (RuntimeError, OSError, LookupError, AttributeError) as error:  # other tensors, or unknown dtypes
        raise InputError(f"{path}: not the weights of {run.name}: {in_a_line(error)}") from None


class _Training:
    """A training in progress: what its steps need, and its state."""

    def __init__(self, run: Run, data: Path, folder: Path, due: Callable[[], bool], logger: Logger) -> None:
        self.run, self.folder, self.due, self.logger = run, folder, due, logger
        self.fabric, self.model, self.optimizer = train_step.set_up(run, data)
        method = self.model.module
        self.began_with = {"pretrained_sha256": backbones.fingerprint(method.backbone)} if run.pretrained else {}
        self.batches = train_step.batches(run, data, "train", method, self.fabric.device)
        self.val = train_step.batches(run, data, "val", method, self.fabric.device)
        self.photos = str(cache.describe(data)["photos_sha256"])
        self.cpu = CpuShare(self.fabric.device)
        warn_if_bf16_slow(run, self.fabric, method, self.batches)
        self.state = checkpoint.resume(folder, run, method, self.optimizer, self.photos)

    def train_remaining(self) -> None:
        """Train the remaining epochs, with a checkpoint after each."""
        recipe, state = self.run.recipe, self.state
        while not _finished(state, recipe):
            self._epoch()
            self._save()
            self.logger.write(state.history[-1])
            if self._must_stop(check_now=True) and not _finished(state, recipe):
                signals.raise_pending()

    def _epoch(self) -> None:
        """One pass over the training images, or the rest of one."""
        recipe, state = self.run.recipe, self.state
        started = time.monotonic() - state.seconds
        self.cpu.restart()
        self.model.train()
        self.model.module.start_epoch(state.epoch, recipe.epochs)
        logged = list(torch.tensor(state.parts, device=self.fabric.device))
        saved, checked = time.monotonic(), len(logged)
        epoch = self.batches.training(self.run.rng_seed, state.epoch, recipe.flip, state.step)
        for number, batch in enumerate(_progress(epoch, f"epoch {state.epoch + 1}/{recipe.epochs}"), state.step):
            logged.append(self._step(state.epoch + (number + 0.5) / len(self.batches), batch))
            check_now = (number + 1) % _CHECK_EVERY == 0
            stopping = self._must_stop(check_now)
            save = stopping or time.monotonic() - saved > _SAVE_EVERY
            if save or check_now:
                _check_finite(logged, state.names, checked, state.epoch)
                checked = len(logged)
            if save:
                state.step, state.parts = number + 1, torch.stack(logged).tolist()
                state.seconds, saved = time.monotonic() - started, time.monotonic()
                self._save()
            if stopping:
                self.fabric.barrier()  # no process ends before the checkpoint is written
                signals.raise_pending()
        _check_finite(logged, state.names, checked, state.epoch)
        steps, seconds = len(logged), time.monotonic() - started
        means = torch.stack(logged).mean(dim=0).tolist()
        further = self.cpu.log_row() | self._validate()
        _close_epoch(state, means, steps, self.batches.images_in(steps), recipe, seconds, further)

    def _validate(self) -> dict[str, float]:
        """Accuracy on val, and the seconds that its forward passes took."""
        began = time.monotonic()
        found = accuracy(self.fabric, self.model.module, self.val)
        return {"val_top1": found, "val_seconds": time.monotonic() - began}

    def _step(self, epoch: float, batch: Batch) -> Tensor:
        """One iteration, ``epoch`` epochs in; the parts of its loss, on the device."""
        factor = train_step.lr_factor(self.run.recipe, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        parts = train_step.train_step(self.fabric, self.model, self.optimizer, batch, self.run.recipe)
        self.state.names = list(parts)
        found = torch.stack([part.detach().float() for part in parts.values()])
        if self.fabric.world_size > 1:
            found = cast(Tensor, self.fabric.all_reduce(found))
        return found

    def _must_stop(self, check_now: bool) -> bool:
        """Whether to stop here. Several processes agree on this when ``check_now`` is true, which makes them wait."""
        if self.fabric.world_size == 1:
            return self.due()
        due = torch.tensor(float(self.due()), device=self.fabric.device)
        return check_now and bool(self.fabric.all_reduce(due, reduce_op="sum"))

    def _save(self) -> None:
        if self.fabric.global_rank == 0:
            checkpoint.save(self.folder, self.run, self.model.module, self.optimizer, self.state, self.photos)


def _check_finite(logged: list[Tensor], names: list[str], start: int, epoch: int) -> None:
    fresh = torch.stack(logged[start:]) if logged[start:] else torch.zeros(1, 1)
    if bool(fresh.isfinite().all()):
        return
    row = int((~fresh.isfinite()).any(dim=1).nonzero()[0])
    parts = ", ".join(f"{name} {value:g}" for name, value in zip(names, fresh[row].tolist(), strict=True))
    raise NotFinite(f"the loss is not finite at epoch {epoch + 1}, step {start + row + 1}: {parts}")


def _close_epoch(
    state: State,
    means: list[float],
    steps: int,
    images: int,
    recipe: Recipe,
    seconds: float,
    further: dict[str, float],
) -> None:
    """Count the epoch, append its row, and record whether the loss improved; ``seconds`` are those of its steps."""
    parts = dict(zip(state.names, means, strict=True))
    rate = recipe.learning_rate * train_step.lr_factor(recipe, state.epoch + (steps - 0.5) / steps)
    row = {"lr": rate, "seconds": seconds, "images_per_s": images / seconds} | parts | further
    state.epoch, state.step, state.parts, state.seconds = state.epoch + 1, 0, [], 0.0
    state.history.append({"epoch": state.epoch} | row)
    if parts["total"] < state.best * (1 - recipe.min_delta):
        state.best, state.since_best = parts["total"], 0
    else:
        state.since_best += 1
    _log.info("epoch %d/%d: %s", state.epoch, recipe.epochs, ", ".join(f"{k} {v:.4g}" for k, v in row.items()))


def _finished(state: State, recipe: Recipe) -> bool:
    converged = recipe.stop == "plateau" and state.since_best >= recipe.patience
    return state.epoch >= recipe.epochs or converged


@contextlib.contextmanager
def _nondeterministic_operations() -> Iterator[list[str]]:
    """Collect the operations of which torch warns that they are not deterministic; pass other warnings on."""
    found: dict[str, None] = {}
    with warnings.catch_warnings(record=True) as caught:
        names: list[str] = []
        try:
            yield names
        finally:
            for each in caught:
                if "deterministic" in str(each.message):
                    found[str(each.message).split(" does not have")[0]] = None
            names += found
    for each in caught:
        if "deterministic" not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _summary(run: Run, state: State, seconds: float) -> dict[str, Any]:
    steady = [row["images_per_s"] for row in state.history[1:]] or [state.history[0]["images_per_s"]]
    return {
        "key": run.key,
        "seed": run.rng_seed,
        "sources": source_hash.of_step("train", run),
        "epochs": state.epoch,
        "seconds": sum(row["seconds"] for row in state.history),
        "wall_seconds_of_last_start": seconds,
        "images_per_s": sorted(steady)[len(steady) // 2],
        "last": state.history[-1],
        "history": state.history,
    }


def _progress(batches: Iterator[Any], title: str) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    return iter(tqdm(batches, title, leave=False, disable=None))
