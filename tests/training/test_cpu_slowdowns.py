"""A training on a CPU tells what slows it down, and is not changed by measuring it."""

import logging
import time
from pathlib import Path
from types import MethodType

import pytest
import torch

from eil.core.run import Run
from eil.training import cpu_slowdowns, train_step

NAME = "vgg_small-eil-gamma0.6-sigma1-seed0"


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_starved_training_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clocks = {"monotonic": 0.0, "process_time": 0.0}
    for name in tuple(clocks):
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    share = cpu_slowdowns.CpuShare(torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        for wall, cpu, cores in ((10.0, 19.0, 2), (10.0, 3.0, 1), (10.0, 3.0, 1)):
            share.restart()
            clocks["monotonic"] += wall
            clocks["process_time"] += cpu
            assert share.log_row(cores)["cpu_share"] == pytest.approx(cpu / wall / cores)
    assert [record.getMessage()[:31] for record in caplog.records] == ["the training gets only 30 % of "]


def test_the_share_is_measured() -> None:
    share = cpu_slowdowns.CpuShare(torch.device("cpu"))
    busy(0.05)
    assert 0 < share.log_row(1)["cpu_share"] <= 1
    share.restart()
    time.sleep(0.1)
    assert share.log_row(1)["cpu_share"] < 0.5
    assert cpu_slowdowns.CpuShare(torch.device("meta")).log_row() == {}


@pytest.mark.parametrize(("multiple", "told", "compiled"), [(1.5, 1, False), (0.5, 0, True)])
def test_bf16_that_saves_nothing_is_told(
    multiple: float,
    told: int,
    compiled: bool,
    runs: dict[str, Run],
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = runs[NAME].model_copy(update={"recipe": runs[NAME].recipe.model_copy(update={"precision": "bf16"})})
    fabric, wrapped, _ = train_step.set_up(run, images)
    method = wrapped.module
    if compiled:  # as the recipe's `compile` does: the loss of this very network
        own = method.loss
        method.loss = MethodType(lambda _, images, targets: own(images, targets), method)
    batches = train_step.batches(run, images, "train", method, fabric.device)
    before, drawn = {name: value.clone() for name, value in method.state_dict().items()}, torch.get_rng_state()
    measured = cpu_slowdowns.warn_if_bf16_slow(run, fabric, method, batches)
    assert measured is not None
    assert measured > 0
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert torch.equal(drawn, torch.get_rng_state())
    caplog.clear()
    monkeypatch.setattr(cpu_slowdowns, "_seconds", lambda *given: multiple if given[3] else 1.0)
    with caplog.at_level(logging.WARNING):
        assert cpu_slowdowns.warn_if_bf16_slow(run, fabric, method, batches) == multiple
    assert len(caplog.records) == told
    assert cpu_slowdowns.warn_if_bf16_slow(runs[NAME], fabric, method, batches) is None
