"""BridgeGap and BAS against their papers' formulas, written out as loops over images and cells."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import bas, bridgegap
from baselines.bas import BAS, ClassMapHead
from baselines.bridgegap import BridgeGap
from eil.backbones import Backbone, BackboneInfo
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods.base import Method, Targets
from eil.methods.erasing import attention_map, erasing_mask
from eil.methods.streams import forward_frozen


def network(norm: bool = False) -> Backbone:
    """Three convolutions, with batch norm if asked for; the last stage has no activation."""
    torch.manual_seed(0)
    stages: dict[str, nn.Module] = {}
    for name, channels in {"first": 3, "second": 4, "third": 4}.items():
        middle = [nn.BatchNorm2d(4)] if norm else []
        stages[name] = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), *middle, nn.ReLU())
    stages["signed"] = nn.Conv2d(4, 4, 1)
    info = BackboneInfo(
        ("first", "second", "third"), (1,), branch_width=6, bridgegap_stage="second", bas_stage="second"
    )
    return Backbone("net", stages, 4, info)


def batch(size: int = 4) -> tuple[Tensor, Targets]:
    images = torch.randn(size, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return images, Targets(torch.arange(size) % 3)


def cross_entropy(scores: list[float], label: int) -> float:
    return math.log(sum(math.exp(score) for score in scores)) - scores[label]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def cells(score_map: Tensor) -> list[float]:
    return score_map.detach().flatten().tolist()


# BridgeGap


def oracle_terms(features: Tensor, weight: Tensor, labels: list[int], settings: dict[str, Any]) -> tuple[float, float]:
    """L_sim and L_norm, cell by cell."""
    of_sim, of_norm = [], []
    for own, label in zip(features.detach(), labels, strict=True):
        vectors = own.flatten(1).T.tolist()
        lengths = [math.sqrt(sum(x * x for x in vector)) for vector in vectors]
        norms = [(length - min(lengths)) / (max(lengths) - min(lengths)) for length in lengths]
        cosine = [
            [
                sum(x * w for x, w in zip(vector, row, strict=True)) / (length * math.sqrt(sum(w * w for w in row)))
                for row in weight.detach().tolist()
            ]
            for vector, length in zip(vectors, lengths, strict=True)
        ]
        own_cosine = [row[label] for row in cosine]
        sign = own_cosine if settings["aligned_class"] == "label" else [max(row) for row in cosine]
        low = [c for c, n in zip(own_cosine, norms, strict=True) if n < settings["background"]]
        high = [c for c, n in zip(own_cosine, norms, strict=True) if n > settings["foreground"]]
        of_sim.append(mean(low) - mean(high))
        against = [n for n, s in zip(norms, sign, strict=True) if s < 0]
        with_it = [n for n, s in zip(norms, sign, strict=True) if s > 0]
        of_norm.append(mean(against) - mean(with_it))
    return mean(of_sim), mean(of_norm)


@pytest.mark.parametrize("aligned_class", ["best", "label"])
@pytest.mark.parametrize(("background", "foreground"), [(0.2, 0.4), (0.0, 1.0)])  # of the latter both sets are empty
def test_bridgegap_loss_equals_the_loop(aligned_class: Any, background: float, foreground: float) -> None:
    settings: dict[str, Any] = {"aligned_class": aligned_class, "background": background, "foreground": foreground}
    model = BridgeGap(network(), 3, threshold=0.5, drop_rate=0.5, norm_weight=0.3, **settings)
    images, targets = batch()
    torch.manual_seed(7)
    parts = {name: float(part.detach()) for name, part in model.loss(images, targets).items()}
    torch.manual_seed(7)
    middle = model.backbone.forward_stages(images, stop="second")
    draws = torch.rand(4, 1, 6, 6)
    clean, dropped = [], []
    for own, draw in zip(middle.detach(), draws, strict=True):
        average = own.mean(dim=0)
        kept = own.clone()
        for i in range(6):
            for j in range(6):
                if average[i, j] > 0.5 * average.max() and draw[0, i, j] < 0.5:
                    kept[:, i, j] = 0
        clean.append(model.backbone.forward_stages(own[None], start="second"))
        dropped.append(model.backbone.forward_stages(kept[None], start="second"))
    features = torch.cat(clean)
    labels = targets.labels.tolist()
    expected = {
        "classification": mean(
            [cross_entropy(model.head.classify(own)[0].tolist(), y) for own, y in zip(clean, labels, strict=True)]
        ),
        "drop": mean([mean(cells((a - b).abs())) for a, b in zip(clean, dropped, strict=True)]),
    }
    weight = model.head.classifier.weight
    expected["similarity"], expected["norm"] = oracle_terms(features, weight, labels, settings)
    total = [expected["classification"], 2 * expected["drop"], 0.5 * expected["similarity"], 0.3 * expected["norm"]]
    assert {name: parts[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert parts["total"] == pytest.approx(sum(total), abs=1e-5)
    assert expected["drop"] > 0


def test_an_empty_set_of_cells_gives_nothing() -> None:
    values, nothing = torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)
    assert float(bridgegap.gap(values, nothing, nothing)) == 0
    assert float(bridgegap.gap(values, nothing, ~nothing)) == -1


def test_with_every_coin_heads_the_mask_is_eils() -> None:
    """But for cells that equal the threshold, of which a random map has none."""
    features = torch.rand(5, 4, 6, 6, generator=torch.Generator().manual_seed(3))
    kept = bridgegap.drop_mask(attention_map(features), 0.7, torch.zeros(5, 1, 6, 6), 1.0)
    assert torch.equal(kept.to(features.dtype), erasing_mask(features, 0.7))
    assert 0 < float(kept.float().mean()) < 1


def test_a_negative_maximum_drops_nothing() -> None:
    assert bridgegap.drop_mask(torch.full((1, 1, 2, 2), -1.0), 0.8, torch.zeros(1, 1, 2, 2), 1.0).all()


def test_without_drops_the_streams_agree() -> None:
    model, (images, targets) = BridgeGap(network(), 3, drop_rate=0.0), batch()
    assert float(model.loss(images, targets)["drop"].detach()) == 0


def test_the_terms_of_alignment_follow_the_warmup() -> None:
    model, (images, targets) = BridgeGap(network(), 3, warmup=2 / 7), batch()

    def seen(epoch: int) -> list[float]:
        model.start_epoch(epoch, 70)
        parts = model.loss(images, targets)
        return [float(parts[name].detach()) for name in ("similarity", "norm")]

    assert float(model.loss(images, targets)["similarity"].detach()) != 0  # never told: all terms
    assert seen(19) == [0, 0]
    assert all(value != 0 for value in seen(20))
    assert all(value != 0 for value in seen(69))


def test_the_cosine_is_finite_where_features_are_zero() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    found = bridgegap.cosines(features, torch.ones(3, 4))
    found.sum().backward()
    assert found.tolist() == [[[[0.0] * 2] * 2] * 3]
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: BridgeGap(network(), 3, background=0.5), SettingError, "at most foreground"),
        (lambda: BridgeGap(network(), 3, at="signed"), IncompatibleSetting, "mean_abs"),
        (lambda: BAS(network(), 3, at="conv9"), SettingError, "stage of net"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Callable[[], Method], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


# BAS


@pytest.mark.parametrize("pool", [False, True])
def test_bas_loss_equals_the_loop(pool: bool) -> None:
    model = BAS(network(), 3, pool=pool, foreground_weight=0.7, area_weight=0.3)
    nn.init.normal_(model.generator.weight)  # masks that differ from cell to cell
    images, targets = batch()
    parts = {name: float(part.detach()) for name, part in model.loss(images, targets).items()}
    found: dict[str, list[float]] = {"classification": [], "foreground": [], "suppression": [], "area": []}
    for image, label in zip(images, targets.labels.tolist(), strict=True):
        x = model.backbone.forward_stages(image[None], stop="second").detach()
        mask = torch.sigmoid(model.generator(x)[0, label]).detach()
        maps = [of_tail(model, x, pool), of_tail(model, x * (1 - mask), pool)]
        scores, background = ([mean(cells(own)) for own in each] for each in maps)
        side = maps[0].shape[1]
        step = 6 // side
        small = [[mean(cells(mask[i * step :, j * step :][:step, :step])) for j in range(side)] for i in range(side)]
        inside = [mean(cells(own * torch.tensor(small))) for own in maps[0]]
        found["classification"].append(cross_entropy(scores, label))
        found["foreground"].append(cross_entropy(inside, label))
        beaten = background[label] >= scores[label]
        found["suppression"].append(0.0 if beaten else background[label] / (scores[label] + 1e-8))
        found["area"].append(mean(cells(mask)))
    expected = {name: mean(values) for name, values in found.items()}
    assert {name: parts[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    total = expected["classification"] + 0.7 * expected["foreground"] + expected["suppression"] + 0.3 * expected["area"]
    assert parts["total"] == pytest.approx(total, abs=1e-5)
    assert 0 < expected["suppression"] < 1


def of_tail(model: BAS, x: Tensor, pool: bool) -> Tensor:
    """Class maps by single layers, (1, K, h, w) -> (C, h', w')."""
    x = nn.functional.max_pool2d(x, 2) if pool else x
    features = model.head.conv(model.backbone.forward_stages(x, start="second"))
    weight, bias = model.head.classifier.weight, model.head.classifier.bias
    return torch.stack([(features[0] * w[:, None, None]).sum(0) + b for w, b in zip(weight, bias, strict=True)]).relu()


def test_suppression_counts_no_image_whose_background_scores_as_much() -> None:
    background = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    scores = torch.tensor([2.0, 2.0, 2.0], requires_grad=True)
    loss = bas.suppression(background, scores)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5 / 3)
    assert background.grad is not None
    assert background.grad.tolist() == pytest.approx([1 / 6, 0, 0])
    assert scores.grad is None


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_suppression_teaches_the_generator_and_what_it_reads(precision: torch.dtype) -> None:
    model, (images, targets) = BAS(network(norm=True), 3).train(), batch()
    nn.init.normal_(model.generator.weight)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        model.loss(images, targets)["suppression"].backward()
    learns = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}
    assert {name.split(".")[0] for name in learns} == {"generator", "backbone"}
    assert {name.split(".")[2] for name in learns if name.startswith("backbone")} == {"first", "second"}  # not the tail


def test_frozen_layers_give_the_same_and_keep_their_buffers() -> None:
    model = BAS(network(norm=True), 3).train()
    x = torch.rand(2, 4, 6, 6, requires_grad=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    frozen = forward_frozen(model, model.scores, x)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    usual = model.scores(x)
    assert torch.equal(frozen, usual)
    (ours,), (theirs,) = (torch.autograd.grad(each.sum(), x, retain_graph=True) for each in (frozen, usual))
    assert torch.equal(ours, theirs)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert any(not torch.equal(before[name], buffer) for name, buffer in model.named_buffers())  # by the usual pass


def test_the_map_is_the_classs_or_the_mean_of_the_first_n() -> None:
    images, targets = batch()
    for top, dependent in ((None, True), (2, False), (99, False)):
        model = BAS(network(), 3, top=top).eval()
        nn.init.normal_(model.generator.weight)
        with torch.inference_mode():
            scores, maps = model.maps(images, targets.labels)
            every = torch.sigmoid(model.generator(model.backbone.forward_stages(images, stop="second")))
            _, others = model.maps(images, (targets.labels + 1) % 3)
        for i, (own, score) in enumerate(zip(every, scores.tolist(), strict=True)):
            ranked = sorted(range(3), key=lambda c, score=score: -score[c])  # type: ignore[misc]
            shown = [int(targets.labels[i])] if top is None else ranked[:top]
            torch.testing.assert_close(maps[i], torch.stack([own[c] for c in shown]).mean(0))
        assert torch.equal(maps, others) != dependent


def test_the_scores_are_the_means_of_class_maps_without_negative_values() -> None:
    head, features = ClassMapHead(4, 3, (5,)), torch.randn(2, 4, 3, 3)
    last = head.features(features)
    maps = torch.stack([head.maps(last, torch.full((2,), c)) for c in range(3)], dim=1)
    assert (maps >= 0).all()
    torch.testing.assert_close(head(features), maps.mean(dim=(2, 3)))
