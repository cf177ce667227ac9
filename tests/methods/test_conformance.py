"""What every method must do on every backbone. Installed methods and backbones are tested by themselves.

Of timm's networks one small transformer is: its methods need stages, and a mask for signed features.
"""

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load, save

from eil import backbones
from eil.backbones import Backbone
from eil.core import registry
from eil.core.run import Recipe
from eil.core.settings import IncompatibleSetting, SettingError, schema
from eil.methods import base
from eil.methods.base import Method, Targets
from eil.training.train_step import parameter_groups

VIT = "timm/test_vit.r160_in1k"


class Case(NamedTuple):
    name: str
    backbone: str


# All cases of a backbone in turn, so that it is built once.
CASES = [
    Case(name, backbone)
    for backbone in (*registry.available(registry.BACKBONES), VIT)
    for name in registry.available(registry.METHODS)
]
# Where the defaults name no stage.
SETTINGS: dict[Case, dict[str, Any]] = {
    Case("eil", VIT): {"at": "blocks_2", "attention": "class_token"},
    Case("meil", VIT): {"at": ("blocks_1", "blocks_3"), "attention": "class_token"},
    Case("spg", VIT): {"taps": ("blocks_2", "blocks_4")},
}
CLASSES = 3
# All tests of a case in turn, so that its networks are built and run once.
each_case = pytest.mark.parametrize("case", CASES, ids="-".join, scope="module")


@functools.lru_cache(maxsize=2)
def trunk(backbone: str, seed: int) -> tuple[Backbone, torch.Tensor]:
    """A backbone, and the state of the random numbers after it was built."""
    torch.manual_seed(seed)
    return backbones.build(backbone), torch.get_rng_state()


@functools.lru_cache(maxsize=2)
def _built(case: Case, seed: int) -> Method:
    def copied(*_: object) -> Backbone:  # to draw its initial values again would cost seconds
        torch.set_rng_state(state)
        return copy.deepcopy(same)

    same, state = trunk(case.backbone, seed)
    with mock.patch.object(backbones, "build", copied):
        return base.build(case.name, SETTINGS.get(case, {}), case.backbone, CLASSES, seed=seed)


def shared(case: Case, seed: int = 0) -> Method:
    """The network of a case, in eval mode, for tests that do not change it: to copy it takes half of such a test."""
    try:
        return _built(case, seed).eval()
    except (IncompatibleSetting, SettingError) as reason:  # without settings: the backbone has no default stage
        pytest.skip(str(reason))


def build(case: Case, seed: int = 0) -> Method:
    """A copy, which a test may change."""
    return copy.deepcopy(shared(case, seed)).train()


def batch(backbone: str, size: int = CLASSES) -> tuple[torch.Tensor, Targets]:
    side = 32 if backbone.endswith("_small") else 64
    images = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(0))
    return images, Targets(torch.arange(size) % CLASSES)


Pass = tuple[Method, torch.Tensor, Targets, float]  # a network with gradients, its augmented batch, its loss


def one_pass(model: Method, first: tuple[torch.Tensor, Targets], draws: int = 0, bf16: bool = False) -> Pass:
    """Loss and gradients of a first batch; ``draws`` is the seed of what a method draws."""
    torch.manual_seed(draws)
    images, targets = model.train().augment(*first)
    torch.manual_seed(draws)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        parts = model.loss(images, targets)
    assert all(part.shape == () and part.isfinite() for part in parts.values())
    assert parts["total"].dtype == torch.float32
    parts["total"].backward()
    return model, images, targets, float(parts["total"].detach())


@functools.lru_cache(maxsize=2)
def after_one_pass(case: Case, size: int = CLASSES) -> Pass:
    """Made once for all tests of a case. Whoever changes the network copies it."""
    return one_pass(build(case), batch(case.backbone, size))


def losses_downhill(start: Pass, share: float, steps: int = 4) -> Iterator[float]:
    """Losses along the gradient, by steps that would lower the loss by this share if it were linear."""
    model, images, targets, loss = start
    stepped = copy.deepcopy(model).train()
    parameters = list(stepped.parameters())
    gradients: Sequence[torch.Tensor | None] = [each.grad for each in model.parameters()]
    for _ in range(steps):
        norm = sum(float(found.square().sum()) for found in gradients if found is not None)
        with torch.no_grad():
            for parameter, found in zip(parameters, gradients, strict=True):
                if found is not None:
                    parameter.sub_(share * loss / norm * found)
        torch.manual_seed(0)
        total = stepped.loss(images, targets)["total"]
        loss = float(total.detach())
        yield loss
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)


