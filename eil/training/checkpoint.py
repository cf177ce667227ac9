"""Checkpoints of a training: the last two, bound to the run's settings and sources, each whole or absent.

They hold weights, optimizer, random states and where the training stands, within an epoch too. What draws images
and augmentation is a function of seed, epoch and image, so that nothing of a loader needs to be kept.
"""

import io
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from eil.core import source_hash
from eil.core.files import InputError, replacing
from eil.core.run import Run
from eil.core.safe_yaml import in_a_line
from eil.methods.base import Method

_log = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


@dataclass
class State:
    """Where a training stands.

    Attributes:
        epoch: epochs done.
        step: steps done in the next one.
        parts: of the loss in each of these steps, by the names of ``names``.
        seconds: that these steps took.
        best: the lowest mean loss of an epoch.
        since_best: epochs since then.
        history: a row an epoch.
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
        """TypeError or ValueError if a file gave this what no training gives."""
        numbers = [value for row in [*self.parts, *(row.values() for row in self.history)] for value in row]
        if not all(isinstance(each, int) for each in (self.epoch, self.step, self.since_best)):
            raise TypeError("counts that are no whole numbers")
        if not all(isinstance(each, int | float) for each in (self.seconds, self.best, *numbers)):
            raise TypeError("a history of other things than numbers")
        if self.step != len(self.parts) or any(len(row) != len(self.names) for row in self.parts):
            raise ValueError(f"{len(self.parts)} steps of {self.step}")


def save(folder: Path, run: Run, model: Method, optimizer: Any, state: State, photos: str = "") -> None:
    """Write a checkpoint, bound to settings, sources and photos, and keep the one before it."""
    content = {
        "key": _key(run, photos),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": vars(state),
        "random": torch.get_rng_state(),
        "random_cuda": [torch.cuda.get_rng_state(each) for each in _own(model)],
    }
    last = folder / LAST
    whole = io.BytesIO()
    torch.save(content, whole)  # to a file that cannot grow it fails with an error that tells nothing
    with replacing(last) as beside:
        beside.write_bytes(whole.getbuffer())
        if last.exists():
            last.replace(folder / PREVIOUS)


def resume(folder: Path, run: Run, model: Method, optimizer: Any, photos: str = "") -> State:
    """Load the last checkpoint of these settings, sources and photos that can be read; start afresh if there is none.

    Raises:
        InputError: one that can be read, and holds other things than a checkpoint.
    """
    for path in (folder / LAST, folder / PREVIOUS):
        content = _read(path)
        if content is None:
            continue
        if content["key"] != _key(run, photos):
            _log.info("%s belongs to other settings, sources or photos: left aside", path.name)
            continue
        try:
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            torch.set_rng_state(content["random"])
            for device, random in zip(_own(model), content["random_cuda"], strict=False):
                torch.cuda.set_rng_state(random, device)
            state = State(**content["state"])
            state.require_sound()
        except Exception as error:  # half of it is loaded: too late to leave it aside
            raise InputError(f"{path}: not a checkpoint; delete it to train afresh: {in_a_line(error)}") from None
        _log.info("resumed after epoch %d, step %d", state.epoch, state.step)
        return state
    return State()


def remove(folder: Path) -> None:
    """Remove them: the weights are whole now, and a checkpoint costs twice their size."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _own(model: Method) -> list[torch.device]:
    """The GPU that this process computes on, if any: of several processes each has its own, all in the same state."""
    return [device for device in {each.device for each in model.parameters()} if device.type == "cuda"]


def _key(run: Run, photos: str) -> str:
    return f"{run.key}-{source_hash.of_step('train', run)}-{photos}"


def _read(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, plain tensors and numbers; None, and said so, if it cannot be read."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises a dozen unrelated kinds
        _log.warning("%s cannot be read (%s): left aside", path, in_a_line(error))
        return None
    needed = {"key", "model", "optimizer", "state", "random", "random_cuda"}
    if not isinstance(content, dict) or not needed <= content.keys():
        _log.warning("%s is no checkpoint: left aside", path)
        return None
    return content
