"""A training that is killed right after its first checkpoint."""

from pathlib import Path
from typing import Any

import pytest

from eil.core.run import Run
from eil.training import checkpoint, train


def train_until_killed(run: Run, images: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train; the first checkpoint is written, and then the process is interrupted."""
    save = checkpoint.save

    def killed(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", killed)
        train.train(run, images, folder)
