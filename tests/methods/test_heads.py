"""The heads TAP and CALM against their papers' formulas, and with methods that know nothing of them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cam import CAM
from baselines.extractors.nwc import NWC
from eil.backbones import Backbone, BackboneInfo
from eil.core.settings import IncompatibleSetting
from eil.methods import base
from eil.methods.base import Targets
from eil.methods.head import CamHead
from eil.methods.heads import CalmHead, TapHead, prior, thresholded_average


def features(size: int = 3) -> Tensor:
    found = torch.randn(size, 5, 4, 4, generator=torch.Generator().manual_seed(2)).relu()
    found[0, 1] = 0  # a dead channel
    return found


def calm() -> CalmHead:
    torch.manual_seed(0)
    return CalmHead(5, 3, init="xavier")


def test_tap_equals_the_loop() -> None:
    found = thresholded_average(features())
    for own, pooled in zip(features(), found, strict=True):
        for channel, value in zip(own.flatten(1).tolist(), pooled.tolist(), strict=True):
            kept = [x for x in channel if x > 0.1 * max(channel)]
            assert value == pytest.approx(sum(kept) / max(len(kept), 1), abs=1e-6)


def test_tap_scores_an_object_alike_whatever_its_size() -> None:
    head = TapHead(1, 2)
    small, large = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    small[..., 0, 0] = 1
    assert torch.equal(head(small), head(large))


def test_calm_equals_the_loop() -> None:
    head, given = calm(), features()
    logits, maps = head(given), [head.maps(given, torch.full((3,), c)) for c in range(3)]
    weight, bias = head.classifier.weight.tolist(), head.classifier.bias.tolist()
    look, offset = head.prior.weight.flatten().tolist(), float(head.prior.bias.detach())  # type: ignore[union-attr]
    for i, own in enumerate(given):
        cells = own.flatten(1).T.tolist()
        r = [max(sum(x * w for x, w in zip(cell, look, strict=True)) + offset, 0) for cell in cells]
        assert sum(r) > 0
        joint = []
        for cell, seen in zip(cells, r, strict=True):
            scores = [
                sum(x * w for x, w in zip(cell, row, strict=True)) + b for row, b in zip(weight, bias, strict=True)
            ]
            total = sum(map(math.exp, scores))
            joint.append([math.exp(score) / total * seen / sum(r) for score in scores])
        for c in range(3):
            assert float(logits[i, c].detach()) == pytest.approx(math.log(sum(cell[c] for cell in joint)), abs=1e-5)
            assert maps[c][i].flatten().tolist() == pytest.approx([cell[c] for cell in joint], abs=1e-6)


def test_calms_logits_are_log_probabilities() -> None:
    assert calm()(features()).exp().sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_calms_prior_sums_to_1_is_even_without_evidence_and_finite() -> None:
    scores = torch.tensor([[[[2.0, 6.0]]], [[[-1.0, 0.0]]]], requires_grad=True)
    found = prior(scores)
    assert found.flatten(1).tolist() == [[0.25, 0.75], [0.5, 0.5]]
    found[:, :, 0, 0].sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_the_scale_of_the_prior_gets_no_gradient() -> None:
    """Sum over z of r dL/dr is 0; with a detached sum it would be -1."""
    r = (torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(1)) + 0.1).requires_grad_()
    evidence = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    (-(prior(r) * evidence).sum(dim=(1, 2, 3)).log()).sum().backward()
    assert r.grad is not None
    assert (r.detach() * r.grad).sum(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_the_loss_em_has_the_gradient_of_ml() -> None:
    """-sum over z of stop(p(z | x, y)) log J: why only one of the two losses is here."""
    head, given, labels = calm(), features(), torch.tensor([0, 1, 2])
    own = head.maps(given, labels)  # J_y
    posterior = (own / own.sum(dim=(1, 2), keepdim=True)).detach()
    em = -(posterior * own.clamp(min=1e-30).log()).sum(dim=(1, 2)).mean()
    ml = F.cross_entropy(head(given), labels)
    for ours, theirs in zip(*(torch.autograd.grad(each, list(head.parameters())) for each in (em, ml)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", ["tap", "calm"])
@pytest.mark.parametrize("method", ["cam", "eil", "bridgegap", "acol"])
def test_methods_train_with_any_head(method: str, head: str) -> None:
    model = base.build(method, {}, "vgg_small", 3, network={"head": head}).train()
    images, targets = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), Targets(torch.arange(3))
    model.loss(images, targets)["total"].backward()
    assert [
        name for name, each in model.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ] == []
    logits, maps = model.eval().maps(images, targets.labels)
    assert logits.shape == (3, 3)
    assert maps.isfinite().all()


@pytest.mark.parametrize("head", ["tap", "calm"])
def test_cams_setting_is_the_networks_option(head: Any) -> None:
    """So that a study can have heads as an axis."""
    images, labels = torch.randn(2, 3, 32, 32), torch.arange(2)
    first = base.build("cam", {"head": head}, "vgg_small", 3).eval()
    second = base.build("cam", {}, "vgg_small", 3, network={"head": head}).eval()
    with torch.inference_mode():
        for ours, theirs in zip(first.maps(images, labels), second.maps(images, labels), strict=True):
            assert torch.equal(ours, theirs)
    plain = base.build("cam", {"head": "cam"}, "vgg_small", 3, network={"head": head})
    assert type(plain.head) is CamHead


def test_extractors_do_not_read_calms_weights_as_a_map() -> None:
    with pytest.raises(IncompatibleSetting, match="CalmHead makes its logits and maps in its own way"):
        NWC(base.build("cam", {"head": "calm"}, "vgg_small", 3))
    NWC(base.build("cam", {"head": "tap"}, "vgg_small", 3))


def test_heads_that_make_no_sense_are_refused() -> None:
    backbone = Backbone("net", {"last": nn.Conv2d(3, 4, 1)}, 4, BackboneInfo((), (1,), head="tap"))
    with pytest.raises(IncompatibleSetting, match="tap needs features that are not negative; those of last can be"):
        CAM(backbone, 3)
    assert isinstance(CAM(backbone, 3, (5,)).head, TapHead)  # its convolution ends in a ReLU
    with pytest.raises(IncompatibleSetting, match="head: tap does not go with BAS"):
        base.build("bas", {}, "vgg_small", 3, network={"head": "tap"})
