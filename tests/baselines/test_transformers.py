"""TS-CAM and SCM on timm's small transformer, against their papers' formulas written out as loops."""

import math
from typing import Any

import pytest
import timm
import tiny_vit
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import scm
from baselines.scm import SCM
from baselines.tscam import TSCAM, SemanticHead
from eil import backbones
from eil.backbones import Backbone
from eil.backbones.class_attention import forward_with_attention, require_class_attention
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods.base import Targets

NAME, CLASSES, CELLS = "test_vit.r160_in1k", 3, 4
LABELS = torch.arange(2)


@pytest.fixture
def vit() -> Backbone:
    torch.manual_seed(0)
    return backbones.build(f"timm/{NAME}")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16 * CELLS, 16 * CELLS, generator=torch.Generator().manual_seed(1))


def timms(images: Tensor, blocks: int) -> tuple[Tensor, list[Tensor]]:
    """Tokens (B, 1 + N, C) and the full attention of each block (B, heads, 1 + N, 1 + N), by timm itself, unfused."""
    torch.manual_seed(0)
    net: Any = timm.create_model(NAME, dynamic_img_size=True).eval()
    seen: list[Tensor] = []
    assert len(net.blocks) == blocks
    for block in net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        return net.forward_features(images), seen


def oracle_semantics(tokens: Tensor, conv: nn.Conv2d) -> Tensor:
    """S cell by cell: each sums what the 3x3 neighbours say, (B, 1 + N, C) -> (B, classes, h, w)."""
    assert conv.bias is not None
    found = conv.bias.detach()[None, :, None, None].repeat(len(tokens), 1, CELLS, CELLS)
    for i in range(CELLS):
        for j in range(CELLS):
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < CELLS and 0 <= j + dj < CELLS:
                        token = tokens[:, 1 + (i + di) * CELLS + j + dj]
                        found[:, :, i, j] += token @ conv.weight.detach()[:, :, 1 + di, 1 + dj].T
    return found


