"""Networks whose features are tokens: reshaped to a grid every method runs; otherwise the error names the stage."""

from typing import Any

import pytest
import tiny_vit
import torch
from torch import nn

from eil.backbones import Backbone
from eil.core import registry
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods import EIL, MEIL
from eil.methods.base import Method, Targets

OF_CLASS_TOKENS = ("scm", "tscam")  # tests/baselines/test_transformers.py
METHODS = [name for name in registry.available(registry.METHODS) if name not in OF_CLASS_TOKENS]
SETTINGS: dict[str, dict[str, Any]] = {
    "eil": {"attention": "mean_abs"},
    "meil": {"attention": "mean_abs"},
    "bridgegap": {"at": "block1", "attention": "mean_abs"},
    "bas": {"at": "block1"},
}


def build(name: str, backbone: Backbone, **settings: Any) -> Method:
    return registry.load(registry.METHODS, name)(backbone, 3, **settings)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "adl"])
def test_methods_run_on_a_grid_of_tokens(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, tiny_vit.grid(), **SETTINGS.get(name, {})).train()
    images, targets = model.augment(torch.randn(4, 3, 32, 32), Targets(torch.arange(4) % 3))
    losses = model.loss(images, targets)
    losses["total"].backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())
    with torch.no_grad():
        logits, maps = model.eval().maps(images, torch.arange(4) % 3)
        extra_maps = model.extra_maps(images, torch.arange(4) % 3)
    assert logits.shape == (4, 3)
    assert maps.shape == (4, 4, 4)
    assert all(each.shape == (4, 4, 4) for each in extra_maps.values())


@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_refused_by_backbone_stage_and_shape(name: str) -> None:
    expected = r"token_vit's block\d have shape \(B, 17, 16\); expected a grid, \(B, C, h, w\)"
    settings = {"adl": {"at": ("block1",)}, "meil": {"at": ("block1",)}, "eil": {"at": "block1"}}.get(name, {})
    with pytest.raises(IncompatibleSetting, match=expected):
        build(name, tiny_vit.tokens(), **settings)


def test_a_stage_of_tokens_before_a_grid_is_refused_where_a_method_reads_it() -> None:
    stages = {"embedding": tiny_vit.PatchEmbedding(), "block1": tiny_vit.Tokens(tiny_vit.block())}
    backbone = Backbone("mixed_vit", stages, tiny_vit.WIDTH, tiny_vit.grid().info)
    build("cam", backbone)
    for name, settings in (
        ("eil", {"at": "embedding", "attention": "mean_abs"}),
        ("meil", {"at": ("embedding", "block1"), "attention": "mean_abs"}),
        ("adl", {"at": ("embedding",)}),
        ("spg", {"taps": ("embedding", "block1")}),
    ):
        with pytest.raises(IncompatibleSetting, match=r"mixed_vit's embedding have shape \(B, 17, 16\)"):
            build(name, backbone, **settings)


def test_without_a_non_negative_stage_the_message_lists_none() -> None:
    with pytest.raises(IncompatibleSetting, match=r"no attention map: set attention: mean_abs$"):
        EIL(tiny_vit.grid(), 3)
    with pytest.raises(IncompatibleSetting, match=r"no attention map: no stage of grid_vit is declared non-negative$"):
        build("adl", tiny_vit.grid(), at=("block1",))


@pytest.mark.parametrize(("name", "setting"), [("eil", "at"), ("meil", "at"), ("adl", "at"), ("spg", "taps")])
def test_a_method_without_default_stages_names_the_setting_to_give(name: str, setting: str) -> None:
    backbone = tiny_vit.grid()
    backbone.info = type(backbone.info)(non_negative=(), output_strides=(8,), example_side=32)
    expected = f"{setting} = None: has no default for grid_vit: choose from embedding, block1, block2"
    with pytest.raises(SettingError, match=expected):
        build(name, backbone)


def test_erasing_removes_whole_tokens() -> None:
    model = EIL(tiny_vit.grid(), 3, attention="mean_abs")
    features = model.f1(torch.randn(2, 3, 32, 32))
    erased = (features * model.mask(features)).flatten(2) == 0  # (B, C, cells)
    assert torch.equal(erased.any(dim=1), erased.all(dim=1))
    assert 0 < int(erased[:, 0].sum()) < erased[:, 0].numel()
    assert isinstance(MEIL(tiny_vit.grid(), 3, attention="mean_abs"), nn.Module)
