"""Optional logging of losses to TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eil.core.files import InputError


class Logger:
    """Write each epoch's losses for TensorBoard; without a kind do and import nothing.

    Args:
        kind: "tensorboard", or None.
        folder: the run's folder; events are written to its folder ``tensorboard``.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, kind: str | None, folder: Path) -> None:
        self._writer: Any = None
        if kind == "tensorboard":
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError(
                    "logger = tensorboard: TensorBoard is not installed (pip install tensorboard)"
                ) from None
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, row: Mapping[str, float]) -> None:
        """Write the numbers of an epoch; ``row["epoch"]`` is the epoch."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()
