"""What every extractor must do on every method and small backbone that it fits, in one pass for all of them.

Installed extractors, methods and backbones are tested: nothing here names one, but where a single case is meant.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import tiny_vit
import torch
from torch import Tensor, nn

from baselines import CAM
from baselines.extractors.gradients import GradCAM
from eil.backbones import Backbone
from eil.core import registry
from eil.core.settings import IncompatibleSetting, SettingError, schema
from eil.methods import base
from eil.methods.base import Method
from eil.methods.extractor import Evidence, Extractor, GradientExtractor, default_stage
from eil.methods.shared_pass import extract, fit

NAMES = registry.available(registry.EXTRACTORS)
BACKBONES = [name for name in registry.available(registry.BACKBONES) if name.endswith("_small")]
CASES = [(method, backbone) for method in registry.available(registry.METHODS) for backbone in BACKBONES]
CLASSES = 3
LABELS = torch.tensor([0, 1, 2, 1])


@functools.lru_cache(maxsize=4)
def built(method: str, backbone: str) -> Method:
    try:
        return base.build(method, {}, backbone, CLASSES).eval()
    except IncompatibleSetting as reason:  # a method of transformers
        pytest.skip(str(reason))


def images(size: int = 4) -> Tensor:
    return torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def every(model: Method) -> dict[str, Extractor]:
    """All extractors for a method, or the test is skipped with the reason."""
    try:
        found = {name: registry.load(registry.EXTRACTORS, name)(model) for name in NAMES}
    except IncompatibleSetting as reason:
        pytest.skip(str(reason))
    fit(model, found.values(), [(label, [images(2) + label]) for label in range(CLASSES)])
    return found


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_every_extractor_makes_maps_and_leaves_no_trace(method: str, backbone: str) -> None:
    model = built(method, backbone)
    extractors = every(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.inference_mode():
        own_logits, _ = model.maps(images(), LABELS)
        logits, maps = extract(model, extractors, images(), LABELS)
        one_by_one = [extract(model, extractors, images()[[i]], LABELS[[i]])[1] for i in (2, 1)]
    assert torch.equal(logits, own_logits)
    assert list(maps) == NAMES
    for name, found in maps.items():
        assert found.dtype == torch.float32
        assert found.ndim == 3
        assert found.isfinite().all()
        assert not found.requires_grad
        assert float(found.std()) > 0, name
        singly = torch.cat([each[name] for each in one_by_one])  # no image sees its batch or another's class
        torch.testing.assert_close(singly, found[[2, 1]], rtol=1e-3, atol=1e-5)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, name) for module in model.modules() for name in hooks)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_callers_grad_mode_and_frozen_weights_do_not_matter(backbone: str) -> None:
    model = copy.deepcopy(built("cam", backbone))
    x = images()
    expected = extract(model, every(model), x, LABELS)[1]
    modes: list[Callable[[], AbstractContextManager[object]]] = [torch.no_grad, torch.inference_mode, torch.enable_grad]
    for mode in modes:
        with mode():
            found = extract(model, every(model), x.clone(), LABELS.clone())[1]
        assert all(torch.equal(found[name], expected[name]) for name in NAMES), mode
    model.requires_grad_(False)
    found = extract(model, every(model), x, LABELS)[1]
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_together_give_what_each_gives_alone(backbone: str) -> None:
    model = built("cam", backbone)
    together = every(model) | {f"grad at {at}": GradCAM(model, at=at) for at in model.backbone.names}
    _, found = extract(model, together, images(), LABELS)
    for name, extractor in together.items():
        assert torch.equal(extract(model, {name: extractor}, images(), LABELS)[1][name], found[name])


def test_one_forward_and_one_backward_pass_serve_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(built("cam", "vgg_small"))
    runs: list[str] = []
    for name, stage in model.backbone.stages.items():
        stage.register_forward_hook(lambda *_, name=name: runs.append(name))
    grad, passes = torch.autograd.grad, list[bool]()

    def counted(*given: object, **settings: bool) -> tuple[Tensor, ...]:
        passes.append(settings["retain_graph"])
        return grad(*given, **settings)  # type: ignore[arg-type, misc]

    monkeypatch.setattr(torch.autograd, "grad", counted)
    plain = {name: each for name, each in every(model).items() if each.gradients != "guided"}
    runs.clear()  # those of the fit
    extract(model, plain | {"early": GradCAM(model, at="pool1")}, images(), LABELS)
    assert runs == list(model.backbone.names)
    assert passes == [False]


class Gradients(GradientExtractor):
    """The gradient itself, summed over channels."""

    def maps(self, found: Evidence) -> Tensor:
        return found.slopes.sum(dim=1)


def test_gradients_are_those_of_the_whole_network() -> None:
    model = built("cam", "vgg_small")
    stages = ("conv1", "pool2")
    _, found = extract(model, {at: Gradients(model, at=at) for at in stages}, images(), LABELS)
    for at in stages:
        x = model.backbone.forward_stages(images(), stop=at).detach().requires_grad_()
        logits = model.head(model.backbone.forward_stages(x, start=at))
        (gradient,) = torch.autograd.grad(logits[range(4), LABELS].sum(), x)
        torch.testing.assert_close(found[at], gradient.sum(dim=1))


class Doubled(nn.Module):
    """Doubles its input, in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2) if self.inplace else x * 2


