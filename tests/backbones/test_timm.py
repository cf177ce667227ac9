"""timm's networks: their stages against timm's own features, their names, their weights, what methods need to know."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eil import backbones
from eil.backbones import timm_networks
from eil.backbones.base import Backbone
from eil.core import registry, source_hash
from eil.core.files import InputError
from eil.core.run import DatasetChoice, Recipe, Run
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods import base

# One of every family, and of the ways in which its members differ, as small as timm has them.
CONVOLUTIONAL = [
    "test_resnet.r160_in1k",
    "resnet10t.c3_in1k",  # basic blocks
    "regnetx_002.pycls_in1k",
    "test_convnext.r160_in1k",
    "test_efficientnet.r160_in1k",
    "mobilenetv2_050.lamb_in1k",  # ReLU6
    "mobilenetv3_small_050.lamb_in1k",
]
TRANSFORMERS = {
    "test_vit.r160_in1k": 1,
    "test_vit2.r160_in1k": 1,  # its last norm follows pooling
    "deit_tiny_distilled_patch16_224.fb_in1k": 2,
}
RESNET, VIT = "timm/test_resnet.r160_in1k", "timm/test_vit.r160_in1k"


def built(name: str, stride: int | None, **options: Any) -> tuple[Backbone, Any]:
    """Ours and timm's, with the same weights."""
    torch.manual_seed(0)
    ours = backbones.build(f"timm/{name}", output_stride=stride).eval()
    torch.manual_seed(0)
    return ours, timm.create_model(name, **options).eval()


def signed_stages(ours: Backbone, images: Tensor, features: Tensor) -> set[str]:
    """Stages with negative values; from each stage the rest must give the same features, bit for bit."""
    x, signed = images, set()
    for stage in ours.names:
        x = ours.stages[stage](x)
        assert torch.equal(ours.forward_stages(x, start=stage), features)
        signed |= {stage} if x.min() < 0 else set()
    return signed


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_stages_give_timms_features_whole_and_in_pieces(name: str) -> None:
    ours, theirs = built(name, 32)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = ours(images)
        assert torch.equal(features, theirs.forward_features(images))
        assert features.shape == (2, ours.out_channels, 2, 2)
        signed = signed_stages(ours, images, features)
    assert {stage for stage in ours.names if not ours.is_non_negative(stage)} == signed


@pytest.mark.parametrize(("name", "prefix"), TRANSFORMERS.items())
def test_tokens_are_timms_whole_and_in_pieces(name: str, prefix: int) -> None:
    ours, theirs = built(name, None, dynamic_img_size=True)
    assert ours.info.prefix_tokens == prefix
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = ours(images)
        patches = theirs.forward_features(images)[:, prefix:]
        assert torch.equal(features.flatten(2).transpose(1, 2), patches)
        assert signed_stages(ours, images, features) == set(ours.names)
        for stage in ours.names:
            assert ours.grid(ours.forward_stages(images, stop=stage)).shape == (2, ours.out_channels, 4, 4)
            assert ours.channels(stage) == ours.out_channels
    with pytest.raises(
        SettingError, match="crop = 60: must be a multiple of 16, the side of the transformer's patches"
    ):
        ours(images[..., :60, :60])


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_convnext.r160_in1k", "test_efficientnet.r160_in1k"])
@pytest.mark.parametrize("stride", [8, 16])
def test_output_strides_are_timms_dilated_ones(name: str, stride: int) -> None:
    ours, theirs = built(name, stride, output_stride=stride)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs.forward_features(images))
        assert ours(images).shape[-1] == 64 // stride


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, *TRANSFORMERS])
def test_what_methods_need_to_know(name: str) -> None:
    backbone = backbones.build_shapes(f"timm/{name}")
    info, config = backbone.info, timm.models.get_pretrained_cfg(name)
    assert (info.mean, info.std, info.weights) == (config.mean, config.std, (config.tag,))
    for stage in filter(None, [info.eil_stage, *(info.meil_stages or ()), *(info.adl_stages or ())]):
        backbone.require_attention(stage)
    for group in (info.meil_stages, info.adl_stages, info.spg_stages):
        positions = [backbone.index(stage) for stage in group or ()]
        assert positions == sorted(set(positions))


