"""Stages against the networks they are cut from."""

import hashlib
import importlib
import io
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from eil import backbones
from eil.backbones import weights
from eil.backbones.networks import efficientnet_lite0
from eil.core import registry
from eil.core.files import InputError
from eil.core.settings import SettingError

NETWORKS = registry.available(registry.BACKBONES)  # found as files: a new network is tested without a word here
MAPS = {"vgg_small": (64, 16), "resnet_small": (64, 16), "efficientnet_lite0": (160, 10)}  # input and map side


@pytest.mark.parametrize(("name", "side"), [("vgg16", 64), ("resnet50", 64), ("inception_v3", 96)])
def test_stages_give_torchvisions_logits_bit_for_bit(name: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "vgg16":  # torchvision draws its classifier twice, the first time before the values of the features
        monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
    torch.manual_seed(0)
    ours = backbones.build(name, output_stride=32).eval()
    torch.manual_seed(0)
    options = {"init_weights": True} if name == "inception_v3" else {}
    theirs = getattr(torchvision.models, name)(weights=None, **options).eval()
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        features = ours(images)
        if name == "vgg16":
            logits = theirs.classifier(torch.flatten(theirs.avgpool(features), 1))
        else:
            logits = theirs.fc(torch.flatten(theirs.avgpool(features), 1))
        assert torch.equal(logits, theirs(images))


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "inception_v3"])
@pytest.mark.parametrize(("stride", "side"), [(16, 14), (8, 28)])
def test_maps_at_224_have_the_benchmarks_size(name: str, stride: int, side: int) -> None:
    backbone = backbones.build_shapes(name, output_stride=stride)
    assert backbone(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, backbone.out_channels, side, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_have_the_output_stride_and_the_channels(name: str) -> None:
    info = importlib.import_module(backbones.module_of(name)).INFO
    for stride in info.output_strides:
        backbone = backbones.build_shapes(name, output_stride=stride)
        size, side = MAPS.get(name, (224, 224 // stride)) if stride == info.output_strides[0] else (224, 224 // stride)
        shape = backbone(torch.empty(2, 3, size, size, device="meta")).shape
        exact = (name, stride) != ("inception_v3", 32)  # torchvision's own has convolutions without padding
        assert shape == (2, backbone.out_channels, side, side) or not exact


@pytest.mark.parametrize("name", NETWORKS)
def test_default_stages_are_stages_that_the_methods_can_use(name: str) -> None:
    backbone = backbones.build_shapes(name)
    info = backbone.info
    attention = [info.eil_stage, *(info.meil_stages or ()), *(info.adl_stages or ())]
    for stage in filter(None, [*attention, *(info.spg_stages or ())]):
        backbone.require_grid(stage)
    for stage in filter(None, attention):
        backbone.require_attention(stage)
    for group in (info.meil_stages, info.adl_stages, info.spg_stages):
        positions = [backbone.index(stage) for stage in group or ()]
        assert positions == sorted(set(positions))
    assert all(
        any(s == p or s.startswith(f"{p}_") for s in backbone.names)
        for p in info.non_negative
        if p not in ("pool5", "maxpool3")
    )


@pytest.mark.parametrize("name", ["vgg_small", "resnet50"])
def test_channels_are_found_without_drawing_or_changing_anything(name: str) -> None:
    backbone = backbones.build(name).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    stage = backbone.info.eil_stage
    assert stage is not None
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert backbone.channels(stage) == backbone.eval().forward_stages(images, stop=stage).shape[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_running_in_pieces_equals_running_through(name: str) -> None:
    backbone = backbones.build(name).eval()
    images = torch.randn(1, 3, 64, 64)
    at = backbone.info.eil_stage
    with torch.inference_mode():
        assert torch.equal(
            backbone.forward_stages(backbone.forward_stages(images, stop=at), start=at), backbone(images)
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_exactly_the_stages_declared_non_negative_are_non_negative(name: str) -> None:
    backbone = backbones.build(name).eval()
    x = torch.randn(2, 3, 64, 64)
    signed = set()
    with torch.inference_mode():
        for stage in backbone.names:
            x = backbone.stages[stage](x)
            if x.min() < 0:
                signed.add(stage)
    assert {stage for stage in backbone.names if not backbone.is_non_negative(stage)} == signed


def test_a_prefix_means_the_last_of_its_stages() -> None:
    backbone = backbones.build_shapes("resnet50")
    assert backbone.names[backbone.index("layer3")] == "layer3_5"
    with pytest.raises(SettingError, match=r"at = layer9: must be a stage of resnet50: stem, layer1_0"):
        backbone.index("layer9")


def test_unknown_names_and_strides_are_answered_with_the_known() -> None:
    with pytest.raises(
        SettingError, match="must be one of efficientnet_lite0, inception_v3, resnet50, resnet_small, vgg16, vgg_small"
    ):
        backbones.build("vgg17")
    with pytest.raises(SettingError, match="vgg16 offers 16, 8, 32"):
        backbones.build("vgg16", output_stride=4)


def test_weights_that_cannot_be_fetched_say_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"download https://\S+/vgg16-397923af.pth and put it at \S+checkpoints/vgg16"):
        backbones.build("vgg16", pretrained=True)


def test_local_weights_are_loaded_if_their_hash_is_right(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = torchvision.models.resnet50(weights=None)
    path = tmp_path / "mine.safetensors"
    save_file(net.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    backbone = backbones.build("resnet50", f"{path}@sha256:{digest}")
    assert torch.equal(backbone.stages["layer3_5"].conv2.weight, net.layer3[5].conv2.weight)
    assert torch.equal(backbone.stages["stem"][1].running_mean, net.bn1.running_mean)
    with pytest.raises(InputError, match=rf"mine.safetensors: sha256 {digest}, expected 0{{64}}"):
        backbones.build("resnet50", f"{path}@sha256:{'0' * 64}")
    with pytest.raises(InputError, match=r"mine.safetensors@sha256:\w+: not vgg16's: expected features.0.weight, "):
        backbones.build("vgg16", f"{path}@sha256:{digest}")
    plain = tmp_path / "mine.pth"
    torch.save(net.state_dict(), plain)
    again = backbones.build("resnet50", f"{plain}@sha256:{hashlib.sha256(plain.read_bytes()).hexdigest()}")
    assert backbones.fingerprint(again) == backbones.fingerprint(backbone)
    torch.nn.init.zeros_(again.stages["stem"][1].running_mean)
    again.stages["stem"][1].running_mean += 1
    assert backbones.fingerprint(again) != backbones.fingerprint(backbone)


def test_local_weights_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="evil.pth: not a file of weights"):
        backbones.build("vgg16", f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    with pytest.raises(InputError, match="none.pth: No such file"):
        backbones.build("vgg16", f"{tmp_path / 'none.pth'}@sha256:{'0' * 64}")


def test_weights_are_named_as_torchvision_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda self, **_: _noted(taken, self))
    for given, expected in ((True, "IMAGENET1K_V1"), ("IMAGENET1K_V2", "IMAGENET1K_V2")):
        with pytest.raises(InputError, match="cannot be fetched"):
            backbones.build("resnet50", given)
        assert taken.pop() == torchvision.models.ResNet50_Weights[expected]
    with pytest.raises(SettingError, match="must be true, false, IMAGENET1K_V1, IMAGENET1K_V2 or FILE@sha256:HASH"):
        backbones.build("resnet50", "IMAGENET1K_V3", shapes_only=True)
    with pytest.raises(SettingError, match="must be true, false, package$"):
        backbones.build("efficientnet_lite0", f"x.pth@sha256:{'0' * 64}", shapes_only=True)


def test_weights_of_the_hub_fill_every_layer_and_may_have_a_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in torchvision.models.vgg16().state_dict().items()}
    state = {name: torch.full(shape if "features" in name else (1,), 0.5) for name, shape in shapes.items()}
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda self, **_: dict(state))
    assert all((each == 0.5).all() for each in backbones.build("vgg16", True).state_dict().values())
    del state["features.28.bias"]
    with pytest.raises(
        InputError, match=r"VGG16_Weights.IMAGENET1K_V1: expected 1 more tensors, first features.28.bias"
    ):
        backbones.build("vgg16", True)


def _noted(taken: list[object], weights: object) -> None:
    taken.append(weights)
    raise urllib.error.URLError("no network")


@pytest.mark.parametrize("name", ["vgg_small", "resnet_small"])
def test_small_backbones_start_from_other_drawn_birds(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="pretrained = imagenet: must be true, false, birds"):
        backbones.build(name, pretrained="imagenet")
    built, by_name = backbones.build(name, pretrained=True), backbones.build(name, pretrained="birds")
    assert backbones.fingerprint(built) == backbones.fingerprint(by_name)
    assert backbones.fingerprint(built) != backbones.fingerprint(backbones.build(name))
    # What `make weights` keeps of a training is what a backbone loads.
    trained = {f"backbone.{key}": value for key, value in built.state_dict().items()} | {"head.bias": torch.zeros(2)}
    save_file(trained, tmp_path / "weights.safetensors")
    weights.keep_backbone(tmp_path / "weights.safetensors", tmp_path / "kept.safetensors")
    kept = load_file(tmp_path / "kept.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in built.state_dict().items())
    assert len(kept) == len(trained) - 1


def test_efficientnet_loads_the_packages_weights_by_name() -> None:
    weights = efficientnet_lite0.read_weights()
    backbone = backbones.build("efficientnet_lite0", pretrained=True)
    stages = backbone.stages
    assert torch.equal(stages["stem"][0].weight, weights["_conv_stem.weight"])
    assert torch.equal(stages["block0"].layers[0].weight, weights["_blocks.0._depthwise_conv.weight"])
    assert torch.equal(stages["block11"].layers[3].weight, weights["_blocks.11._depthwise_conv.weight"])
    assert torch.equal(stages["block11"].layers[7].running_var, weights["_blocks.11._bn2.running_var"])
    assert torch.equal(stages["head"][1].bias, weights["_bn1.bias"])


def test_a_changed_weights_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: io.BytesIO(b"other").getvalue())
    with pytest.raises(InputError, match="sha256 .* expected 5793"):
        efficientnet_lite0.read_weights()


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_puts_the_odd_pixel_at_the_end(size: int, kernel: int, stride: int) -> None:
    layer = efficientnet_lite0.SameConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    image = torch.rand(1, 1, size, size)
    out = -(-size // stride)
    before = max((out - 1) * stride + kernel - size, 0) // 2
    expected = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            rows = slice(max(i * stride - before, 0), i * stride - before + kernel)
            columns = slice(max(j * stride - before, 0), j * stride - before + kernel)
            expected[i, j] = image[0, 0, rows, columns].sum()
    torch.testing.assert_close(layer(image)[0, 0].detach(), expected)
