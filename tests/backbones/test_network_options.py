"""The options of networks: what is refused, and what new layers start from."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from baselines.acol import ACoL
from baselines.cam import CAM
from eil import backbones
from eil.backbones import Backbone
from eil.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from eil.backbones.factory import with_options
from eil.backbones.networks import resnet50, vgg16
from eil.core.settings import SettingError
from eil.methods.head import CamHead


@pytest.mark.parametrize(
    ("name", "stride", "network", "message"),
    [
        ("resnet50", 16, {"stem": "wsoleval"}, "network = stem: unknown option .*head_widths.*keep_classifier"),
        ("vgg_small", None, {"pools": "3x3"}, "network = pools: unknown option"),
        ("vgg16", 16, {"pools": "round"}, "network.pools = round: "),
        ("vgg16", 16, {"head_dropout": 1.0}, "network.head_dropout = 1.0: .*less than 1"),
        ("vgg16", 16, {"head_widths": (0,)}, "network.head_widths"),
        ("vgg16", 16, {"head_init": "zero"}, "network.head_init = zero: "),
        ("resnet50", 16, {"keep_classifier": True}, "keep_classifier = True: needs pretrained weights"),
        ("inception_v3", 32, {"stem": "wsoleval"}, "stem = wsoleval: needs output_stride 16 or 8"),
        ("vgg16", 32, {"pools": "3x3-pool4"}, "pools = 3x3-pool4: needs output_stride 16 or 8"),
    ],
)
def test_options_that_a_network_cannot_have_are_refused(
    name: str, stride: int | None, network: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        backbones.build_shapes(name, False, stride, network)


@pytest.fixture(scope="module")
def kept() -> Backbone:
    """ResNet-50 with a classifier as if it were pretrained."""
    torch.manual_seed(0)
    return resnet50.resnet50(None, 16, keep_classifier=True)


def test_a_kept_classifier_is_where_the_head_starts(kept: Backbone) -> None:
    assert kept.classifier is not None
    assert not any(p is kept.classifier.weight for p in kept.parameters())
    model = CAM(kept, 1000)
    for name in ("weight", "bias"):
        own, pretrained = getattr(model.head.classifier, name), getattr(kept.classifier, name)
        assert torch.equal(own, pretrained)
        assert own is not pretrained


def test_a_kept_classifier_of_other_classes_or_features_is_refused(kept: Backbone) -> None:
    with pytest.raises(
        SettingError, match=r"keep_classifier = True: needs 2048 features .* and 1000 classes.* 5 classes"
    ):
        CAM(kept, 5)
    with pytest.raises(SettingError, match=r"1024 after 2 convolutions"):
        ACoL(kept, 1000)


def test_the_input_can_be_normalised_as_imagenet() -> None:
    own, imagenet = (
        backbones.build_shapes("inception_v3", False, 16, network).info
        for network in ({}, {"normalisation": "imagenet"})
    )
    assert (own.mean, own.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (imagenet.mean, imagenet.std) == (IMAGENET_MEAN, IMAGENET_STD)


# Standard deviations of the benchmark's new layers at 200 classes.
@pytest.mark.parametrize(
    ("channels", "widths", "init", "convolutions", "classifier"),
    [
        (512, (1024,), "own", [0.0147], 0.01),  # CAM and ADL on VGG16
        (2048, (), "own", [], 0.01),  # CAM and ADL on ResNet-50
        (512, (1024, 1024), "xavier", [0.0120, 0.0104], 0.0404),  # ACoL on VGG16
        (768, (1024, 1024), "xavier", [0.0111, 0.0104], 0.0404),  # Inception-v3
        (2048, (1024, 1024), "he", [0.0147, 0.0147], 0.10),  # ACoL on ResNet-50
    ],
)
def test_new_layers_start_as_the_benchmarks(
    channels: int, widths: tuple[int, ...], init: Any, convolutions: list[float], classifier: float
) -> None:
    torch.manual_seed(0)
    head = CamHead(channels, 200, widths, init=init)
    layers: list[Any] = [block[0] for block in head.conv]  # type: ignore[index]
    for layer, std in zip([*layers, head.classifier], [*convolutions, classifier], strict=True):
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.015)
        assert not layer.bias.any()
        bounded = float(layer.weight.detach().abs().max() / layer.weight.detach().std()) < 1.75  # sqrt(3) if uniform
        assert bounded == (init == "xavier")


def test_dropout_stands_before_each_layer_of_the_head_in_training_only() -> None:
    head = CamHead(3, 2, (4, 5), dropout=0.5)
    for block in head.conv:
        nn.init.ones_(block[0].weight)  # type: ignore[index]
    x = torch.rand(1, 3, 6, 6)
    assert torch.equal(head.eval().features(x), head.conv(x))
    seen: list[torch.Tensor] = []
    for block in head.conv:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    last = head.train().features(x)
    for values in (*seen, last):
        assert 0.2 < float((values == 0).float().mean()) < 0.8


def test_what_a_backbone_declares_holds_where_a_study_gives_no_option() -> None:
    declared = dataclasses.replace(vgg16.INFO, head_dropout=0.3, head_init="xavier", head_widths=(7,))
    assert with_options(declared) == declared
    assert with_options(declared, head_dropout=0.0).head_dropout == 0.0
