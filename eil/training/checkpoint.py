"""Checkpoints of a training: the last two, written atomically and bound to the run's settings and source code.

They hold weights, optimizer, random states and the training's progress, also within an epoch. Image order and
augmentation are functions of seed, epoch and image, so a checkpoint needs no state of the loader.
"""

import io
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eil.core import source_hash
from eil.core.files import InputError, atomic_write
from eil.core.run import Run
from eil.core.safe_yaml import in_a_line
from eil.methods.base import Method

_log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


@dataclass
class State:
    """Progress of a training.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the next epoch.
        parts: parts of the loss in each of these steps, named by ``names``.
        seconds: time of these steps.
        best: the lowest mean loss of an epoch.
        since_best: epochs since ``best``.
        history: one row for each epoch.
    """

    epoch: int = 0
    step: int = 0
    names: list[str] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    best: float = math.inf
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def require_sound(self) -> None:
        """Raise TypeError or ValueError for content of a file that no training produces."""
        numbers = [value for row in [*self.parts, *(row.values() for row in self.history)] for value in row]
        if not all(isinstance(each, int) for each in (self.epoch, self.step, self.since_best)):
            raise TypeError("counts that are not integers")
        if not all(isinstance(each, int | float) for each in (self.seconds, self.best, *numbers)):
            raise TypeError("a history that is not numbers")
        if self.step != len(self.parts) or any(len(row) != len(self.names) for row in self.parts):
            raise ValueError(f"{len(self.parts)} steps of {self.step}")


def save(folder: Path, run: Run, model: Method, optimizer: Any, state: State, photos: str = "") -> None:
    """Write a checkpoint, bound to settings, source code and photos, and keep the previous one."""
    content = {
        "key": _key(run, photos),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
        "random": torch.get_rng_state(),
        "random_cuda": [torch.cuda.get_rng_state(each) for each in _gpus(model)],
    }
    last = folder / LAST
    whole = io.BytesIO()
    torch.save(content, whole)  # on a full disk torch.save raises an uninformative error
    with atomic_write(last) as beside:
        beside.write_bytes(whole.getbuffer())
        if last.exists():
            last.replace(folder / PREVIOUS)


def resume(folder: Path, run: Run, model: Method, optimizer: Any, photos: str = "") -> State:
    """Load the last readable checkpoint of these settings, source code and photos; without one return a new state.

    Raises:
        InputError: a readable file that is not a checkpoint.
    """
    for path in (folder / LAST, folder / PREVIOUS):
        content = _read(path)
        if content is None:
            continue
        if content["key"] != _key(run, photos):
            _log.info("%s was made with different settings, source code or photos: ignored", path.name)
            continue
        try:
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            torch.set_rng_state(content["random"])
            for device, random in zip(_gpus(model), content["random_cuda"], strict=False):
                torch.cuda.set_rng_state(random, device)
            state = State(**content["state"])
            state.require_sound()
        except Exception as error:  # it is partly loaded: too late to ignore it
            raise InputError(
                f"{path}: not a checkpoint; delete it to train from the start: {in_a_line(error)}"
            ) from None
        _log.info("resumed after epoch %d, step %d", state.epoch, state.step)
        return state
    return State()


def remove(folder: Path) -> None:
    """Remove the checkpoints of a finished training; each is twice as large as the weights."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _gpus(model: Method) -> list[torch.device]:
    """The GPUs that this process computes on: none or one; random states are equal in all processes."""
    return [device for device in {each.device for each in model.parameters()} if device.type == "cuda"]


def _key(run: Run, photos: str) -> str:
    return f"{run.key}-{source_hash.of_step('train', run)}-{photos}"


def _read(path: Path) -> dict[str, Any] | None:
    """Content of a checkpoint, tensors and numbers; None, with a warning, if it cannot be read."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises many unrelated exceptions
        _log.warning("%s cannot be read (%s): ignored", path, in_a_line(error))
        return None
    needed = {"key", "model", "optimizer", "state", "random", "random_cuda"}
    if not isinstance(content, dict) or not needed <= content.keys():
        _log.warning("%s is not a checkpoint: ignored", path)
        return None
    return content
