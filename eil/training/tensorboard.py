"""Losses for those who watch them elsewhere, at no cost to those who do not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eil.core.files import InputError


class Logger:
    """Writes an epoch's row for TensorBoard; nothing, and nothing is imported, unless it is asked for.

    Args:
        kind: "tensorboard", or None.
        folder: the run's; events go to ``tensorboard`` in it.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, kind: str | None, folder: Path) -> None:
        self._writer: Any = None
        if kind == "tensorboard":
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError("logger = tensorboard: is not installed (pip install tensorboard)") from None
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, row: Mapping[str, float]) -> None:
        """One epoch's numbers, with its own among them."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()
