"""One training on two devices, which are processes on this machine: the same losses as on one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import distributed as torch_distributed
from torch import multiprocessing, nn

from eil.commands import cli
from eil.core import ranks, records
from eil.methods.base import Targets
from eil.study.study import load
from eil.training import distributed

ROOT = Path(__file__).parents[2]


def eil(place: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    where = ["--results", str(place / "results"), "--data", str(place / "data")]
    command = [sys.executable, "-m", "eil", *arguments, *where]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@pytest.fixture
def place(content: dict[str, Any], images: Path, tmp_path: Path) -> Path:
    """Two studies that differ in the number of devices alone, and their decoded images."""
    content |= {"methods": {"eil": {}, "cutmix": {}}, "seeds": 1}
    content["recipe"] |= {"batch_size": 8, "epochs": 3}
    for count in (1, 2):
        content["recipe"]["devices"] = count
        (tmp_path / str(count)).mkdir()
        (tmp_path / str(count) / "s.yaml").write_text(yaml.safe_dump(content))
        cache = load(tmp_path / str(count) / "s.yaml").runs()[0].cache
        (tmp_path / str(count) / "data").mkdir()
        (tmp_path / str(count) / "data" / cache).symlink_to(images)
    return tmp_path


def trained(place: Path, name: str) -> dict[str, Any]:
    process = eil(place, "train", str(place / "s.yaml"), name)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    found: dict[str, Any] = json.loads((place / "results/runs" / name / "train.json").read_text())
    return found


@pytest.mark.parametrize(
    "name", ["vgg_small-eil-seed0", pytest.param("vgg_small-cutmix-seed0", marks=pytest.mark.slow)]
)
def test_two_devices_give_the_losses_of_one(place: Path, name: str) -> None:
    where = ["--results", str(place / "1/results"), "--data", str(place / "1/data")]
    assert cli.main(["train", str(place / "1/s.yaml"), name, *where]) == 0
    one = json.loads((place / "1/results/runs" / name / "train.json").read_text())["history"]
    two = trained(place / "2", name)["history"]
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        for key in ("lr", "total", "top1"):
            assert a[key] == pytest.approx(b[key], rel=2e-3), key
    folder = place / "2/results/runs" / name
    assert not list(folder.glob("*.ckpt"))
    assert not list(folder.glob(".*.part*"))


@pytest.mark.slow
def test_two_devices_told_to_end_save_and_go_on(place: Path, content: dict[str, Any]) -> None:
    study = yaml.safe_load((place / "2/s.yaml").read_text())
    study["recipe"] |= {"epochs": 400}
    (place / "2/s.yaml").write_text(yaml.safe_dump(study))
    process = eil(place / "2", "train", str(place / "2/s.yaml"), "vgg_small-eil-seed0")
    folder = place / "2/results/runs/vgg_small-eil-seed0"
    for _ in range(1200):
        if (folder / "last.ckpt").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 75, output
    assert (folder / "last.ckpt").exists()
    assert not (folder / "failure.json").exists()
    study["recipe"] |= {"epochs": 400}
    assert len(trained(place / "2", "vgg_small-eil-seed0")["history"]) == 400
    assert "resumed after epoch" in (folder / "train.log").read_text()


def normed(rank: int, of: int, port: int, results: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch_distributed.init_process_group("gloo", rank=rank, world_size=of)
    torch.manual_seed(0)
    x = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    model = nn.Sequential(nn.BatchNorm2d(3)).double()
    distributed.synchronise_batch_norm(model, on_gpu=False)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
    images, targets = distributed.share(x.requires_grad_(), Targets(torch.arange(8)), rank, of)
    out = model(images)
    (out.pow(3).sum(dim=(1, 2, 3)) * targets.labels).mean().div(of).backward()
    assert x.grad is not None
    results[rank] = [out.detach(), x.grad.clone(), model[0].running_mean.clone(), model[0].running_var.clone()]
    torch_distributed.destroy_process_group()


def test_batch_norm_over_all_shares_is_batch_norm_of_the_whole() -> None:
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(normed, (2, 29511 + os.getpid() % 2000, results), nprocs=2)
        (out_0, grad_0, mean_0, var_0), (out_1, grad_1, mean_1, var_1) = (results[k] for k in (0, 1))
    torch.manual_seed(0)
    x = torch.randn(8, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    whole = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        whole.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
    out = whole(x)
    (out.pow(3).sum(dim=(1, 2, 3)) * torch.arange(8)).mean().backward()
    assert x.grad is not None
    torch.testing.assert_close(torch.cat([out_0, out_1]), out.detach())
    torch.testing.assert_close(grad_0 + grad_1, x.grad)
    for mean, var in ((mean_0, var_0), (mean_1, var_1)):
        torch.testing.assert_close(mean, whole.running_mean)
        torch.testing.assert_close(var, whole.running_var)


def test_shares_are_cut_from_what_belongs_to_images() -> None:
    images = torch.arange(6).reshape(6, 1, 1, 1)
    targets = Targets(torch.arange(6), torch.arange(6) > 2)
    parts = [distributed.share(images, targets, k, 3) for k in range(3)]
    assert [part[1].labels.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part[1].masks.tolist() for part in parts] == [[False, False], [False, True], [True, True]]  # type: ignore[union-attr]
    assert torch.equal(torch.cat([part[0] for part in parts]), images)


def test_who_launched_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.rank(), ranks.launched_externally(), ranks.local_devices(4)) == (0, False, 4)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert not ranks.launched_externally()
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert (ranks.rank(), ranks.launched_externally(), ranks.local_devices(8)) == (5, True, 4)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (ranks.rank(), ranks.local_devices(8)) == (3, 2)


def test_a_batch_that_cannot_be_shared_is_refused(place: Path) -> None:
    content = yaml.safe_load((place / "2/s.yaml").read_text())
    content["recipe"]["batch_size"] = 7
    (place / "2/s.yaml").write_text(yaml.safe_dump(content))
    process = eil(place / "2", "train", str(place / "2/s.yaml"), "vgg_small-eil-seed0")
    assert "batch_size = 7 cannot be shared by devices = 2" in process.communicate(timeout=60)[0]


@pytest.mark.slow
def test_the_record_of_two_devices_says_so(place: Path) -> None:
    for command in ("train", "localize", "evaluate"):
        process = eil(place / "2", command, str(place / "2/s.yaml"), "vgg_small-eil-seed0")
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 0, output
    record = records.read(place / "2/results/runs/vgg_small-eil-seed0/record.json")
    assert record.run.recipe.devices == 2