def oracle_attention(attention: list[Tensor]) -> Tensor:
    """a patch by patch: the sum over blocks of the mean over heads of the class token's row, (B, h, w)."""
    found = torch.zeros(len(attention[0]), CELLS, CELLS)
    for block in attention:
        for head in block.unbind(1):
            for u in range(CELLS**2):
                found[:, u // CELLS, u % CELLS] += head[:, 0, 1 + u] / block.shape[1]
    return found


# TS-CAM


@torch.no_grad()
def test_tscam_equals_the_loop(vit: Backbone, images: Tensor) -> None:
    model = TSCAM(vit, CLASSES).eval()
    tokens, attention = timms(images, len(vit.names) - 2)
    conv: Any = model.head.classifier
    semantics, attended = oracle_semantics(tokens, conv), oracle_attention(attention)
    logits, maps = model.maps(images, LABELS)
    for i in range(2):
        for c in range(CLASSES):
            assert float(logits[i, c]) == pytest.approx(float(semantics[i, c].sum()) / CELLS**2, abs=1e-5)
        torch.testing.assert_close(maps[i], attended[i] * semantics[i, i], rtol=1e-4, atol=1e-5)
    assert maps.min() < 0 < maps.max()
    losses = model.loss(images, Targets(LABELS))
    expected = -sum(float(F.log_softmax(logits[i], dim=0)[i]) for i in range(2)) / 2
    assert float(losses["total"]) == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_attention_is_that_of_every_block_fused_or_not(vit: Backbone, images: Tensor) -> None:
    vit.eval()
    features, attention = forward_with_attention(vit, images)
    assert torch.equal(features, vit(images))
    _, expected = timms(images, len(vit.names) - 2)
    for k, block in enumerate(expected):
        torch.testing.assert_close(attention[:, k].flatten(1), block.mean(dim=1)[:, 0, 1:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(block.sum(dim=3), torch.ones(block.shape[:3]))
    for name in vit.names[1:-1]:
        vit.stages[name].block.attn.fused_attn = False
    torch.testing.assert_close(forward_with_attention(vit, images)[1], attention, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_prefix_tokens_are_the_networks() -> None:
    """With a distillation token, the patches are what follows both."""
    backbone = backbones.build("timm/deit_tiny_distilled_patch16_224.fb_in1k").eval()
    _, attention = forward_with_attention(backbone, torch.randn(1, 3, 32, 32))
    assert attention.shape == (1, 12, 2, 2)
    assert (attention.sum(dim=(2, 3)) < 1).all()


@torch.no_grad()
def test_the_map_follows_the_class(vit: Backbone, images: Tensor) -> None:
    model = TSCAM(vit, CLASSES).eval()
    own, other = (model.maps(images, classes)[1] for classes in (LABELS, (LABELS + 1) % CLASSES))
    assert not torch.equal(own, other)
    turned = model.maps(images.flip(0), LABELS.flip(0))[1]
    torch.testing.assert_close(turned.flip(0), own)


def test_no_loss_reaches_the_class_tokens_row_of_the_last_block(vit: Backbone, images: Tensor) -> None:
    model = TSCAM(vit, CLASSES)
    last = vit.names[-2]
    tokens = vit.forward_stages(images, stop=vit.names[-3]).detach().requires_grad_()
    attention = vit.stages[last].class_attention(tokens)
    F.cross_entropy(model.head(vit.forward_stages(tokens, start=vit.names[-3])), LABELS).backward()
    assert tokens.grad is not None
    assert tokens.grad[:, 0].any()  # as a key and value of the patches
    assert attention.requires_grad  # for those whose loss reads it


@pytest.mark.parametrize("backbone", ["vgg_small", "timm/test_resnet.r160_in1k"])
def test_a_network_without_a_class_token_is_refused(backbone: str) -> None:
    with pytest.raises(IncompatibleSetting, match=r"attends to in every block, and .* has no transformer blocks: exp"):
        TSCAM(backbones.build_shapes(backbone), CLASSES)


def test_blocks_that_do_not_tell_their_attention_are_refused(vit: Backbone) -> None:
    with pytest.raises(IncompatibleSetting, match="no transformer blocks"):
        require_class_attention(tiny_vit.tokens())
    block: Any = vit.stages["blocks_1"]
    block.attention = None
    with pytest.raises(IncompatibleSetting, match="has none in blocks_1: expected a vision transformer"):
        require_class_attention(vit)


def test_another_head_or_a_kept_classifier_is_refused(vit: Backbone) -> None:
    head = backbones.build_shapes(f"timm/{NAME}", network={"head": "calm"})
    with pytest.raises(IncompatibleSetting, match="head: calm does not go with TSCAM"):
        TSCAM(head, CLASSES)
    vit._classifier = (nn.Linear(vit.out_channels, CLASSES),)
    with pytest.raises(SettingError, match="keep_classifier"):
        TSCAM(vit, CLASSES)


# SCM


def oracle_matrix(x: list[list[float]], side: int, rate: float) -> list[list[float]]:
    """The Laplacian of the grid, each entry times its scaled cosine less one; x has a vector for each cell."""
    count = side**2
    near = [
        [v for v in range(count) if abs(u // side - v // side) + abs(u % side - v % side) == 1] for u in range(count)
    ]
    lengths = [math.sqrt(sum(value**2 for value in vector)) for vector in x]

    def entry(u: int, v: int) -> float:
        weight = len(near[u]) if u == v else -1 if v in near[u] else 0
        cosine = sum(a * b for a, b in zip(x[u], x[v], strict=True)) / lengths[u] / lengths[v]
        return weight * (rate * cosine - 1)

    return [[entry(u, v) for v in range(count)] for u in range(count)]


def product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def oracle_inverse(matrix: list[list[float]], steps: int) -> list[list[float]]:
    """Newton and Schulz: V becomes V (2 I - M V)."""
    inverse = [[0.002 * value for value in column] for column in zip(*matrix, strict=True)]
    for _ in range(steps):
        rest = [
            [-value + 2 * (u == v) for v, value in enumerate(row)] for u, row in enumerate(product(matrix, inverse))
        ]
        inverse = product(inverse, rest)
    return inverse


def scaled(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def oracle_layer(
    x: list[list[float]], q: list[float], side: int, rate: float, threshold: float, steps: int
) -> tuple[list[list[float]], list[float]]:
    inverse = oracle_inverse(oracle_matrix(x, side, rate), steps)
    diffused = [inner[0] for inner in product(inverse, [[value] for value in q])]
    arguments = [value / (threshold * max(q)) for value in diffused]
    gained = scaled([value - math.tanh(value) for value in arguments])
    return [[v + v * g for v in row] for row, g in zip(x, gained, strict=True)], [
        old + g for old, g in zip(q, gained, strict=True)
    ]


def test_scms_loss_equals_the_loop(vit: Backbone, images: Tensor) -> None:
    model = SCM(vit, CLASSES, layers=3, first_steps=5, steps=2).eval().double()
    with torch.no_grad():
        model.rates.copy_(torch.tensor([1.0, 0.9, 1.1]))
        model.thresholds.copy_(torch.tensor([0.5, 0.4, 0.3]))
        semantics, attention = model.semantics_and_attention(images.double())
        losses = model.loss(images.double(), Targets(LABELS))
    expected = 0.0
    for i in range(2):
        x, q = semantics[i].flatten(1).T.tolist(), scaled(attention[i].flatten().tolist())
        for rate, threshold, steps in ((1.0, 0.5, 5), (0.9, 0.4, 2), (1.1, 0.3, 2)):
            x, q = oracle_layer(x, q, CELLS, rate, threshold, steps)
        scores = [sum(column) / CELLS**2 for column in zip(*x, strict=True)]
        expected += (math.log(sum(map(math.exp, scores))) - scores[i]) / 2
    assert float(losses["total"]) == pytest.approx(expected, rel=1e-4)
    assert losses["total"] != F.cross_entropy(semantics.mean(dim=(2, 3)), LABELS)


def test_the_semantic_convolution_begins_as_torchs() -> None:
    """The authors' initialisation draws linear layers alone, so that the convolution keeps its own draw."""
    torch.manual_seed(0)
    head = SemanticHead(12, CLASSES)
    bound = (12 * 9) ** -0.5  # uniform in -bound to bound (nn.Conv2d), weight and bias
    for values in (head.classifier.weight, head.classifier.bias):
        assert values.abs().max() <= bound
    assert float(head.classifier.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    xavier = SemanticHead(12, CLASSES, init="xavier").classifier
    assert not xavier.bias.any()
    assert float(xavier.weight.detach().abs().max()) == pytest.approx((6 / (9 * (12 + CLASSES))) ** 0.5, rel=0.05)


@torch.no_grad()
def test_scm_in_testing_is_tscam_with_scaled_attention(vit: Backbone, images: Tensor) -> None:
    model = SCM(vit, CLASSES).eval()
    logits, maps = model.maps(images, LABELS)
    semantics, attention = model.semantics_and_attention(images)
    for i in range(2):
        torch.testing.assert_close(logits[i], semantics[i].mean(dim=(1, 2)))
        factor = torch.tensor(scaled(attention[i].flatten().tolist())).view(CELLS, CELLS)
        torch.testing.assert_close(maps[i], factor * semantics[i, i], rtol=1e-4, atol=1e-6)
    model.rates.fill_(3.0)  # of no use in testing
    assert torch.equal(model.maps(images, LABELS)[1], maps)


def test_the_iteration_comes_to_the_inverse() -> None:
    """Of a matrix that has one: with a rate below 1 the diagonal is not 0."""
    x = torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    cosines = F.normalize(x.flatten(2), dim=1).mT @ F.normalize(x.flatten(2), dim=1)
    matrix = scm.laplacian(2, 3).double() * (0.5 * cosines - 1)
    torch.testing.assert_close(scm.approximate_inverse(matrix, 40) @ matrix, torch.eye(6).double()[None])


def test_the_laplacian_is_the_grids() -> None:
    found = scm.laplacian(2, 3)
    assert found.diag().tolist() == [2, 3, 2, 2, 3, 2]
    assert found[0].tolist() == [2, -1, 0, -1, 0, 0]
    assert not found.sum(dim=0).any()
    assert torch.equal(found, found.T)


def test_constant_attention_adds_nothing_and_has_finite_gradients() -> None:
    semantics = torch.randn(2, 3, 4, 4, requires_grad=True)
    attention = torch.ones(2, 16, requires_grad=True)
    q = scm.scaled(attention)
    found, after = scm.diffuse(semantics, q, torch.ones(()), torch.tensor(0.5), 4)
    assert torch.equal(found, semantics)
    assert not after.any()
    (found.sum() + after.sum()).backward()
    for each in (semantics, attention):
        assert each.grad is not None
        assert each.grad.isfinite().all()


def test_scms_loss_reaches_the_attention_of_every_block(vit: Backbone, images: Tensor) -> None:
    model = SCM(vit, CLASSES)
    nn.init.normal_(model.head.classifier.weight)
    semantics, attention = forward_with_attention(vit, images)
    attention.retain_grad()
    q, x = scm.scaled(attention.sum(dim=1).flatten(1)), model.head.classifier(semantics)
    found, _ = scm.diffuse(x.detach(), q, model.rates[0], model.thresholds[0], 4)
    F.cross_entropy(found.mean(dim=(2, 3)), LABELS).backward()
    assert attention.grad is not None
    assert attention.grad.flatten(2).any(dim=2).all()
