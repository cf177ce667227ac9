"""Networks of the library timm (PyTorch Image Models, Wightman et al.) by name: ``timm/NAME.TAG`` in a study.

The tag pins the weights, and the mean and standard deviation of their input. Where a network is cut into stages:
:mod:`eil.backbones.timm_families`. Weights come from timm's hub, or from a local file with timm's names. The library is
imported only if a study names such a network.

An output stride below a network's own is made by dilation, as timm does it; the resnet50 of
:mod:`eil.backbones.networks` has stride 1 without dilation, as the benchmark's. With the same weights the two give
other activations.
"""

import difflib
import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from eil.backbones import state_dicts
from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.meta import meta_tensors
from eil.backbones.pretrained import read_local, tensors_of
from eil.backbones.timm_families import cut
from eil.core.files import InputError
from eil.core.run import LOCAL_WEIGHTS
from eil.core.safe_yaml import in_a_line
from eil.core.settings import SettingError

# Modules of timm whose networks can be cut; in those of transformers the positions are resized to the input.
_CONVOLUTIONAL = ("resnet", "regnet", "convnext", "efficientnet", "mobilenetv3")
_TRANSFORMERS = ("vision_transformer", "deit")
_OWN_STRIDE = 32
_MAX_BRANCH_WIDTH = 1024
_SHOWN = 8


@functools.cache
def find(name: str) -> tuple[BackboneInfo, Callable[..., Backbone]]:
    """What methods need to know of a network, and its builder.

    Args:
        name: timm's, with the tag: ``resnet50.tv_in1k``. A name alone will do where timm has one tag.

    Raises:
        SettingError: timm is missing, has no such network or tag, or the network cannot be cut into stages.
    """
    config = _config(name)
    with meta_tensors():
        net = _create(config, _OWN_STRIDE)
        channels: int = net.num_features
        try:
            parts = cut(net)
        except TypeError as error:
            raise SettingError("backbones", f"timm/{name}", str(error)) from None
    info = BackboneInfo(
        non_negative=parts.non_negative,
        output_strides=parts.output_strides,
        branch_width=min(_MAX_BRANCH_WIDTH, channels),
        weights=(config.tag,) if config.hf_hub_id and not config.custom_load else (),
        local_weights=True,
        mean=tuple(config.mean),
        std=tuple(config.std),
        example_side=config.input_size[-1],
        grids=True,
        prefix_tokens=parts.prefix_tokens,
        **parts.defaults,
    )

    def build(
        weights: str | None,
        output_stride: int,
        *,
        keep_classifier: bool = False,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> Backbone:
        return _build(name, info, config, weights, output_stride, keep_classifier, drop_path)

    return info, build


def names(pattern: str) -> list[str]:
    """Names with tags of the networks that can be cut, sorted; ``pattern`` is a shell's: ``convnext_*``.

    Raises:
        SettingError: timm is missing.
    """
    library = _library()
    modules = [library.list_models(module=module) for module in (*_CONVOLUTIONAL, *_TRANSFORMERS)]
    known = {name for module in modules for name in module}
    return [name for name in library.list_models(pattern, pretrained=True) if name.partition(".")[0] in known]


def _build(
    name: str,
    info: BackboneInfo,
    config: Any,
    weights: str | None,
    output_stride: int,
    keep_classifier: bool,
    drop_path: float,
) -> Backbone:
    net = _create(config, output_stride, drop_path)
    channels, classifier = net.num_features, net.get_classifier() if keep_classifier else None
    tensors = net.state_dict(keep_vars=True)  # before the network is taken apart
    parts = cut(net)
    if keep_classifier and not (parts.linear_head and isinstance(classifier, nn.Linear)):
        raise SettingError("keep_classifier", True, f"timm/{name} has more than pooling before its classifier")
    if weights is not None:
        needed = [*parts.stages.values(), *([classifier] if classifier is not None else [])]
        _load(tensors, nn.ModuleList(needed), weights, config)
    return Backbone(f"timm/{name}", parts.stages, channels, info, classifier)


def _load(tensors: dict[str, Tensor], needed: nn.Module, weights: str, config: Any) -> None:
    """Fill the tensors of the needed modules; every one must be given.

    Raises:
        InputError: weights that cannot be fetched, or that are not the network's.
    """
    local = LOCAL_WEIGHTS.fullmatch(weights)
    found = read_local(weights) if local else _from_hub(config)
    used = {id(tensor) for tensor in (*needed.parameters(), *needed.buffers())}
    after_pooling = tuple(name for name, tensor in tensors.items() if id(tensor) not in used)
    try:
        usable = state_dicts.required_tensors(found, tensors, after_pooling)
    except state_dicts.IncompatibleTensors as error:
        source = weights if local else config.hf_hub_id
        raise InputError(f"pretrained weights {source}: not those of timm's {_label(config)}: {error}") from None
    with torch.no_grad():
        for name, value in usable.items():
            tensors[name].copy_(value)


def _from_hub(config: Any) -> dict[str, Tensor]:
    """Weights of timm's hub, from its cache on this machine if they are there.

    Raises:
        InputError: they cannot be fetched; the message says what to download and how to name it.
    """
    repository, _, revision = config.hf_hub_id.partition("@")
    file, version = config.hf_hub_filename or "model.safetensors", revision or None
    try:
        import huggingface_hub

        path = huggingface_hub.hf_hub_download(repository, file, revision=version)
    except Exception as error:  # the hub's client raises many unrelated types where there is no network
        raise InputError(
            f"pretrained weights {config.hf_hub_id} are missing and cannot be fetched ({in_a_line(error)}); "
            f"download {_address(repository, file, version)} and give the file in the study, anywhere on this machine: "
            "pretrained: FILE@sha256:HASH"
        ) from None
    return tensors_of(Path(path).read_bytes(), f"pretrained weights {path}")


def _address(repository: str, file: str, revision: str | None) -> str:
    try:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repository, file, revision=revision)
    except ImportError:
        return f"{file} of {repository} from the Hugging Face hub"


