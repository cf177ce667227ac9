"""EIL against the paper's Algorithm 1, written out as loops."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone, BackboneInfo
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods import base
from eil.methods.base import Targets
from eil.methods.eil import EIL
from eil.methods.erasing import erasing_mask
from eil.profiling import cost

MAP = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 8.0, 10.0]])


def plain(width: int = 6) -> Backbone:
    """Two convolutions without batch norm, whose first ends in an activation."""
    torch.manual_seed(0)
    stages = {
        "first": nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU()),
        "second": nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
        "signed": nn.Conv2d(width, width, 1),
    }
    return Backbone("plain", stages, width, BackboneInfo(("first", "second"), (1,), eil_stage="first"))


def batch(size: int = 4) -> tuple[Tensor, Targets]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 12, 12, generator=generator)
    masks = torch.rand(size, 1, 12, 12, generator=generator) > 0.5
    return images, Targets(torch.arange(size) % 3, masks)


def loop_mask(features: Tensor, gamma: float, relative: bool) -> Tensor:
    """Algorithm 1, pixel by pixel."""
    count, channels, height, width = features.shape
    features = features.detach()
    mask = torch.ones(count, 1, height, width)
    for b in range(count):
        mean = [[sum(float(features[b, k, i, j]) for k in range(channels)) / channels for j in range(width)]
                for i in range(height)]  # fmt: skip
        threshold = gamma * max(map(max, mean)) if relative else gamma
        for i in range(height):
            for j in range(width):
                if mean[i][j] >= threshold:
                    mask[b, 0, i, j] = 0
    return mask


@pytest.mark.parametrize(
    ("gamma", "mode", "erased"),
    [
        (0.5, "relative", {5, 6, 8, 10}),
        (1.0, "relative", {10}),
        (5.5, "absolute", {6, 8, 10}),
        (11.0, "absolute", set()),
    ],
)
def test_mask_on_a_map_made_by_hand(gamma: float, mode: Any, erased: set[float]) -> None:
    features = torch.stack([MAP - 1, MAP + 1])[None]  # channel mean: MAP
    keep = erasing_mask(features, gamma, mode)
    assert keep.shape == (1, 1, 3, 3)
    assert set(MAP[keep[0, 0] == 0].tolist()) == erased
    assert set(keep.unique().tolist()) <= {0.0, 1.0}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.05, 1.0), st.booleans())
def test_mask_equals_the_loop(seed: int, gamma: float, relative: bool) -> None:
    # Eighths and four channels: every sum is exact, so that >= is the same in either precision.
    features = torch.randint(0, 9, (2, 4, 3, 4), generator=torch.Generator().manual_seed(seed)) / 8
    gamma = round(gamma * 16 + 1) / 32 + 1 / 512  # between the values that a mean can take
    keep = erasing_mask(features, gamma, "relative" if relative else "absolute")
    assert torch.equal(keep, loop_mask(features, gamma, relative))


@given(st.integers(0, 2**31), st.floats(0.01, 1.0))
def test_the_maximum_is_always_erased_in_relative_mode(seed: int, gamma: float) -> None:
    features = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
    keep = erasing_mask(features, gamma)
    peak = features.mean(dim=1).flatten(1).argmax(dim=1, keepdim=True)
    assert keep.flatten(1).gather(1, peak).sum() == 0


def test_a_map_of_zeros_is_erased_whole() -> None:
    assert erasing_mask(torch.zeros(1, 2, 3, 3), 0.7).sum() == 0


def test_all_channels_share_the_mask_and_each_image_has_its_own() -> None:
    features = torch.rand(2, 7, 5, 5) + 0.1
    erased = features * erasing_mask(features, 0.8)
    zero = erased == 0
    assert torch.equal(zero.any(dim=1), zero.all(dim=1))
    assert not torch.equal(zero[0, 0], zero[1, 0])


def test_bf16_features_are_averaged_in_float32() -> None:
    # 257 is no bf16 number: a mean taken in bf16 would round it to 256 and erase both places.
    features = torch.tensor([[256.0, 256.0], [256.0, 258.0]]).bfloat16().reshape(1, 2, 1, 2)
    keep = erasing_mask(features, 256.5, "absolute")
    assert keep.dtype == torch.bfloat16
    assert keep.flatten().tolist() == [1, 0]


def test_signed_features_cancel_in_the_mean_and_not_in_the_magnitudes() -> None:
    features = torch.tensor([[9.0, 2.0], [-9.0, 2.0]]).reshape(1, 2, 1, 2)
    assert erasing_mask(features, 0.5).flatten().tolist() == [1, 0]
    assert erasing_mask(features, 0.5, attention="mean_abs").flatten().tolist() == [0, 1]


def test_no_gradient_reaches_erased_cells_through_the_erased_stream() -> None:
    features = torch.rand(2, 3, 4, 4, requires_grad=True)
    keep = erasing_mask(features, 0.7)
    assert not keep.requires_grad
    (features * keep).square().sum().backward()
    assert features.grad is not None
    assert features.grad[(keep == 0).expand_as(features)].abs().sum() == 0
    assert (features.grad[(keep == 1).expand_as(features)] != 0).all()


def test_a_threshold_above_every_activation_doubles_the_loss() -> None:
    images, targets = batch()
    model = EIL(plain(), 3, gamma=1e6, gamma_mode="absolute", sigma=0.25)
    parts = model.loss(images, targets)
    plain_loss = F.cross_entropy(model.head(model.backbone(images)), targets.labels)
    torch.testing.assert_close(parts["total"], 1.25 * plain_loss)
    assert parts["erased_fraction"] == 0
    assert parts["object_erased"] == 0


def test_loss_equals_the_loop() -> None:
    images, targets = batch()
    model = EIL(plain(), 3, gamma=0.6, sigma=0.5)
    total = 0.0
    for image, label in zip(images, targets.labels, strict=True):
        f_u = model.backbone.forward_stages(image[None], stop="first")
        f_e = f_u * loop_mask(f_u, 0.6, relative=True)
        for features, weight in ((f_u, 1.0), (f_e, 0.5)):
            scores = model.head(model.backbone.forward_stages(features, start="first"))[0].exp()
            total -= weight * float(torch.log(scores[label] / scores.sum()).detach()) / len(images)
    assert float(model.loss(images, targets)["total"].detach()) == pytest.approx(total, rel=1e-5)


def test_logged_parts() -> None:
    images, targets = batch()
    model = EIL(plain(), 3, gamma=0.6, sigma=2.0)
    parts = model.loss(images, targets)
    keep = model.mask(model.backbone.forward_stages(images, stop="first"))
    assert targets.masks is not None
    torch.testing.assert_close(parts["total"], parts["unerased"] + 2 * parts["erased"])
    torch.testing.assert_close(parts["erased_fraction"], (keep == 0).float().mean())
    share = (targets.masks & (keep == 0)).sum() / targets.masks.sum()
    torch.testing.assert_close(parts["object_erased"], share)


def test_joint_equals_sequential_without_batch_norm() -> None:
    images, targets = batch()
    models = [EIL(plain(), 3, gamma=0.6, streams=streams) for streams in ("joint", "sequential")]
    models[1].load_state_dict(models[0].state_dict())
    losses = [model.loss(images, targets)["total"] for model in models]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, list(m.parameters()), allow_unused=True)
                 for loss, m in zip(losses, models, strict=True)]  # fmt: skip
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_batch_norm_modes_differ_as_they_say() -> None:
    images, targets = torch.randn(6, 3, 32, 32), Targets(torch.arange(6) % 3)
    norms, losses = {}, {}
    for bn in ("joint", "sequential", "unerased_only"):
        streams = "joint" if bn == "joint" else "sequential"
        model = base.build("eil", {"gamma": 0.6, "streams": streams, "bn": bn}, "resnet_small", 3)
        losses[bn] = float(model.loss(images, targets)["total"].detach())
        norms[bn] = model.backbone.stages["layer3"].bn1.running_mean.clone()
    cam = base.build("cam", {}, "resnet_small", 3)
    cam.loss(images, targets)
    torch.testing.assert_close(norms["unerased_only"], cam.backbone.stages["layer3"].bn1.running_mean)
    assert losses["sequential"] == losses["unerased_only"] != losses["joint"]
    assert not torch.allclose(norms["sequential"], norms["unerased_only"])
    assert not torch.allclose(norms["sequential"], norms["joint"])


def test_inference_never_pays_for_the_erased_stream() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    counts = []
    for name in ("cam", "eil"):
        model = base.build(name, {}, "vgg_small", 3).eval()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model.maps(images, classes)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_step_keeps_what_cams_keeps_and_the_doubled_tail() -> None:
    images, targets = batch(8)
    eil, cam = (base.build(name, {}, "vgg_small", 3).train() for name in ("eil", "cam"))
    assert isinstance(eil, EIL)
    kept = [cost.kept_bytes(lambda model=model: model.loss(images, targets)["total"]) for model in (eil, cam)]
    features = eil.backbone.forward_stages(images, stop=eil.at).detach().requires_grad_()
    tail = cost.kept_bytes(lambda: eil.f2(torch.cat([features, features])).sum())
    assert kept[1] < kept[0] <= kept[1] + tail
    assert cost.kept_bytes(lambda: features.square().sum()) == features.numel() * 4


def test_maps_equal_cam_with_the_same_weights() -> None:
    cam, eil = (base.build(name, {}, "vgg_small", 3, seed=4).eval() for name in ("cam", "eil"))
    images, classes = torch.randn(2, 3, 32, 32), torch.tensor([2, 1])
    with torch.inference_mode():
        for ours, theirs in zip(cam.maps(images, classes), eil.maps(images, classes), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"gamma": 1.4}, r"gamma = 1.4: must be in \(0, 1\]"),
        ({"gamma": 0.0}, "gamma = 0.0: must be in"),
        ({"gamma": -2.0, "gamma_mode": "absolute"}, "gamma = -2.0: must be above 0"),
        ({"at": "pool9"}, "at = pool9: must be a stage of plain: first, second, signed"),
        ({"bn": "joint", "streams": "sequential"}, "bn = joint: does not go with streams = sequential"),
        ({"bn": "unerased_only"}, "bn = unerased_only: does not go with streams = joint"),
    ],
)
def test_bad_settings_are_named(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        EIL(plain(), 3, **settings_)


def test_signed_features_want_magnitudes() -> None:
    with pytest.raises(IncompatibleSetting, match="use one of first, second, or set attention: mean_abs"):
        EIL(plain(), 3, at="signed")
    EIL(plain(), 3, at="signed", attention="mean_abs")