def test_default_stages_are_those_of_the_same_networks_of_torchvision() -> None:
    ours, theirs = backbones.build_shapes("resnet50"), backbones.build_shapes("timm/resnet50.tv_in1k")
    assert theirs.names == ours.names
    for field in ("eil_stage", "meil_stages", "adl_stages", "spg_stages", "mean", "std", "branch_width"):
        assert getattr(theirs.info, field) == getattr(ours.info, field)
    assert all(theirs.is_non_negative(stage) for stage in theirs.names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", r"name its weights: timm/resnet50.a1_in1k, .*timm/resnet50.tv_in1k"),
        ("resnet50.tv1_in1k", r"has no such tag; expected one of timm/resnet50.a1_in1k, .*timm/resnet50.tv_in1k"),
        ("resnet5.tv_in1k", "timm has no resnet5; similar: .*resnet50"),
        ("swin_tiny_patch4_window7_224.ms_in1k", "cannot be cut into stages; expected a network of timm's resnet, "),
    ],
)
def test_unknown_names_are_answered_with_the_known(name: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        backbones.build_shapes(f"timm/{name}")
    with pytest.raises(SettingError, match=r"must be one of .*vgg_small, or timm/NAME.TAG"):
        backbones.build_shapes(f"timn/{name}")


def test_a_lone_tag_need_not_be_given() -> None:
    assert backbones.build_shapes("timm/test_vit").info == backbones.build_shapes(VIT).info
    assert timm_networks.names("deit_small_p*") == ["deit_small_patch16_224.fb_in1k"]


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingError, match=r"needs the library timm \(.*\): pip install 'eil\[timm\]'"):
        timm_networks.find.__wrapped__("test_vit")


def stored(path: Path, state: dict[str, Tensor]) -> str:
    save_file(state, path)
    return f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def weights_of(name: str) -> dict[str, Tensor]:
    """Random tensors of timm's names, none of them an initial value."""
    generator = torch.Generator().manual_seed(1)
    state = timm.create_model(name.removeprefix("timm/")).state_dict()
    return {key: torch.rand(value.shape, generator=generator).to(value.dtype) for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "stride"),
    [(RESNET, 32), (VIT, 16), ("timm/test_convnext.r160_in1k", 32), ("timm/mobilenetv3_small_050.lamb_in1k", 32)],
)
def test_every_tensor_of_a_local_file_is_loaded(tmp_path: Path, name: str, stride: int) -> None:
    state = weights_of(name)
    ours = backbones.build(name, stored(tmp_path / "w.safetensors", state), stride).eval()
    theirs = timm.create_model(name.removeprefix("timm/"))
    theirs.load_state_dict(state)
    side = ours.info.example_side
    images = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        assert torch.equal(ours(images), ours.grid(theirs.eval().forward_features(images)))
    assert {value.sum().item() for value in ours.state_dict().values()} <= {
        each.sum().item() for each in state.values()
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"norm.weight": None}, r"not those of timm's test_vit.r160_in1k: expected norm.weight, found "),
        ({"blocks.3.norm1.bias": None}, "expected blocks.3.norm1.bias, found "),
        ({"fc_norm.weight": torch.ones(64)}, "expected nothing besides the network's, found fc_norm.weight"),
        ({"pos_embed": torch.ones(1, 5, 64)}, r"expected pos_embed \(1, 101, 64\), found pos_embed \(1, 5, 64\)"),
    ],
)
def test_a_file_that_would_leave_a_layer_random_is_refused(
    tmp_path: Path, spoil: dict[str, Tensor | None], message: str
) -> None:
    state = {key: value for key, value in (weights_of(VIT) | spoil).items() if value is not None}
    with pytest.raises(InputError, match=message):
        backbones.build(VIT, stored(tmp_path / "w.safetensors", state))
    with pytest.raises(InputError, match="not those of timm's test_resnet"):
        backbones.build(RESNET, stored(tmp_path / "w.safetensors", weights_of(VIT)))


