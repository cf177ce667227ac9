"""Each rival against its paper's formula, written out as loops over images and pixels."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines import acol, adl, cutmix, has, spg
from eil.backbones import Backbone, BackboneInfo
from eil.backbones.factory import with_options
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods import base
from eil.methods.base import Targets
from eil.methods.head import CamHead, class_activation_maps, min_max


def plain(width: int = 4) -> Backbone:
    """Three convolutions without batch norm, so that an image does not see its batch."""
    torch.manual_seed(0)
    sizes = {"first": 3, "second": width, "third": width}
    stages = {
        name: nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()) for name, channels in sizes.items()
    }
    stages["signed"] = nn.Conv2d(width, width, 1)
    return Backbone(
        "plain", stages, width, BackboneInfo(("first", "second", "third"), (1,), eil_stage="first", branch_width=6)
    )


def batch(size: int = 4, side: int = 8) -> tuple[Tensor, Targets]:
    images = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(1))
    return images, Targets(torch.arange(size) % 3)


def cross_entropy(scores: Tensor, label: int) -> float:
    """-log softmax of one image's scores, (C,)."""
    scores = scores.detach()
    return float(torch.log(scores.exp().sum()) - scores[label])


def scaled(score_map: Tensor) -> Tensor:
    """(H, W) to [0, 1]."""
    low, high = float(score_map.detach().min()), float(score_map.detach().max())
    return (score_map - low) / (high - low)


def value(part: Tensor) -> float:
    return float(part.detach())


# The head


def test_a_1x1_convolution_before_the_pooling_comes_to_the_same() -> None:
    head, features = CamHead(5, 3, (6, 7)), torch.rand(2, 5, 4, 4)
    scores = nn.functional.conv2d(head.features(features), head.classifier.weight[:, :, None, None])
    expected = scores.mean(dim=(2, 3)) + head.classifier.bias
    torch.testing.assert_close(head(features), expected)


def test_min_max_scales_each_map_and_makes_a_constant_one_zero() -> None:
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]])
    assert min_max(maps).tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]


# HaS


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(0, 2**31)
)
def test_hide_patches_equals_the_loop(height: int, width: int, sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(sizes), 2, height, width, generator=generator) + 1
    draws = torch.rand(len(sizes), height, width, generator=generator)
    expected = images.clone()
    for b, size in enumerate(sizes):
        for i in range(height if size else 0):
            for j in range(width):
                if draws[b, i // size, j // size] < 0.4:
                    expected[b, :, i, j] = 0
    assert torch.equal(has.hide_patches(images, torch.tensor(sizes), draws, 0.4), expected)


def test_has_hides_everything_at_rate_1_on_any_shape_and_nothing_at_0() -> None:
    images, targets = torch.ones(3, 3, 100, 300), Targets(torch.zeros(3, dtype=torch.int64))
    model = has.HaS(plain(), 3, sizes=(32,), drop_rate=1.0, relative=False)
    assert model.augment(images, targets)[0].abs().sum() == 0
    assert torch.equal(has.HaS(plain(), 3, drop_rate=0.0).augment(images, targets)[0], images)
    assert torch.equal(has.HaS(plain(), 3, sizes=(0,), drop_rate=1.0).augment(images, targets)[0], images)


def test_has_hides_its_share_in_patches_of_the_drawn_sizes() -> None:
    torch.manual_seed(0)
    images, targets = torch.ones(400, 3, 56, 56), Targets(torch.zeros(400, dtype=torch.int64))
    hidden = has.HaS(plain(), 3, sizes=(0, 32), drop_rate=0.5).augment(images, targets)[0][:, 0] == 0
    left_whole = hidden.flatten(1).sum(dim=1) == 0
    assert 0.4 < float(left_whole.float().mean()) < 0.6
    assert 0.45 < float(hidden[~left_whole].float().mean()) < 0.55
    # 32 of 224 pixels are 8 of 56.
    patches = hidden.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).float().mean(dim=3)
    assert set(patches.unique().tolist()) == {0.0, 1.0}


# ACoL


@given(st.integers(0, 2**31), st.floats(0.05, 1.0))
def test_complement_equals_the_loop(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, 3, 4, 5, generator=generator)
    maps = torch.randint(0, 9, (2, 4, 5), generator=generator).float()
    expected = features.clone()
    for b in range(2):
        low, high = float(maps[b].min()), float(maps[b].max())
        for i in range(4):
            for j in range(5):
                if maps[b, i, j] - low >= (threshold + 1e-4) * (high - low):
                    expected[b, :, i, j] = 0
    assert torch.equal(acol.complement(features, maps, threshold + 1e-4), expected)


