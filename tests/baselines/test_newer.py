"""BridgeGap, BAS and DA-WSOL against their papers' formulas, written out as loops over images and cells."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import bas, bridgegap, dawsol
from baselines.bas import BAS, ClassMapHead
from baselines.bridgegap import BridgeGap
from baselines.dawsol import DAWSOL
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


# DA-WSOL


def squared(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def lloyd(cells_: list[list[float]], centres: list[list[float]], rounds: int) -> tuple[list[int], list[list[float]]]:
    def nearest(cell: list[float]) -> int:
        return min(range(len(centres)), key=lambda c: squared(cell, centres[c]))

    for _ in range(rounds):
        member = [nearest(cell) for cell in cells_]
        for c in range(len(centres)):
            own = [cell for cell, m in zip(cells_, member, strict=True) if m == c]
            centres[c] = [mean(list(column)) for column in zip(*own, strict=True)] if own else centres[c]
    return [nearest(cell) for cell in cells_], centres


def test_clusters_equal_the_loop_and_an_empty_one_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    given, starts = torch.rand(3, 20, 4, generator=generator), torch.rand(3, 3, 4, generator=generator)
    starts[1, 2] = 99
    member, centres = dawsol.clusters(given, starts, rounds=4)
    for own, start, labels, found in zip(
        given.tolist(), starts.tolist(), member.tolist(), centres.tolist(), strict=True
    ):
        expected = lloyd(own, start, 4)
        assert labels == expected[0]
        assert [x for row in found for x in row] == pytest.approx([x for row in expected[1] for x in row], abs=1e-5)
    assert centres[1, 2].tolist() == [99] * 4


def test_discrepancy_equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 5, 3, generator=generator), torch.rand(2, 5, 3, generator=generator) + 0.3
    found = dawsol.discrepancy(source, target).tolist()
    for a, b, value in zip(source.tolist(), target.tolist(), found, strict=True):
        every = a + b
        width = sum(squared(x, y) for x in every for y in every) / (10 * 9) / 4
        widths = [width * 2**k for k in range(5)]

        def kernel(x: list[float], y: list[float], widths: list[float] = widths) -> float:
            return sum(math.exp(-squared(x, y) / w) for w in widths)

        pairs = [(i, (i + 1) % 5) for i in range(5)]
        terms = [kernel(a[i], a[j]) + kernel(b[i], b[j]) - kernel(a[i], b[j]) - kernel(a[j], b[i]) for i, j in pairs]
        assert value == pytest.approx(mean(terms), abs=1e-4)


def test_samples_are_of_the_cluster_and_too_few_are_told() -> None:
    given = torch.arange(12.0).view(2, 6, 1)
    member = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    found, enough = dawsol.sampled(given, member, torch.rand(2, 6, generator=torch.Generator().manual_seed(0)), 3)
    assert enough.tolist() == [True, False]
    assert len(set(found[0].flatten().tolist())) == 3
    assert set(found[0].flatten().tolist()) <= {0, 2, 3, 5}


def test_dawsol_loss_is_made_of_its_terms_and_remembers() -> None:
    model, (images, targets) = DAWSOL(network(), 3, domain_weight=0.3, universum_weight=2, samples=2), batch()
    torch.manual_seed(3)
    parts = {name: float(part.detach()) for name, part in model.loss(images, targets).items()}
    torch.manual_seed(3)
    features = model.head.features(model.backbone(images)).flatten(2).transpose(1, 2).detach()  # (B, N, K)
    pooled = features.mean(dim=1)
    starts = torch.stack([torch.zeros_like(pooled), pooled, pooled], dim=1)  # no class was seen before
    member, centres = dawsol.clusters(features, starts)
    terms = model.adaptation(features, pooled, member)
    nothing = [abs(x) for own, m in zip(features, member, strict=True) for x in own[m == 0].flatten().tolist()]
    assert parts["universum"] == pytest.approx(mean(nothing), abs=1e-6)
    assert parts["domain"] == pytest.approx(float(terms["domain"]), abs=1e-5)
    total = parts["classification"] + 0.3 * parts["domain"] + 2 * parts["universum"]
    assert (parts["total"], parts["kept"]) == pytest.approx((total, float(terms["kept"])))
    torch.testing.assert_close(model.universum, centres[:, 0].mean(dim=0))
    of_first = torch.stack([pooled[0], centres[0, 1], centres[3, 1]]).mean(dim=0)  # images 0 and 3 have class 0
    torch.testing.assert_close(model.sources[0], of_first)
    assert model.source_counts.tolist() == [3, 2, 2]


def test_nothing_is_clustered_in_the_warmup() -> None:
    """As in the authors' code, so that the means begin with the features of the second epoch."""
    model, (images, targets) = DAWSOL(network(), 3, samples=2, warmup=0.02), batch()
    model.start_epoch(0, 50)
    parts = model.loss(images, targets)
    assert parts["total"].item() == parts["classification"].item()
    assert [parts[name].item() for name in ("domain", "universum", "kept")] == [0, 0, 0]
    assert not any(each.any() for each in (model.universum, model.universum_count, model.sources, model.source_counts))
    model.start_epoch(1, 50)
    adapted = model.loss(images, targets)
    assert adapted["total"].item() > adapted["classification"].item()
    assert model.universum_count.item() == len(images)


def test_a_batch_without_enough_samples_has_a_finite_loss() -> None:
    model, (images, targets) = DAWSOL(network(), 3, samples=999), batch()
    parts = model.loss(images, targets)
    parts["total"].backward()
    assert (float(parts["kept"]), float(parts["domain"].detach())) == (0, 0)
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


def test_constant_features_have_a_finite_gradient() -> None:
    same = torch.ones(1, 4, 3, requires_grad=True)
    dawsol.discrepancy(same, same * 1).sum().backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_what_dawsol_remembers_is_in_the_checkpoint() -> None:
    model, (images, targets) = DAWSOL(network(), 3, samples=2), batch()
    model.loss(images, targets)
    again = DAWSOL(network(), 3, samples=2)
    again.load_state_dict(model.state_dict())
    losses = []
    for each in (model, again):
        torch.manual_seed(5)
        losses.append(float(each.loss(images, targets)["total"].detach()))
    assert losses[0] == losses[1]
