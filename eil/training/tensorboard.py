"""Optional logging of losses by Fabric's loggers, to TensorBoard or to Weights & Biases."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eil.core.files import InputError


def _tensorboard(folder: Path) -> Any:
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def _wandb(folder: Path) -> Any:
    """Offline: a training needs no network and no account; `wandb sync` uploads the folder."""
    from pytorch_lightning.loggers import WandbLogger

    return WandbLogger(folder.name, folder, project="eil", offline=True)


KINDS: Mapping[str, tuple[Callable[[Path], Any], str]] = {  # how a logger is made, and what it needs
    "tensorboard": (_tensorboard, "tensorboard"),
    "wandb": (_wandb, "wandb pytorch-lightning"),
}


class Logger:
    """Write each epoch's losses with one of Fabric's loggers; without a kind do and import nothing.

    Args:
        kind: one of :data:`KINDS`, or None.
        folder: the run's folder; events are written to its folder ``tensorboard`` or ``wandb``.

    Raises:
        InputError: the logger is not installed.
    """

    def __init__(self, kind: str | None, folder: Path) -> None:
        self._logger: Any = None
        if kind is not None:
            make, needed = KINDS[kind]
            try:
                self._logger = make(folder)
            except ImportError:
                raise InputError(f"logger = {kind}: is not installed (pip install {needed})") from None

    def write(self, row: Mapping[str, float]) -> None:
        """Write the numbers of an epoch; ``row["epoch"]`` is the epoch."""
        if self._logger is None:
            return
        numbers = {name: float(value) for name, value in row.items() if name != "epoch"}
        self._logger.log_metrics(numbers, step=int(row["epoch"]))
        self._logger.save()  # a killed training keeps what is written
