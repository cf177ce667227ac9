"""Methods whose loss changes during training, or that remember: the loop tells them, after a kill too."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from killed_training import train_until_killed
from safetensors.torch import load_file

from eil.core.run import Run
from eil.training import train

EIL = "vgg_small-eil-gamma0.6-sigma1-seed0"


@pytest.mark.parametrize(
    ("method", "settings", "column"),
    [("bridgegap", {"warmup": 0.5}, "similarity"), ("dawsol", {"samples": 2, "warmup": 0.5}, None)],
)
def test_a_killed_training_ends_in_the_same_weights(
    runs: dict[str, Run],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    settings: dict[str, Any],
    column: str | None,
) -> None:
    run = runs[EIL].model_copy(update={"method": method, "settings": settings})
    train.train(run, images, tmp_path / "whole")
    train_until_killed(run, images, tmp_path / "killed", monkeypatch)
    train.train(run, images, tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    history = pd.read_csv(tmp_path / "killed" / "history.csv")
    counted = history["total"] - history["classification"]
    if column is None:  # terms are logged, and not counted, before the warm-up ends
        assert counted[0] == pytest.approx(0, abs=1e-5)
        assert counted[1] > 0.001
    else:
        assert (history[column] == 0).tolist() == [True, False]