@each_case
def test_a_step_or_a_few_lower_the_loss_on_their_batch(case: Case) -> None:
    """A few, if a method stops gradients on purpose, so that what is left of them need not lead down at once.

    Shorter ones, if a step moves cells over a mask's threshold, which no gradient sees.
    """
    start = after_one_pass(case)
    losses = (loss for share in (0.02, 0.002) for loss in losses_downhill(start, share))
    assert any(loss < start[-1] for loss in losses)


@each_case
@pytest.mark.parametrize("size", [1, CLASSES])
def test_logits_and_maps_have_their_shapes(case: Case, size: int) -> None:
    model = shared(case)
    images, targets = batch(case.backbone, size)
    with torch.inference_mode():
        logits, maps = model.maps(images, targets.labels)
        extra_maps = model.extra_maps(images, targets.labels)
    assert logits.shape == (size, CLASSES)
    assert maps.ndim == 3
    assert len(maps) == size
    assert maps.isfinite().all()
    assert all(each.ndim == 3 and len(each) == size for each in extra_maps.values())


@each_case
@pytest.mark.parametrize("size", [1, CLASSES])
def test_a_batch_of_any_size_trains(case: Case, size: int) -> None:
    model, *_ = after_one_pass(case, size)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


@each_case
def test_the_seed_decides_and_alone(case: Case) -> None:
    images, targets = batch(case.backbone)
    first = after_one_pass(case)
    passes = [first, one_pass(build(case), batch(case.backbone))]
    passes.append(one_pass(build(case, seed=1), batch(case.backbone), draws=1))
    losses, gradients, maps = [each[-1] for each in passes], [], []
    for model, *_ in passes:
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        with torch.inference_mode():
            maps.append(model.eval().maps(images, targets.labels)[1])
    assert losses[0] == losses[1] != losses[2]
    for ours, again, other in (gradients, [[found] for found in maps]):
        assert all(map(torch.equal, ours, again))
        assert not all(map(torch.equal, ours, other))


@each_case
def test_every_parameter_learns(case: Case) -> None:
    model, *_ = after_one_pass(case)
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@each_case
def test_state_survives_saving(case: Case) -> None:
    model, other = shared(case, 0), build(case, 1).eval()
    other.load_state_dict(load(save(model.state_dict())))
    images, targets = batch(case.backbone)
    with torch.inference_mode():
        for ours, theirs in zip(model.maps(images, targets.labels), other.maps(images, targets.labels), strict=True):
            assert torch.equal(ours, theirs)


@each_case
def test_the_mode_is_honoured_and_left_alone(case: Case) -> None:
    model = shared(case)
    images, targets = batch(case.backbone)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        first = model.maps(images, targets.labels)[1]
        one_by_one = torch.cat([model.maps(images[i : i + 1], targets.labels[i : i + 1])[1] for i in range(2)])
        model.extra_maps(images, targets.labels)
    assert not model.training
    torch.testing.assert_close(one_by_one, first[:2], rtol=1e-3, atol=1e-4)  # no image sees its batch
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@each_case
def test_new_layers_and_they_alone_learn_faster(case: Case) -> None:
    model = shared(case)
    base, new = parameter_groups(model, Recipe(learning_rate=0.01, head_multiplier=10))
    assert {id(p) for p in base["params"]} == {id(p) for p in model.backbone.parameters()}
    assert {id(p) for p in base["params"] + new["params"]} == {id(p) for p in model.parameters()}
    assert len(base["params"]) + len(new["params"]) == len(list(model.parameters()))
    assert (base["lr"], new["lr"]) == pytest.approx((0.01, 0.1))


@pytest.mark.parametrize("name", list(registry.available(registry.METHODS)))
def test_settings_are_typed_and_have_defaults(name: str) -> None:
    assert all(not field.is_required() for field in schema(registry.load(registry.METHODS, name)).model_fields.values())


@each_case
def test_bf16_stays_close_to_fp32(case: Case) -> None:
    # One image: a CPU without bf16 takes up to 6 seconds for each on vgg16.
    *_, expected = after_one_pass(case, 1)
    model, *_, loss = one_pass(build(case), batch(case.backbone, 1), bf16=True)
    # A cell at a mask's threshold, or a pixel at a seed's, may fall on its other side.
    assert loss == pytest.approx(expected, rel=0.15)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
