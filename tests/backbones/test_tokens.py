"""Erasing on a transformer: an erased patch is as if it had been dropped."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone, build, tokens
from eil.methods import EIL, MEIL
from eil.methods.base import Targets
from eil.methods.eil import EilAttention

AT, SIDE, CELLS = "blocks_2", 64, 16


@pytest.fixture
def vit() -> Backbone:
    torch.manual_seed(0)
    return build("timm/test_vit.r160_in1k").eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> Tensor:
    """Another set of patches of each image, (3, 1, 4, 4)."""
    return (torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.6).float()


def test_with_nothing_erased_it_is_the_plain_forward_pass(vit: Backbone, images: Tensor) -> None:
    features = vit.forward_stages(images, stop=AT)
    erased = vit.erase(features, torch.ones(3, 1, 4, 4))
    assert torch.equal(erased, features)
    torch.testing.assert_close(vit.forward_stages(erased, AT, erased=True), vit(images), rtol=1e-5, atol=1e-5)


def test_a_key_mask_equals_dropping_the_tokens(vit: Backbone, images: Tensor, mask: Tensor) -> None:
    features = vit.forward_stages(images, stop=AT)
    found = vit.forward_stages(vit.erase(features, mask), AT, erased=True).flatten(2).transpose(1, 2)  # (3, 16, K)
    for image in range(3):
        kept = mask[image].flatten().bool()
        # Not a square of patches any more: the blocks alone, then the last norm.
        x = features[image : image + 1, torch.cat([torch.tensor([True]), kept])]
        for name in vit.names[vit.index(AT) + 1 : -1]:
            x = vit.stages[name](x)
        torch.testing.assert_close(found[image, kept], vit.stages["norm"].norm(x)[0, 1:], rtol=1e-5, atol=1e-5)
        assert not found[image, ~kept].any()


def test_multiplying_by_zero_alone_is_not_erasing(vit: Backbone, images: Tensor, mask: Tensor) -> None:
    erased = vit.erase(vit.forward_stages(images, stop=AT), mask)
    assert (vit.forward_stages(erased, AT) - vit.forward_stages(erased, AT, erased=True)).abs().max() > 0.01


def test_erased_tokens_get_no_gradient_and_the_class_token_is_kept(vit: Backbone, images: Tensor, mask: Tensor) -> None:
    features = vit.forward_stages(images, stop=AT).detach().requires_grad_()
    erased = vit.erase(features, mask)
    assert torch.equal(erased[:, 0], features[:, 0])
    assert torch.equal(vit.grid(erased) == 0, (mask == 0).expand(-1, vit.out_channels, -1, -1))
    vit.forward_stages(erased, AT, erased=True).square().sum().backward()
    assert features.grad is not None
    moved = features.grad.abs().sum(dim=2) > 0
    assert torch.equal(moved[:, 1:], mask.flatten(1) > 0)
    assert moved[:, 0].all()


def test_fused_and_unfused_attention_agree(vit: Backbone, images: Tensor, mask: Tensor) -> None:
    erased = vit.erase(vit.forward_stages(images, stop=AT), mask)
    fused = vit.forward_stages(erased, AT, erased=True)
    for name in vit.names[1:-1]:
        vit.stages[name].block.attn.fused_attn = False
    torch.testing.assert_close(vit.forward_stages(erased, AT, erased=True), fused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_every_patch_erased_the_class_token_stays(vit: Backbone, images: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        features = vit.erase(vit.forward_stages(images, stop=AT), torch.zeros(3, 1, 4, 4))
        before = vit.forward_stages(features, AT, "blocks_4", erased=True)
        assert not vit.forward_stages(features, AT, erased=True).any()
    assert before[:, 0].isfinite().all()
    assert before[:, 0].any()
    assert not before[:, 1:].any()


def test_nothing_kept_gives_no_nan() -> None:
    scores = torch.randn(1, 1, 2, 2) + tokens.key_mask(torch.zeros(1, 2, dtype=torch.bool), torch.float32)
    assert scores.softmax(dim=3).isfinite().all()


def test_eils_loss_is_its_equation_on_tokens(vit: Backbone, images: Tensor) -> None:
    torch.manual_seed(0)
    model = EIL(vit, 3, at=AT, attention="mean_abs", gamma=0.8, sigma=0.5).eval()
    labels = torch.arange(3)
    losses = model.loss(images, Targets(labels))
    total = torch.zeros(())
    for image, label in zip(images, labels, strict=True):
        features = vit.forward_stages(image[None], stop=AT)
        mean = features[0, 1:].abs().mean(dim=1)  # of each patch
        kept = torch.cat([torch.tensor([True]), mean < 0.8 * mean.max()])
        assert 0 < kept.sum() < 17
        for tokens_left, weight in ((features, 1.0), (features[:, kept], 0.5)):
            x = tokens_left
            for name in vit.names[vit.index(AT) + 1 : -1]:
                x = vit.stages[name](x)
            pooled = vit.stages["norm"].norm(x)[:, 1:].sum(dim=1) / CELLS  # erased cells count as 0
            total = total + weight * F.cross_entropy(model.head.classifier(pooled), label[None]) / 3
    torch.testing.assert_close(losses["total"], total, rtol=1e-5, atol=1e-5)
    assert 0 < losses["erased_fraction"] < 1


def test_the_erased_set_does_not_depend_on_the_class_token(vit: Backbone, images: Tensor) -> None:
    model = EIL(vit, 3, at=AT, attention="mean_abs")
    features = model.f1(images).detach().clone()
    before = model.mask(features)
    features[:, 0] += 100
    assert torch.equal(model.mask(features), before)


@pytest.mark.parametrize("erased", [False, True])
def test_the_class_tokens_attention_is_that_of_the_next_block(
    vit: Backbone, images: Tensor, mask: Tensor, erased: bool
) -> None:
    features = vit.forward_stages(images, stop=AT)
    features = vit.erase(features, mask) if erased else features
    attention = vit.stages["blocks_3"].block.attn
    seen: list[Tensor] = []
    attention.fused_attn = False
    handle = attention.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    vit.forward_stages(features, AT, "blocks_3", erased=erased)
    handle.remove()
    found = vit.class_attention(features, AT)
    torch.testing.assert_close(found.flatten(1), seen[0].mean(dim=1)[:, 0, 1:])
    assert torch.equal(found > 0, mask > 0) if erased else (found > 0).all()
    assert vit.stages["blocks_3"].class_attention(features).sum(dim=1).allclose(torch.ones(3))


def test_eil_erases_what_the_class_token_attends_to_most(vit: Backbone, images: Tensor) -> None:
    model = EIL(vit, 3, at=AT, attention="class_token", gamma=0.9)
    features = model.f1(images)
    attention = vit.class_attention(features, AT).flatten(1)
    kept = model.mask(features).flatten(1).bool()
    assert torch.equal(kept, attention < 0.9 * attention.amax(dim=1, keepdim=True))
    assert not kept.gather(1, attention.argmax(dim=1, keepdim=True)).any()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.mask(features).flatten(1).bool(), kept)


@pytest.mark.parametrize("attention", ["mean_abs", "class_token"])
def test_in_a_chain_erased_patches_stay_erased(vit: Backbone, images: Tensor, attention: EilAttention) -> None:
    model = MEIL(vit, 3, at=("blocks_1", "blocks_3"), attention=attention, gamma=0.97).eval()
    features, masks = model._erase(images)
    both = masks[0] * masks[1]
    assert torch.equal((model.backbone.grid(features[-1]) != 0).all(dim=1, keepdim=True), both.bool())
    assert 0 < both.sum() < masks[0].sum()
    torch.testing.assert_close(features[0], vit.forward_stages(images, stop="blocks_3"), rtol=1e-5, atol=1e-5)
