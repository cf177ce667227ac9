"""CAM, HaS, CutMix and ADL are the benchmark's networks: the same weights give the same numbers.

The references are built from plain torch layers by a description of wsolevaluation's networks, apart from our modules.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import reference_networks
import torch
from reference_networks import pairs, share_weights
from torch import Tensor, nn
from torch.nn import functional as F
from zero_values import zero_initial_values

from baselines.adl import ADL
from baselines.cutmix import CutMix
from baselines.has import HaS
from eil import backbones
from eil.backbones.networks import inception_v3, resnet50, vgg16
from eil.methods import base
from eil.methods.base import Method, Targets
from eil.methods.head import min_max

CLASSES = 5
SIDE = 48
TOLERANCE = 1e-5  # our losses and maps are float32
GAMMA, DROP_RATE = 0.8, 0.6
WSOLEVAL_INCEPTION = {
    "stem": "wsoleval",
    "head_widths": (1024, 1024),
    "head_dropout": 0.5,
    "head_init": "xavier",
    "normalisation": "imagenet",
}


class AttentionDropout(nn.Module):
    """The benchmark's layer: in training, by a coin, the drop mask or the importance map."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        attention = x.mean(dim=1, keepdim=True)
        largest = attention.flatten(1).max(dim=1).values[:, None, None, None]
        if float(torch.rand(1)) < DROP_RATE:
            return x * (attention < GAMMA * largest).to(x.dtype).detach()
        return x * torch.sigmoid(attention)


@dataclass
class Output:
    logits: Tensor
    maps: Tensor


