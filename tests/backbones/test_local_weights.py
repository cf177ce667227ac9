"""Local weights in the forms that people keep them in; what is not a network's is refused with names."""

import argparse
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from zero_values import zero_initial_values

from eil import backbones
from eil.backbones import state_dicts
from eil.core.files import InputError

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _zeros() -> Iterator[None]:
    with zero_initial_values():
        yield


def weights_of(name: str, classes: int | None) -> State:
    """A copy of the network's names with the same tensors, which nothing here changes."""
    return dict(_weights_of(name, classes))


@functools.cache
def _weights_of(name: str, classes: int | None) -> State:
    """Random weights of a torchvision network whose classifier has so many classes, or that has none."""
    options: dict[str, Any] = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(weights=None, num_classes=classes or 1000, **options)
    generator = torch.Generator().manual_seed(1)
    heads = ("classifier.", "fc.", "AuxLogits.")
    return {
        key: torch.rand(value.shape, generator=generator).to(value.dtype)
        for key, value in net.state_dict().items()
        if not key.startswith(heads) or (classes is not None and value.numel() < 10**6)
    }


def stored(path: Path, content: Any) -> str:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {
        "epoch": 90,
        "state_dict": state,
        "optimizer": {"state": {0: torch.ones(3)}, "lr": [1]},
    },
    "model": lambda state: {"model": state, "model_ema": {"a": torch.zeros(1)}, "scaler": {"scale": torch.ones(1)}},
    "DataParallel": lambda state: {"arch": "resnet50", "best_acc1": torch.ones(()), "state_dict": prefixed(state)},
    "nested": lambda state: {"model": {"state_dict": state}, "epoch": 3},
    "halves": lambda state: {key: value.half() for key, value in state.items()},
    "without counters": lambda state: {key: v for key, v in state.items() if "num_batches" not in key},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("classes", [None, 200])
def test_every_form_gives_the_networks_weights(tmp_path: Path, form: str, classes: int | None) -> None:
    state = weights_of("resnet50", classes)
    backbone = backbones.build("resnet50", stored(tmp_path / "mine.pth", FORMS[form](state)))
    found = backbone.stages["layer3_5"].conv2.weight
    expected = state["layer3.5.conv2.weight"]
    assert torch.equal(found, expected.half().float() if form == "halves" else expected)
    assert torch.equal(backbone.stages["stem"][1].running_var.half(), state["bn1.running_var"].half())


def test_safetensors_by_any_name_and_an_old_file_of_torch(tmp_path: Path) -> None:
    state = weights_of("resnet50", 200)
    whole = backbones.build("resnet50", stored(tmp_path / "mine.safetensors", prefixed(state)))
    path = (tmp_path / "mine.safetensors").rename(tmp_path / "mine.bin")
    renamed = backbones.build("resnet50", f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    digest = hashlib.sha256((tmp_path / "old.pth").read_bytes()).hexdigest()
    old = backbones.build("resnet50", f"{tmp_path / 'old.pth'}@sha256:{digest}")
    assert backbones.fingerprint(whole) == backbones.fingerprint(renamed) == backbones.fingerprint(old)


@pytest.mark.parametrize("name", ["vgg16", "inception_v3"])
def test_networks_without_their_classifier(tmp_path: Path, name: str) -> None:
    state = weights_of(name, None)
    backbone = backbones.build(name, stored(tmp_path / "mine.pth", {"state_dict": prefixed(state)}))
    if name == "vgg16":
        assert torch.equal(backbone.stages["conv1"][0].weight, state["features.0.weight"])
        assert torch.equal(backbone.stages["conv5"][-2].bias, state["features.28.bias"])
    else:
        assert torch.equal(backbone.stages["Mixed_5b"].branch1x1.conv.weight, state["Mixed_5b.branch1x1.conv.weight"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda state: {f"encoder.{key}": value for key, value in state.items()},
            r"not resnet50's: expected conv1.weight, bn1.weight, bn1.bias and \d+ more, "
            r"found encoder.conv1.weight, encoder.bn1.weight, encoder.bn1.bias and \d+ more$",
        ),
        (
            lambda state: {key: value for key, value in state.items() if key != "layer4.2.bn3.bias"},
            "expected layer4.2.bn3.bias, found conv1.weight, ",
        ),
        (lambda state: state | {"layer3.6.bn1.bias": torch.ones(256)}, "found layer3.6.bn1.bias$"),
        (
            lambda state: state | {"conv1.weight": torch.ones(64, 4, 7, 7)},
            r"expected conv1.weight \(64, 3, 7, 7\), found conv1.weight \(64, 4, 7, 7\)$",
        ),
        (
            lambda state: state | {"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)},
            r"found conv1.weight \(64, 3, 7, 7\) torch.int8$",
        ),
        (lambda state: {"state_dict": state, "model": state}, "expected one state dict, found state_dict and model"),
        (lambda state: {"epoch": 3, "state_dict": {"lr": 0.1}}, "expected a state dict, found no tensors but lr"),
        (lambda state: {}, "expected a state dict, found no tensors but nothing"),
        (lambda state: [state], "expected a state dict, found list"),
        (
            lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1)},
            r"argparse.Namespace was not an allowed global by default\. Only tensors are .* save its state dict alone",
        ),
    ],
)
def test_what_is_not_the_networks_is_refused_with_names(
    tmp_path: Path, spoil: Callable[[State], Any], message: str
) -> None:
    weights = stored(tmp_path / "mine.pth", spoil(weights_of("resnet50", None)))
    with pytest.raises(InputError, match=rf"pretrained weights \S+mine.pth.*{message}"):
        backbones.build("resnet50", weights)


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not vgg16's: expected features.0.weight, .* found conv1.weight, bn1.weight"):
        backbones.build("vgg16", stored(tmp_path / "mine.pth", weights_of("resnet50", 5)))


def test_a_state_dict_is_left_as_it_is() -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(2)}  # not all of them prefixed
    assert state_dicts.unwrapped(state) == state
    assert state_dicts.required_tensors(
        {"a": torch.ones(2), "fc.weight": torch.ones(3)}, {"a": torch.zeros(2)}, ("fc.",)
    ).keys() == {"a"}