def test_a_constant_map_erases_nothing() -> None:
    features = torch.rand(1, 2, 3, 3)
    assert torch.equal(acol.complement(features, torch.full((1, 3, 3), 5.0), 0.6), features)


@pytest.mark.parametrize("average_pool", [False, True])
def test_acol_loss_equals_the_loop(average_pool: bool) -> None:
    images, targets = batch()
    model = acol.ACoL(plain(), 3, threshold=0.5, average_pool=average_pool)
    total = 0.0
    for image, label in zip(images, targets.labels.tolist(), strict=True):
        shared = model.backbone(image[None])
        if average_pool:
            shared = nn.functional.avg_pool2d(shared, 3, 1, 1)
        own = model.head.features(shared)
        score_map = sum(model.head.classifier.weight[label, k] * own[0, k] for k in range(own.shape[1]))
        kept = shared * (scaled(torch.as_tensor(score_map)) < 0.5)
        total += cross_entropy(model.head(shared)[0], label) + cross_entropy(model.second(kept)[0], label)
    assert value(model.loss(images, targets)["total"]) == pytest.approx(total / len(images), rel=1e-5)


def test_acol_learns_what_each_classifier_sees() -> None:
    images, targets = batch()
    model = acol.ACoL(plain(), 3)
    parts = model.loss(images, targets)
    torch.testing.assert_close(parts["total"], parts["first"] + parts["second"])
    # B teaches A's weights nothing: the map that erases carries no gradient.
    gradients = torch.autograd.grad(parts["second"], list(model.head.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_acol_fuses_by_maximum_and_erases_by_its_own_prediction() -> None:
    images, targets = batch(6)
    model = acol.ACoL(plain(), 3, threshold=0.3).eval()
    with torch.no_grad():
        model.head.classifier.weight.mul_(50)
        shared = model.backbone(images)
        own = model.head.features(shared)
        logits, maps = model.maps(images, targets.labels)
        torch.testing.assert_close(logits, model.head(shared))
        expected = {}
        for by, classes in (("predicted", logits.argmax(dim=1)), ("given", targets.labels)):
            kept = acol.complement(shared, model.head.maps(own, classes), 0.3)
            second = model.second.maps(model.second.features(kept), targets.labels)
            first = class_activation_maps(own, model.head.classifier.weight, targets.labels)
            expected[by] = torch.stack(
                [torch.maximum(scaled(a), scaled(b)) for a, b in zip(first, second, strict=True)]
            )
        torch.testing.assert_close(maps, expected["predicted"])
        model.test_class = "given"
        torch.testing.assert_close(model.maps(images, targets.labels)[1], expected["given"])
        agree = logits.argmax(dim=1) == targets.labels
        assert not torch.allclose(expected["given"][~agree], expected["predicted"][~agree])
        torch.testing.assert_close(expected["given"][agree], expected["predicted"][agree])


# SPG


@given(st.integers(0, 2**31), st.floats(0.3, 1.0), st.floats(0.0, 0.29), st.integers(1, 3))
def test_seeds_equal_the_loop(seed: int, high: float, low: float, power: int) -> None:
    probability = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(seed)) ** power
    high, low = float(torch.tensor(high)), float(torch.tensor(low))
    foreground, background = spg.seeds(probability, high, low)
    for b in range(3):
        count = sum(float(p) > high for p in probability[b].flatten())
        at = high if count / 42 >= 30 / 224**2 else 0.7 * float(probability[b].max())
        for i in range(6):
            for j in range(7):
                p = float(probability[b, i, j])
                assert bool(background[b, i, j]) == (p < low)
                if abs(p - at) > 1e-6:
                    assert bool(foreground[b, i, j]) == (p > at and p >= low)


def test_an_image_without_foreground_does_not_lower_the_threshold_of_the_next() -> None:
    probability = torch.tensor([[[0.1, 0.2]], [[0.9, 0.55]]])
    foreground, background = spg.seeds(probability, 0.7, 0.15)
    assert foreground.tolist() == [[[False, True]], [[True, False]]]
    assert background.tolist() == [[[True, False]], [[False, False]]]


def test_guided_loss_equals_the_loop_and_is_0_without_seeds() -> None:
    logits = torch.randn(2, 3, 4)
    foreground, background = logits > 0.5, logits < -0.7
    total, count = 0.0, 0
    for logit, f, b in zip(logits.flatten(), foreground.flatten(), background.flatten(), strict=True):
        if f or b:
            p = 1 / (1 + math.exp(-float(logit)))
            total -= math.log(p if f else 1 - p)
            count += 1
    assert value(spg.guided_loss(logits, foreground, background)) == pytest.approx(total / count, rel=1e-5)
    nothing = torch.zeros_like(foreground)
    assert value(spg.guided_loss(logits, nothing, nothing)) == 0


def test_spg_loss_is_made_of_its_heads() -> None:
    images, targets = batch()
    model = spg.SPG(plain(), 3, taps=("first", "second"), weight_b1=0.5, weight_b2=2.0, weight_c=3.0)
    parts = model.loss(images, targets)
    x1 = model.backbone.forward_stages(images, stop="first")
    x2 = model.backbone.forward_stages(images, stop="second")
    last = model.backbone(images)
    b1, b2, c = (x[:, 0] for x in (model.shared(model.b1(x1)), model.shared(model.b2(x2)), model.c(last)))
    attention = torch.stack([scaled(m) for m in model.head.maps(model.head.features(last), targets.labels)])
    fused = (b1.sigmoid() + b2.sigmoid()) / 2
    expected = {
        "classification": torch.tensor(
            [cross_entropy(s, y) for s, y in zip(model.head(last), targets.labels.tolist(), strict=True)]
        ).mean(),
        "b2": spg.guided_loss(b2, *spg.seeds(attention, 0.7, 0.05)),
        "b1": spg.guided_loss(b1, *spg.seeds(b2.sigmoid(), 0.5, 0.05)),
        "c": spg.guided_loss(c, *spg.seeds(fused, 0.7, 0.1)),
    }
    for name, part in expected.items():
        torch.testing.assert_close(parts[name], part, msg=name)
    total = sum(w * parts[name] for name, w in {"classification": 1, "b1": 0.5, "b2": 2, "c": 3}.items())
    torch.testing.assert_close(parts["total"], total)


def test_spg_teaches_what_its_seeds_are_taken_from_nothing() -> None:
    images, targets = batch()
    model = spg.SPG(plain(), 3, taps=("first", "second"))
    parts = model.loss(images, targets)
    for part, others in (("b2", model.head), ("b1", model.b2), ("c", model.shared)):
        found = torch.autograd.grad(parts[part], list(others.parameters()), allow_unused=True, retain_graph=True)
        if part == "b1":
            assert all(gradient is None for gradient in found)
    # ... whereas every head teaches the backbone.
    first = next(model.backbone.parameters())
    for part in ("b1", "b2", "c"):
        assert torch.autograd.grad(parts[part], first, retain_graph=True)[0].abs().sum() > 0


# ADL


@given(st.integers(0, 2**31), st.floats(0.1, 1.0))
def test_attention_dropout_equals_the_loop(seed: int, gamma: float) -> None:
    features = torch.randint(0, 9, (3, 4, 3, 4), generator=torch.Generator().manual_seed(seed)) / 8
    gamma = round(gamma * 16 + 1) / 32 + 1 / 512  # between the values that a mean can take
    dropped = torch.tensor([True, False, True])
    found = adl.attention_dropout(features, gamma, dropped[:, None, None, None])
    for b in range(3):
        mean = [[sum(float(features[b, k, i, j]) for k in range(4)) / 4 for j in range(4)] for i in range(3)]
        most = max(map(max, mean))
        for i in range(3):
            for j in range(4):
                factor = float(mean[i][j] < gamma * most) if dropped[b] else 1 / (1 + math.exp(-mean[i][j]))
                torch.testing.assert_close(found[b, :, i, j], features[b, :, i, j] * factor)


def test_only_the_importance_map_passes_gradients_through_itself() -> None:
    features = torch.rand(1, 2, 3, 3, requires_grad=True)
    for dropped in (True, False):
        factor = (adl.attention_dropout(features, 0.8, torch.tensor(dropped)) / features).detach()
        gradient = torch.autograd.grad(adl.attention_dropout(features, 0.8, torch.tensor(dropped)).sum(), features)[0]
        assert torch.allclose(gradient, factor) == dropped


@pytest.mark.parametrize("coins", [[True], [False], [True, False, True]])
def test_the_gradient_of_attention_dropout_is_that_of_its_formula(coins: list[bool]) -> None:
    features = torch.rand(3, 5, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights, dropped = torch.randn(3, 4, 6, 5).permute(0, 3, 1, 2), torch.tensor(coins)[:, None, None, None]
    attention = features.mean(dim=1, keepdim=True)
    kept = (attention < 0.8 * attention.amax(dim=(2, 3), keepdim=True)).float()
    formula = features * torch.where(dropped, kept, attention.sigmoid())
    expected = torch.autograd.grad((formula * weights).sum(), features)[0]
    found = torch.autograd.grad((adl.attention_dropout(features, 0.8, dropped) * weights).sum(), features)[0]
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("coin", ["batch", "image"])
def test_adl_tosses_its_coin(coin: Any) -> None:
    torch.manual_seed(0)
    images, _ = batch(8)
    model = adl.ADL(plain(), 3, at=("first",), drop_rate=0.25, coin=coin, gamma=0.9).train()
    features = model.backbone.forward_stages(images, stop="first")
    masked = adl.attention_dropout(features, 0.9, torch.tensor(True))
    important = adl.attention_dropout(features, 0.9, torch.tensor(False))
    dropped = []
    for _ in range(200):
        found = model.features(images)
        to_masked, to_important = (
            (found - model.backbone.forward_stages(x, start="first")).flatten(1).abs().sum(dim=1)
            for x in (masked, important)
        )
        assert bool(((to_masked < 1e-5) ^ (to_important < 1e-5)).all())
        dropped.append(to_masked < 1e-5)
    shares = torch.stack(dropped).float()
    assert 0.15 < float(shares.mean()) < 0.35
    assert bool((shares.mean(dim=1) % 1 == 0).all()) == (coin == "batch")


def test_adl_does_nothing_in_testing_and_something_in_training() -> None:
    images, targets = batch()
    model, cam = (base.build(name, {}, "vgg_small", 3).eval() for name in ("adl", "cam"))
    assert isinstance(model, adl.ADL)
    torch.testing.assert_close(model.features(images), model.backbone(images))
    for ours, theirs in zip(model.maps(images, targets.labels), cam.maps(images, targets.labels), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.allclose(model.train().features(images), cam.train().backbone(images))


def test_adl_stands_where_it_is_told_in_the_networks_order() -> None:
    model = adl.ADL(plain(), 3, at=("third", "first"), drop_rate=1.0).train()
    images, _ = batch()
    x = images
    for start, stop in ((None, "first"), ("first", "third")):
        x = adl.attention_dropout(model.backbone.forward_stages(x, start, stop), 0.8, torch.tensor(True))
    torch.testing.assert_close(model.features(images), model.backbone.forward_stages(x, start="third"))


@pytest.mark.parametrize(
    ("at", "applied"), [(("head_1",), [6]), (("head_2", "first"), [4, 7]), (("head_2", "head_1"), [6, 7])]
)
def test_adl_stands_in_the_head_in_training_only(
    at: tuple[str, ...], applied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = plain()
    backbone.info = with_options(backbone.info, head_widths=(6, 7))
    model = adl.ADL(backbone, 3, at=at, drop_rate=1.0)
    images, targets = batch()
    channels: list[int] = []

    def counted(features: Tensor, gamma: float, dropped: Tensor) -> Tensor:
        assert dropped.all()
        channels.append(features.shape[1])
        return features * (features.shape[1] - 3)

    monkeypatch.setattr(adl, "attention_dropout", counted)
    model.train().loss(images, targets)
    assert channels == applied
    last = model.head_features(images)
    torch.testing.assert_close(model.eval().head_features(images), model.head.features(model.backbone(images)))
    assert channels == applied * 2
    if at == ("head_1",):
        torch.testing.assert_close(last, model.head.conv[1](3 * model.head.conv[0](model.backbone(images))))


@pytest.mark.parametrize(
    ("widths", "message"), [((6,), "or of its head: head_1$"), ((), "its head has no convolutions$")]
)
def test_adl_names_what_its_head_has(widths: tuple[int, ...], message: str) -> None:
    backbone = plain()
    backbone.info = with_options(backbone.info, head_widths=widths)
    with pytest.raises(SettingError, match=message):
        adl.ADL(backbone, 3, at=("first", "head_2"))


# CutMix


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0, 0.999), st.floats(0, 0.999))
def test_even_rectangle_is_that_of_the_authors(height: int, width: int, share: float, y: float, x: float) -> None:
    side = torch.tensor(share).sqrt()
    expected = torch.zeros(height, width, dtype=torch.bool)
    row, column = (int(torch.tensor(place) * length) for place, length in ((y, height), (x, width)))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    expected[top:bottom, left:right] = True
    assert torch.equal(cutmix.rectangle(height, width, torch.tensor(share), torch.tensor([y, x]), "even"), expected)


def test_cutmix_uses_its_cut() -> None:
    images, targets = batch(2, side=5)
    pasted: dict[str, list[float]] = {}
    for cut in ("full", "even"):
        model, pasted[cut] = cutmix.CutMix(plain(), 3, cut=cut), []
        for seed in range(50):
            torch.manual_seed(seed)
            found = model.augment(images, targets)[1]
            pasted[cut].append(1 - float(found.kept))
    pairs = list(zip(pasted["even"], pasted["full"], strict=True))
    assert all(even <= full for even, full in pairs)
    assert any(even < full for even, full in pairs)


def test_cutmix_pastes_and_counts_every_pixel() -> None:
    torch.manual_seed(3)
    images, targets = batch(5, side=16)
    model = cutmix.CutMix(plain(), 3)
    shares = []
    for _ in range(300):
        mixed, found = model.augment(images, targets)
        assert isinstance(found, cutmix.Mixed)
        assert found.others is not None
        assert found.kept is not None
        changed = (mixed != images).any(dim=1)  # (B, H, W)
        pasted = changed.any(dim=0)
        shares.append(float(found.kept))
        # An image that is its own partner does not change; if any does, it shows the whole rectangle.
        if changed.any():
            assert float(found.kept) == pytest.approx(1 - float(pasted.float().mean()))
        for b in range(5):
            own, sources = changed[b], [k for k in range(5) if torch.equal(mixed[b][:, pasted], images[k][:, pasted])]
            assert torch.equal(mixed[b][:, ~own], images[b][:, ~own])
            assert int(found.others[b]) in {int(targets.labels[k]) for k in sources} or not pasted.any()
    # Beta(1, 1) is uniform; what is cut off at the border raises the kept share.
    assert 0.5 < sum(shares) / 300 < 0.75
    assert min(shares) < 0.3
    assert max(shares) > 0.95


def test_beta_and_probability_are_honoured() -> None:
    images, targets = batch(2, side=20)

    def kept(**settings_: float) -> list[float]:
        model = cutmix.CutMix(plain(), 3, **settings_)
        found = [model.augment(images, targets)[1] for _ in range(300)]
        return [float(t.kept) for t in found if isinstance(t, cutmix.Mixed) and t.kept is not None]

    # Half the area, or less where it is cut off at the border: never much more than 14 x 14 of 20 x 20.
    assert min(kept(beta=1e4)) >= 1 - 0.52
    assert 0.7 < sum(share == 1 for share in kept(probability=0.2)) / 300 < 0.95


def test_cutmix_loss_equals_the_loop() -> None:
    images, _ = batch()
    targets = cutmix.Mixed(torch.tensor([0, 1, 2, 0]), None, torch.tensor([1, 1, 0, 2]), torch.tensor(0.7))
    model = cutmix.CutMix(plain(), 3)
    logits, total = model.head(model.backbone(images)), 0.0
    assert targets.others is not None
    for scores, a, b in zip(logits, targets.labels.tolist(), targets.others.tolist(), strict=True):
        total += 0.7 * cross_entropy(scores, a) + 0.3 * cross_entropy(scores, b)
    parts = model.loss(images, targets)
    assert value(parts["total"]) == pytest.approx(total / 4, rel=1e-5)
    right = [0.7 * float(s.argmax() == a) + 0.3 * float(s.argmax() == b)
             for s, a, b in zip(logits, targets.labels, targets.others, strict=True)]  # fmt: skip
    assert value(parts["top1"]) == pytest.approx(sum(right) / 4)


# Bad input


@pytest.mark.parametrize(
    ("cls", "settings_", "message"),
    [
        (adl.ADL, {"at": ("first", "pool9")}, "at = pool9: must be a stage of plain: first, second"),
        (adl.ADL, {}, "at = None: has no default for plain: choose from first, second"),
        (spg.SPG, {}, "taps = None: has no default for plain"),
        (spg.SPG, {"taps": ("first", "no")}, "taps = no: must be a stage of plain"),
        (
            spg.SPG,
            {"taps": ("first", "third"), "seeds_b1": (0.1, 0.5)},
            r"seeds_b1 = \[0.1, 0.5\]: must be \(high, low\) with low below high",
        ),
    ],
)
def test_bad_settings_are_named(cls: Any, settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        cls(plain(), 3, **settings_)


def test_adl_refuses_features_whose_mean_is_no_attention() -> None:
    with pytest.raises(IncompatibleSetting, match="plain's signed can be negative.*use one of first, second, third"):
        adl.ADL(plain(), 3, at=("signed",))