def test_weights_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append((repository, file))
        save_file(weights_of(RESNET), tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fetched = [backbones.build(RESNET, weights) for weights in (True, "r160_in1k")]
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")] * 2
    local = backbones.build(RESNET, stored(tmp_path / "w.safetensors", weights_of(RESNET)))
    assert {backbones.fingerprint(each) for each in (*fetched, local)} == {backbones.fingerprint(local)}


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(InputError, match=r"no network.*download https://\S+/model.safetensors .*FILE@sha256:HASH"):
        backbones.build(RESNET, True)
    with pytest.raises(SettingError, match="must be true, false, r160_in1k or FILE@sha256:HASH"):
        backbones.build_shapes(RESNET, "IMAGENET1K_V1")


def test_a_kept_classifier_is_the_files(tmp_path: Path) -> None:
    state = weights_of(RESNET)
    weights = stored(tmp_path / "w.safetensors", state)
    model = base.build("cam", {}, RESNET, 1000, pretrained=weights, network={"keep_classifier": True})
    assert torch.equal(model.head.classifier.weight, state["fc.weight"])
    with pytest.raises(SettingError, match="timm/test_vit.r160_in1k has more than pooling before its classifier"):
        backbones.build(VIT, stored(tmp_path / "v.safetensors", weights_of(VIT)), network={"keep_classifier": True})
    del state["fc.weight"]
    with pytest.raises(InputError, match="expected fc.weight"):
        backbones.build(RESNET, stored(tmp_path / "w.safetensors", state), network={"keep_classifier": True})


def test_blocks_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    usual = backbones.build(VIT)
    torch.manual_seed(0)
    dropping = backbones.build(VIT, network={"drop_path": 0.5})
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(dropping.eval()(images), usual.eval()(images))
        assert not torch.equal(dropping.train()(images), usual.train()(images))
    with pytest.raises(SettingError, match=r"network.drop_path = 1"):
        backbones.build(VIT, network={"drop_path": 1})


def run_of(backbone: str) -> Run:
    return Run(
        study="s",
        dataset=DatasetChoice(name="birds"),
        backbone=backbone,
        pretrained=False,
        output_stride=None,
        method="cam",
        settings={},
        repetition=0,
        recipe=Recipe(),
    )


def test_a_runs_folder_and_hash() -> None:
    run = run_of(RESNET)
    assert run.name == "timm.test_resnet.r160_in1k-cam-seed0"
    assert registry.module(registry.BACKBONES, RESNET) == "eil.backbones.timm_networks"
    assert source_hash.of_step("train", run) == source_hash.of_step("train", run_of(VIT))
    assert source_hash.of_step("train", run) != source_hash.of_step("train", run_of("vgg_small"))
    for name in ("timm/", "/vit", "timm/a/b", "timm/..", "timm/a.", "timm/a.b.c", "a.b"):
        with pytest.raises(ValueError, match="backbone"):
            run_of(name)


@pytest.mark.parametrize("name", ["timm_networks", "timm_families", "listing", "factory"])
def test_timm_is_imported_only_where_a_study_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # an import would raise
    spec = importlib.util.find_spec(f"eil.backbones.{name}")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    backbones.build_shapes("vgg_small")


def test_methods_that_make_no_sense_on_tokens_say_why() -> None:
    with pytest.raises(IncompatibleSetting, match="is a transformer: the layer multiplies features by a map, which"):
        base.build("adl", {"at": ("blocks_2",)}, VIT, 3)
    with pytest.raises(IncompatibleSetting, match="no attention map: set attention: class_token"):
        base.build("eil", {"at": "blocks_2"}, VIT, 3)
    for method in ("bas", "bridgegap"):
        with pytest.raises(IncompatibleSetting, match="pass on tokens; a stage of"):
            base.build(method, {"at": "blocks_2"}, VIT, 3)
    with pytest.raises(SettingError, match=r"at = None: has no default for timm/test_vit\S+: choose from patch_em"):
        base.build("eil", {}, VIT, 3)


def test_norms_of_the_head_are_left_out() -> None:
    backbone = backbones.build("timm/test_vit2.r160_in1k")
    assert not list(backbone.stages["norm"].parameters())
    assert not any(isinstance(stage, nn.Linear) for stage in backbone.stages.values())