def test_a_stage_that_works_in_place_does_not_change_what_is_read_before_it() -> None:
    found = []
    for inplace in (False, True):
        model = copy.deepcopy(built("cam", "vgg_small"))
        stages = model.backbone.stages
        for name in ("pool1", "conv3", "conv4"):
            stages[name] = nn.Sequential(Doubled(inplace), stages[name])
        extractors = {at: GradCAM(model, at=at) for at in ("conv1", "pool2", "conv3")}
        found.append(extract(model, extractors, images(), LABELS)[1])
    assert all(torch.equal(found[0][at], found[1][at]) for at in found[0])


def test_an_extractor_that_declares_no_gradients_gets_none() -> None:
    class Undeclared(Extractor):
        def maps(self, found: Evidence) -> Tensor:
            return found.slopes.sum(dim=1)

    model = built("cam", "vgg_small")
    with pytest.raises(ValueError, match='must declare gradients = "plain" or "guided"'):
        extract(model, {"it": Undeclared(model)}, images(), LABELS)


def test_maps_under_autocast_stay_close_and_are_float32() -> None:
    model = built("cam", "vgg_small")
    _, expected = extract(model, every(model), images(), LABELS)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        own, _ = model.maps(images(), LABELS)  # leaves weights of inference mode in autocast's cache
        logits, found = extract(model, every(model), images(), LABELS)
    assert torch.equal(logits, own)
    for name in NAMES:
        assert found[name].dtype == torch.float32
        pair = torch.stack([found[name].flatten(), expected[name].flatten()])
        assert pair.corrcoef()[0, 1] > 0.9, name


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_typed_and_have_defaults(name: str) -> None:
    fields = schema(registry.load(registry.EXTRACTORS, name)).model_fields
    assert all(not field.is_required() for field in fields.values())


def test_a_method_with_maps_of_its_own_is_refused() -> None:
    with pytest.raises(IncompatibleSetting, match="ACoL makes its logits and maps in its own way; map extractors read"):
        GradCAM(base.build("acol", {}, "vgg_small", CLASSES))


def test_a_stage_must_exist_and_be_a_grid() -> None:
    with pytest.raises(SettingError, match="at = pool9: must be a stage of vgg_small: conv1, pool1"):
        GradCAM(built("cam", "vgg_small"), at="pool9")
    mixed = tiny_vit.tokens()
    stages = {"embedding": mixed.stages["embedding"], "block1": tiny_vit.Tokens(tiny_vit.block())}
    model = CAM(Backbone("mixed", stages, tiny_vit.WIDTH, mixed.info), CLASSES)
    with pytest.raises(IncompatibleSetting, match=r"mixed's embedding have shape \(B, 17, 16\); expected a grid"):
        GradCAM(model)


def test_a_transformer_whose_stages_are_grids_has_every_map() -> None:
    torch.manual_seed(0)
    model = CAM(tiny_vit.grid(), CLASSES).eval()
    _, maps = extract(model, every(model), images(), LABELS)
    assert all(found.shape == (4, 4, 4) and found.isfinite().all() for found in maps.values())


@pytest.mark.parametrize(
    ("backbone", "stage"),
    [("vgg_small", "conv3"), ("resnet_small", "layer2"), ("vgg16", "pool4"), ("resnet50", "layer3_5")],
)
def test_the_default_stage_is_the_one_before_the_last(backbone: str, stage: str) -> None:
    from eil import backbones

    assert default_stage(backbones.build_shapes(backbone, False, None, {})) == stage
