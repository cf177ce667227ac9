"""MEIL: one level is EIL to the last bit; several follow the two readings, written out stream by stream."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone, BackboneInfo
from eil.core.settings import IncompatibleSetting, SettingError, check
from eil.methods import base
from eil.methods.base import Targets
from eil.methods.eil import EIL
from eil.methods.erasing import erasing_mask
from eil.methods.meil import MEIL


def plain() -> Backbone:
    """Three convolutions without batch norm, the last of them signed."""
    torch.manual_seed(0)
    stages: dict[str, nn.Module] = {
        name: nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU())
        for name, channels in {"first": 3, "second": 6, "third": 6}.items()
    }
    stages["signed"] = nn.Conv2d(6, 6, 1)
    return Backbone(
        "plain", stages, 6, BackboneInfo(("first", "second", "third"), (1,), meil_stages=("first", "second"))
    )


def batch() -> tuple[Tensor, Targets]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    return images, Targets(torch.arange(4) % 3, torch.rand(4, 1, 32, 32, generator=generator) > 0.5)


@pytest.mark.parametrize("reading", ["chain", "independent"])
@pytest.mark.parametrize(
    "modes", [{}, {"streams": "sequential"}, {"streams": "sequential", "bn": "unerased_only"}], ids=str
)
def test_one_level_is_eil_exactly(reading: str, modes: dict[str, str]) -> None:
    images, targets = batch()
    settings = {"gamma": 0.6, "sigma": 0.5, **modes}
    eil = base.build("eil", {"at": "layer2", **settings}, "resnet_small", 3)
    meil = base.build("meil", {"at": ["layer2"], "reading": reading, **settings}, "resnet_small", 3)
    ours, theirs = (model.loss(images, targets) for model in (meil, eil))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for parts in (ours, theirs):
        parts["total"].backward()
    for a, b in zip(meil.parameters(), eil.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    assert all(torch.equal(a, b) for a, b in zip(meil.buffers(), eil.buffers(), strict=True))
    classes = targets.labels
    for a, b in zip(
        meil.eval().extra_maps(images, classes).values(), eil.eval().extra_maps(images, classes).values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("streams", ["joint", "sequential"])
@pytest.mark.parametrize("reading", ["chain", "independent"])
def test_loss_equals_the_streams_one_by_one(reading: Any, streams: Any) -> None:
    images, targets = batch()
    model = MEIL(plain(), 3, at=("first", "second", "third"), reading=reading, gamma=0.7, sigma=(0.5, 2.0, 0.25),
                 streams=streams)  # fmt: skip
    run = model.backbone.forward_stages
    u1 = run(images, stop="first")
    u2 = run(u1, "first", "second")
    u3 = run(u2, "second", "third")
    e1 = u1 * erasing_mask(u1, 0.7)
    e1_at2 = run(e1, "first", "second")
    source2 = e1_at2 if reading == "chain" else u2
    e2 = source2 * erasing_mask(source2, 0.7)
    source3 = run(e2, "second", "third") if reading == "chain" else u3
    e3 = source3 * erasing_mask(source3, 0.7)
    ends = [u3, run(e1_at2, "second", "third"), run(e2, "second", "third"), e3]
    losses = [F.cross_entropy(model.head(run(x, start="third")), targets.labels) for x in ends]
    parts = model.loss(images, targets)
    torch.testing.assert_close(parts["total"], losses[0] + 0.5 * losses[1] + 2 * losses[2] + 0.25 * losses[3])
    for name, loss in zip(("unerased", "erased", "erased_second", "erased_third"), losses, strict=True):
        torch.testing.assert_close(parts[name], loss, msg=name)
    torch.testing.assert_close(parts["erased_fraction_second"], 1 - erasing_mask(source2, 0.7).mean())
    assert 0 < float(parts["object_erased_third"].detach()) < 1


def test_the_two_readings_differ() -> None:
    images, targets = batch()
    losses = []
    for reading in ("chain", "independent"):
        model = base.build("meil", {"reading": reading}, "vgg_small", 3)
        losses.append(float(model.loss(images, targets)["total"].detach()))
    assert losses[0] != losses[1]


def test_one_weight_serves_every_level() -> None:
    images, targets = batch()
    losses = [
        float(MEIL(plain(), 3, sigma=sigma).loss(images, targets)["total"].detach())
        for sigma in (0.5, (0.5, 0.5), [0.5, 0.5])
    ]
    assert losses[0] == losses[1] == losses[2]


def test_inference_is_eils() -> None:
    images, targets = batch()
    meil, eil = (base.build(name, {}, "vgg_small", 3).eval() for name in ("meil", "eil"))
    for ours, theirs in zip(meil.maps(images, targets.labels), eil.maps(images, targets.labels), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": ("second", "first")}, "must be in the order of plain: first, second, third"),
        ({"at": ("first", "first")}, "must be in the order of plain"),
        ({"at": ("first", "pool9")}, "at = pool9: must be a stage of plain"),
        ({"sigma": (0.5,)}, "must be one weight, or one for each of first, second"),
        ({"gamma": 1.5}, r"gamma = 1.5: must be in \(0, 1\]"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        MEIL(plain(), 3, **settings)


def test_every_level_wants_an_attention_map() -> None:
    with pytest.raises(IncompatibleSetting, match="plain's signed can be negative"):
        MEIL(plain(), 3, at=("first", "signed"))
    MEIL(plain(), 3, at=("first", "signed"), attention="mean_abs")
    assert issubclass(MEIL, EIL)


def test_a_flat_list_of_stages_is_explained() -> None:
    assert check(MEIL, {"at": ["first", "second"]}, "methods.meil") == []
    assert "a setting that is itself a list goes in a list of one: [[...]]" in check(MEIL, {"at": "first"}, "m")[0]