def _create(config: Any, output_stride: int, drop_path: float = 0.0) -> Any:
    """A network of timm with random weights; in training its blocks are left out at random, up to ``drop_path``."""
    library = _library()
    options: dict[str, Any] = {"num_classes": config.num_classes} if config.num_classes else {}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if library.models.is_model_in_modules(config.architecture, _TRANSFORMERS):
        options["dynamic_img_size"] = True
    elif output_stride != _OWN_STRIDE:
        options["output_stride"] = output_stride
    return library.create_model(_label(config), pretrained=False, **options)


def _config(name: str) -> Any:
    """The configuration of a network's weights.

    Raises:
        SettingError: no such network, or no such tag.
    """
    library, given = _library(), f"timm/{name}"
    architecture, _, tag = name.partition(".")
    if not library.models.is_model_in_modules(architecture, (*_CONVOLUTIONAL, *_TRANSFORMERS)):
        if library.is_model(architecture):
            families = ", ".join((*_CONVOLUTIONAL, *_TRANSFORMERS))
            raise SettingError(
                "backbones", given, f"cannot be cut into stages; expected a network of timm's {families}"
            )
        raise SettingError("backbones", given, f"timm has no {architecture}{_similar(architecture, library)}")
    tags = {config.tag: config for config in library.models.get_arch_pretrained_cfgs(architecture).values()}
    if tag in tags or (not tag and len(tags) == 1):
        return tags[tag or next(iter(tags))]
    listed = ", ".join(f"timm/{architecture}.{each}" for each in tags)
    raise SettingError(
        "backbones", given, f"timm has no such tag; expected one of {listed}" if tag else f"name its weights: {listed}"
    )


def _similar(architecture: str, library: ModuleType) -> str:
    found = difflib.get_close_matches(architecture, library.list_models(), _SHOWN)
    return f"; similar: {', '.join(found)}" if found else ""


def _label(config: Any) -> str:
    return f"{config.architecture}.{config.tag}" if config.tag else config.architecture


def _library() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise SettingError("backbones", "timm", f"needs the library timm ({error}): pip install 'eil[timm]'") from None
    return timm
