"""Methods whose loss changes during training, methods that remember, and AdamW's moments: also after a kill."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from killed_training import train_until_killed
from safetensors.torch import load_file

from baselines import CAM
from eil import backbones
from eil.core.run import Recipe, Run
from eil.methods.base import Targets
from eil.training import train, train_step

EIL = "vgg_small-eil-gamma0.6-sigma1-seed0"


@pytest.mark.parametrize(
    ("method", "settings", "column"),
    [("bridgegap", {"warmup": 0.5}, "similarity"), ("dawsol", {"samples": 2, "warmup": 0.5}, "universum")],
)
def test_a_killed_training_ends_in_the_same_weights(
    runs: dict[str, Run],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    settings: dict[str, Any],
    column: str,
) -> None:
    run = runs[EIL].model_copy(update={"method": method, "settings": settings})
    train.train(run, images, tmp_path / "whole")
    train_until_killed(run, images, tmp_path / "killed", monkeypatch)
    train.train(run, images, tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    history = pd.read_csv(tmp_path / "killed" / "history.csv")
    assert (history[column] == 0).tolist() == [True, False]


def test_adamws_moments_survive_a_kill(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam = runs["vgg_small-cam-seed0"]
    run = cam.model_copy(update={"recipe": cam.recipe.model_copy(update={"optimizer": "adamw"})})
    assert run.key != cam.key
    train.train(run, images, tmp_path / "whole")
    train_until_killed(run, images, tmp_path / "killed", monkeypatch)
    train.train(run, images, tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_adamws_first_step_is_its_equation() -> None:
    """Its first step moves each weight by the rate, against the gradient's sign, after the weights' decay."""
    model = CAM(backbones.build("vgg_small"), 2)
    recipe = Recipe(optimizer="adamw", learning_rate=0.01, head_multiplier=3.0, weight_decay=0.1)
    optimizer = train_step.optimizer_of(model, recipe)
    weight = model.head.classifier.weight
    before = weight.detach().clone()
    model.loss(torch.randn(4, 3, 32, 32), Targets(torch.arange(4) % 2))["total"].backward()
    assert weight.grad is not None
    optimizer.step()
    expected = before * (1 - 0.03 * 0.1) - 0.03 * weight.grad / (weight.grad.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected)