class Reference(nn.Module):
    """A trunk with the benchmark's CAM head.

    Args:
        backbone: vgg16, resnet50 or inception_v3.
        stride: 16 or 8.
        dropout: probability before each layer of Inception's head.
        adl: stages of the trunk, or "head", that a layer of ADL stands behind.
    """

    def __init__(self, backbone: str, stride: int, dropout: float = 0.0, adl: tuple[str, ...] = ()) -> None:
        super().__init__()
        with zero_initial_values():  # ours are copied
            self.trunk = getattr(reference_networks, backbone)(stride)
        self.adl = nn.ModuleDict({stage: AttentionDropout() for stage in adl})
        self.dropout, self.convolutional = dropout, backbone == "inception_v3"
        if backbone == "vgg16":
            self.convolutions = nn.ModuleList([nn.Conv2d(512, 1024, 3, padding=1)])
            self.classifier: nn.Module = nn.Linear(1024, CLASSES)
        elif backbone == "resnet50":
            self.convolutions = nn.ModuleList()
            self.classifier = nn.Linear(2048, CLASSES)
        else:
            self.convolutions = nn.ModuleList([nn.Conv2d(768, 1024, 3, padding=1), nn.Conv2d(1024, 1024, 3, padding=1)])
            self.classifier = nn.Conv2d(1024, CLASSES, 1)

    def forward(self, images: Tensor, classes: Tensor) -> Output:
        x = list(reference_networks.outputs(self.trunk, images, self.adl).values())[-1]
        for convolution in self.convolutions:
            x = torch.relu(convolution(F.dropout(x, self.dropout, self.training)))
        if "head" in self.adl:
            x = self.adl["head"](x)
        rows = torch.arange(len(images))
        if self.convolutional:
            scores = self.classifier(F.dropout(x, self.dropout, self.training))  # (B, C, h, w)
            return Output(scores.mean(dim=(2, 3)), scores[rows, classes])
        weight = self.classifier.weight[classes]  # (B, K)
        return Output(self.classifier(x.mean(dim=(2, 3))), (x * weight[:, :, None, None]).mean(dim=1))


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference, relative to the largest value."""
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def differences(model: Method, reference: Reference, seeds: list[int], cells: int) -> Iterator[float]:
    """Of the losses, gradients and running statistics in training, then of logits and maps in testing."""
    torch.manual_seed(1)
    images, labels = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64), torch.tensor([3, 1])
    head = [model.head.conv, model.head.classifier]
    ours, theirs = [model.backbone, *head], [reference.trunk, reference.convolutions, reference.classifier]
    share_weights(ours, theirs)
    for seed in seeds:
        model.train().zero_grad()
        reference.train().zero_grad()
        torch.manual_seed(seed)
        found = model.loss(images, Targets(labels))["total"]
        torch.manual_seed(seed)
        expected = F.cross_entropy(reference(images, labels).logits, labels)
        found.backward()
        expected.backward()
        yield difference(found, expected)
        for a, b in pairs(ours, theirs):
            assert a.grad is not None
            assert b.grad is not None
            yield difference(a.grad.reshape(b.shape), b.grad)
    statistics = [[x for module in modules for x in module.buffers()] for modules in (ours, theirs)]
    for a, b in zip(*statistics, strict=True):
        yield difference(a, b)
    classes = torch.tensor([0, 4])
    with torch.no_grad():
        logits, maps = model.eval().maps(images, classes)
        output = reference.eval()(images, classes)
    assert maps.shape == (2, cells, cells)
    yield difference(logits, output.logits)
    yield difference(min_max(maps), min_max(output.maps))


def built(method: str, backbone: str, stride: int, settings: dict[str, Any], network: dict[str, Any]) -> Method:
    return base.build(method, settings, backbone, CLASSES, output_stride=stride, network=network).double()


STRIDES = [(backbone, stride) for backbone in ("vgg16", "resnet50", "inception_v3") for stride in (16, 8)]


@pytest.mark.parametrize(("backbone", "stride"), STRIDES)
def test_cam_has_and_cutmix_are_the_benchmarks_network(backbone: str, stride: int) -> None:
    inception = backbone == "inception_v3"
    model = built("cam", backbone, stride, {}, WSOLEVAL_INCEPTION if inception else {})
    reference = Reference(backbone, stride, dropout=0.5 if inception else 0).double()
    assert all(found < TOLERANCE for found in differences(model, reference, [0], SIDE // stride))
    images, targets = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64), Targets(torch.tensor([0, 2]))
    for cls in (HaS, CutMix):
        other = cls(model.backbone, CLASSES).double()
        other.head.load_state_dict(model.head.state_dict())
        assert other.maps.__func__ is model.maps.__func__  # type: ignore[attr-defined]
        losses = []
        for method in (model, other):
            torch.manual_seed(0)
            losses.append(method.train().loss(images, targets)["total"])
        assert torch.equal(*losses)


def seed_of(coins: tuple[bool, ...]) -> int:
    """A seed by which each layer of ADL in turn takes the drop mask (True) or the importance map."""
    for seed in itertools.count():
        torch.manual_seed(seed)
        if tuple(float(torch.rand(1)) < DROP_RATE for _ in coins) == coins:
            return seed
    raise AssertionError


AT = {
    ("vgg16", 16): ("pool3", "conv4", "conv5"),
    ("vgg16", 8): ("pool3", "conv4", "conv5"),
    ("resnet50", 16): ("layer3_0", "layer4_0", "layer4_2"),
    ("resnet50", 8): ("layer3_0", "layer4_0", "layer4_2"),
    ("inception_v3", 16): ("Mixed_5d", "Mixed_6e", "head_2"),
    ("inception_v3", 8): ("Mixed_5d", "Mixed_6e", "head_2"),
}


@pytest.mark.parametrize(("backbone", "stride"), STRIDES)
def test_adl_is_the_benchmarks(backbone: str, stride: int) -> None:
    network = {**WSOLEVAL_INCEPTION, "head_dropout": 0.0} if backbone == "inception_v3" else {}
    at = AT[backbone, stride]
    settings = {"at": at, "gamma": GAMMA, "drop_rate": DROP_RATE}
    model = built("adl", backbone, stride, settings, network)
    reference = Reference(backbone, stride, adl=tuple("head" if stage == "head_2" else stage for stage in at)).double()
    seeds = [seed_of((True, False, True)), seed_of((False, True, False))]
    assert all(found < TOLERANCE for found in differences(model, reference, seeds, SIDE // stride))


def test_adl_stands_by_default_where_it_is_said_to() -> None:
    """On VGG16 where the authors have it, behind pool4; on the others where the benchmark has it, but for the head."""
    assert vgg16.INFO.adl_stages == ("pool3", "pool4", "conv5")
    assert resnet50.INFO.adl_stages == AT["resnet50", 16]
    assert inception_v3.INFO.adl_stages == AT["inception_v3", 16][:2]


def test_the_comparison_notices_each_part_of_the_layout() -> None:
    """The same weights in a network that lacks one part give another loss."""
    torch.manual_seed(0)
    images, targets = torch.randn(2, 3, SIDE, SIDE), Targets(torch.tensor([3, 1]))
    whole = {**WSOLEVAL_INCEPTION, "head_dropout": 0.0}
    at = {"at": AT["inception_v3", 16], "gamma": GAMMA, "drop_rate": DROP_RATE}

    def loss(settings: dict[str, Any], network: dict[str, Any]) -> float:
        with zero_initial_values():
            backbone = backbones.build("inception_v3", False, 16, network)
        backbone.load_state_dict(weights)
        torch.manual_seed(0)
        model = ADL(backbone, CLASSES, **settings)
        torch.manual_seed(seed_of((True, False, True)))
        return float(model.train().loss(images, targets)["total"].detach())

    weights = backbones.build("inception_v3", False, 16, whole).state_dict()
    expected = loss(at, whole)
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "stem": (at, {**whole, "stem": "own"}),
        "dropout": (at, {**whole, "head_dropout": 0.5}),
        "the layer in the head": ({**at, "at": at["at"][:2]}, whole),
    }
    for part, (settings, network) in changes.items():
        assert abs(loss(settings, network) - expected) > 1e-3 * expected, part
