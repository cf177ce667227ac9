"""Map extractors: identities on a pooled linear head, slow oracles of their equations, and torch-cam where right."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchcam import methods as torchcam

from baselines import CAM
from baselines.extractors.bagcams import BagCAMs, bagcams
from baselines.extractors.cam import CAMMap
from baselines.extractors.ccam import CCAM, rank_weights
from baselines.extractors.gradients import (
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    Reading,
    XGradCAM,
    gradcam_plus_plus,
    xgradcam,
)
from baselines.extractors.nwc import NWC
from baselines.extractors.pc1 import PC1, first_component
from eil.backbones import Backbone, BackboneInfo
from eil.methods import base
from eil.methods.extractor import Extractor
from eil.methods.shared_pass import extract

CELLS = 64  # of resnet_small at 32 pixels
CLASSES = 4


@pytest.fixture(scope="module")
def model() -> base.Method:
    """Its last stage is not negative and is pooled without layers between."""
    return base.build("cam", {}, "resnet_small", CLASSES, seed=3).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([2, 0, 1, 3])


def found(model: base.Method, images: Tensor, extractor: Extractor, classes: Tensor = LABELS) -> Tensor:
    return extract(model, {"it": extractor}, images, classes)[1]["it"]


def evidence(model: base.Method, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Last features (B, K, h, w), the class's weights (B, K) and the asked logits (B,)."""
    with torch.no_grad():
        features = model.backbone(images)
        logits = model.head(features)
    return features, model.head.classifier.weight.detach()[LABELS], logits.gather(1, LABELS[:, None])[:, 0]


def test_at_the_last_stage_the_gradient_maps_are_cam_or_nwc(model: base.Method, images: Tensor) -> None:
    cam, nwc = found(model, images, CAMMap(model)), found(model, images, NWC(model))
    assert torch.equal(cam, model.maps(images, LABELS)[1].detach())
    assert (cam < 0).any()
    for extractor, expected in (
        (HiResCAM(model, at="layer3"), cam),
        (GradCAM(model, at="layer3"), cam.relu()),
        (XGradCAM(model, at="layer3"), cam.relu()),
        (LayerCAM(model, at="layer3"), nwc),
    ):
        torch.testing.assert_close(CELLS * found(model, images, extractor), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reading", ["equation-19", "per-position"])
def test_at_the_last_stage_gradcam_plus_plus_has_its_closed_form(
    model: base.Method, images: Tensor, reading: Reading
) -> None:
    features, weight, _ = evidence(model, images)
    alpha = weight.relu() / (2 + weight * features.mean(dim=(2, 3)))
    expected = torch.einsum("bkhw,bk->bhw", features, alpha).relu()
    maps = found(model, images, GradCAMPlusPlus(model, at="layer3", reading=reading))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-5)


def test_at_the_last_stage_bagcams_are_nwc_with_a_factor_a_channel(model: base.Method, images: Tensor) -> None:
    features, weight, logit = evidence(model, images)
    share = weight * features.mean(dim=(2, 3)) / (CELLS * logit.abs()[:, None])
    expected = torch.einsum("bkhw,bk->bhw", features, (1 + share) * weight.relu())
    maps = found(model, images, BagCAMs(model, at="layer3")) * CELLS * logit.abs()[:, None, None]
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reading", ["equation-19", "per-position"])
def test_gradcam_plus_plus_follows_its_equation_at_an_inner_stage(reading: Reading) -> None:
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    g[rng.random(g.shape) < 0.3] = 0
    expected = np.zeros((2, 4, 5))
    for b in range(2):
        for k in range(3):
            weight = 0.0
            for u in np.ndindex(4, 5):
                if reading == "equation-19":
                    further = sum(f[b, k][v] for v in np.ndindex(4, 5)) * g[b, k][u] ** 3
                else:
                    further = sum(f[b, k][v] * g[b, k][v] ** 3 for v in np.ndindex(4, 5))
                if g[b, k][u] != 0:
                    weight += g[b, k][u] ** 2 / (2 * g[b, k][u] ** 2 + further) * max(g[b, k][u], 0)
            expected[b] += weight * f[b, k]
    ours = gradcam_plus_plus(torch.from_numpy(f), torch.from_numpy(g), reading)
    np.testing.assert_allclose(ours, np.maximum(expected, 0), rtol=1e-9)


def test_xgradcam_sums_to_the_first_order_part_of_the_logit() -> None:
    f, g = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    f[:, 1] = 0  # a dead channel has no part in it
    torch.testing.assert_close(xgradcam(f, g).sum(dim=(1, 2)), (f * g).sum(dim=(1, 2, 3)))


class Whole(nn.Module):
    """The network as torch-cam wants it: images -> logits."""

    def __init__(self, model: base.Method) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(GradCAM, torchcam.GradCAM), (XGradCAM, torchcam.XGradCAM), (LayerCAM, torchcam.LayerCAM)],
    ids=["gradcam", "xgradcam", "layercam"],
)
@pytest.mark.parametrize("stage", ["layer1", "layer2", "layer3"])
def test_three_extractors_equal_torch_cam(
    model: base.Method, images: Tensor, ours: type[GradCAM], theirs: type[torchcam.GradCAM], stage: str
) -> None:
    expected = of_torch_cam(model, images, theirs, stage)
    torch.testing.assert_close(found(model, images, ours(model, at=stage)), expected, rtol=1e-5, atol=1e-8)


def test_gradcam_plus_plus_of_torch_cam_loses_its_division(model: base.Method, images: Tensor) -> None:
    """If this fails, torch-cam has mended it: compare ours with it, and change the docstring of the extractor."""
    x = model.backbone.forward_stages(images, stop="layer2").detach().requires_grad_()
    score = model.head(model.backbone.forward_stages(x, start="layer2")).gather(1, LABELS[:, None]).sum()
    (g,) = torch.autograd.grad(score, x)
    undivided = ((g**2 * g.relu()).sum(dim=(2, 3), keepdim=True) * x.detach()).sum(dim=1).relu()
    theirs = of_torch_cam(model, images, torchcam.GradCAMpp, "layer2")
    torch.testing.assert_close(theirs, undivided, rtol=1e-4, atol=0)
    ours = found(model, images, GradCAMPlusPlus(model, at="layer2"))
    scaled = [maps / maps.amax(dim=(1, 2), keepdim=True) for maps in (ours, theirs)]
    assert (scaled[0] - scaled[1]).abs().max() > 0.01


def of_torch_cam(model: base.Method, images: Tensor, kind: type[torchcam.GradCAM], stage: str) -> Tensor:
    net = Whole(copy.deepcopy(model))
    with kind(net, f"backbone.stages.{stage}") as extractor:
        (maps,) = extractor(class_idx=LABELS.tolist(), scores=net(images), normalized=False)
    return maps.detach()


@pytest.mark.parametrize("weights", ["quadratic", "linear"])
def test_ccam_is_the_weighted_sum_of_all_classes_maps(
    model: base.Method, images: Tensor, weights: Literal["quadratic", "linear"]
) -> None:
    logits = model.maps(images, LABELS)[0].detach()
    of_class = torch.stack([found(model, images, CAMMap(model), torch.full((4,), c)) for c in range(CLASSES)], dim=1)
    gamma = {"linear": [1, 1 / 3, -1 / 3, -1], "quadratic": [1, 0, 0, -1]}[weights]
    expected = torch.zeros(4, 8, 8)
    for b in range(4):
        for rank, c in enumerate(np.argsort(-logits[b].numpy())):
            expected[b] += gamma[rank] * of_class[b, c]
    maps = found(model, images, CCAM(model, weights=weights))
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(maps, found(model, images, CCAM(model, weights=weights), LABELS.flip(0)))


def test_ccams_weights_are_the_authors_on_cub() -> None:
    gamma = rank_weights(200, "quadratic", 100)
    ends = [gamma[0], gamma[99], gamma[100], gamma[199]]
    assert ends == [1, 0, 0, -1]
    assert gamma[33] == pytest.approx((66 / 99) ** 2)
    assert gamma[133] == pytest.approx(-((33 / 99) ** 2))


def test_ccam_first_minus_last(model: base.Method, images: Tensor) -> None:
    last = model.maps(images, LABELS)[0].argmin(dim=1)
    cam, other = found(model, images, CAMMap(model)), found(model, images, CAMMap(model), last)
    maps = found(model, images, CCAM(model, weights="first-last"))
    torch.testing.assert_close(maps, cam - other, rtol=1e-4, atol=1e-6)


def test_pc1_is_the_first_axis_of_scaled_channels() -> None:
    rng = np.random.default_rng(1)
    bump = np.exp(-np.square(np.stack(np.mgrid[-3:4, -3:4])).sum(axis=0) / 4)  # an object in the middle
    features = rng.random((10, 1, 1)) * bump + 0.2 * rng.random((10, 7, 7))
    weights = rng.normal(size=10)
    rows = (weights[:, None, None] * features).reshape(10, 49)
    rows = (rows - rows.min(axis=1, keepdims=True)) / np.ptp(rows, axis=1, keepdims=True)
    axis = np.linalg.svd(rows - rows.mean(axis=0))[2][0]
    ours = first_component(torch.from_numpy(features)[None], torch.from_numpy(weights)[None])[0]
    assert abs(float(ours.flatten() @ torch.from_numpy(axis).float())) == pytest.approx(1, abs=1e-5)
    assert ours[3, 3] > ours[0].mean()  # the border is low

    def map_of(features: np.ndarray, weights: np.ndarray) -> Tensor:
        return first_component(torch.from_numpy(features)[None], torch.from_numpy(weights)[None])[0]

    torch.testing.assert_close(map_of(features, weights * rng.uniform(0.1, 9, 10)), ours)
    torch.testing.assert_close(map_of(features, -weights), ours)
    dead = np.concatenate([features, np.zeros((1, 7, 7))])
    torch.testing.assert_close(map_of(dead, np.append(weights, 1.0)), ours)
    assert not map_of(dead[-1:], weights[:1]).any()  # nothing varies


def relu_net(relu: str) -> base.Method:
    """The same weights with ReLUs as modules, in place, or as functions."""
    torch.manual_seed(0)

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.relu(x)

    made = {"module": nn.ReLU, "in place": lambda: nn.ReLU(inplace=True), "function": Functional}[relu]

    def layer(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3 if width == 4 else 4, 4 + (width == 6), 3, padding=1), made())

    stages = OrderedDict(one=layer(4), two=nn.Sequential(made(), layer(5)), three=layer(6))
    info = BackboneInfo(non_negative=("one", "two", "three"), output_strides=(1,), grids=True)
    return CAM(Backbone("relus", stages, 5, info), CLASSES).eval()


def test_guided_relus_are_found_as_modules_functions_and_in_place(images: Tensor) -> None:
    x, y = images[:, :, :8, :8], LABELS
    net = relu_net("module")
    guided = guided_gradients(net, x, "one")
    features = net.backbone.forward_stages(x, stop="one")
    expected = bagcams(features, guided).detach()
    plain = found(net, x, BagCAMs(net, at="one", objective="logit", guided=False), y)
    assert not torch.allclose(plain, expected, rtol=1e-2, atol=1e-7)
    for kind in ("module", "in place", "function"):
        net = relu_net(kind)
        maps = found(net, x, BagCAMs(net, at="one", objective="logit"), y)
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-9)


def guided_gradients(net: base.Method, x: Tensor, stage: str) -> Tensor:
    """By hooks on modules, as the authors' code does it."""
    handles = [
        module.register_full_backward_hook(lambda _, inward, outward: (inward[0].clamp(min=0),))
        for module in net.modules()
        if isinstance(module, nn.ReLU)
    ]
    start = net.backbone.forward_stages(x, stop=stage).detach().requires_grad_()
    score = net.head(net.backbone.forward_stages(start, start=stage)).gather(1, LABELS[:, None]).sum()
    (found,) = torch.autograd.grad(score, start)
    for handle in handles:
        handle.remove()
    return found


def test_bagcams_of_a_negative_logit_are_not_turned_over(model: base.Method, images: Tensor) -> None:
    shifted = copy.deepcopy(model)
    shifted.head.classifier.bias.data -= 100
    logits = shifted.maps(images, LABELS)[0].detach()
    assert (logits < 0).all()
    ours = found(shifted, images, BagCAMs(shifted))
    gradient = guided_gradients_of(shifted, images) / logits.gather(1, LABELS[:, None]).abs()[:, :, None, None]
    features = shifted.backbone.forward_stages(images, stop="layer2").detach()
    torch.testing.assert_close(ours, bagcams(features, gradient), rtol=1e-3, atol=1e-7)
    assert ours.amax() > 0


def guided_gradients_of(model: base.Method, images: Tensor) -> Tensor:
    """At layer2 of resnet_small, whose layer3 has two functional ReLUs, step by step."""
    block = model.backbone.stages["layer3"]
    x = model.backbone.forward_stages(images, stop="layer2").detach().requires_grad_()
    first = block.bn1(block.conv1(x))
    hidden = first.relu().detach().requires_grad_()
    second = block.bn2(block.conv2(hidden)) + block.shortcut(x)
    out = second.relu().detach().requires_grad_()
    (g,) = torch.autograd.grad(model.head(out).gather(1, LABELS[:, None]).sum(), out)
    g = g.clamp(min=0) * (second > 0)
    g_hidden, direct = torch.autograd.grad(second, (hidden, x), g, retain_graph=True)
    (through,) = torch.autograd.grad(first, x, g_hidden.clamp(min=0) * (first > 0))
    return (direct + through).detach()


def test_a_logit_of_zero_gives_a_finite_map(model: base.Method, images: Tensor) -> None:
    nothing = copy.deepcopy(model)
    nn.init.zeros_(nothing.head.classifier.bias)
    nn.init.zeros_(nothing.head.classifier.weight)
    assert found(nothing, images, BagCAMs(nothing)).isfinite().all()


def kinds(model: base.Method) -> Iterator[Extractor]:
    yield from (CAMMap(model), NWC(model), PC1(model), CCAM(model), CCAM(model, weights="first-last"))
    yield from (each(model) for each in (GradCAM, GradCAMPlusPlus, XGradCAM, HiResCAM, LayerCAM, BagCAMs))


def test_a_map_changes_with_the_class_or_says_that_it_does_not(model: base.Method, images: Tensor) -> None:
    for each in kinds(model):
        same = torch.equal(found(model, images, each), found(model, images, each, (LABELS + 1) % CLASSES))
        assert same != each.class_dependent, type(each).__name__
        assert each.signed or not (found(model, images, each) < 0).any()
