"""Build a backbone by name."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from eil.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneInfo, HeadInit, HeadKind
from eil.backbones.meta import meta_tensors
from eil.core import registry
from eil.core.run import LOCAL_WEIGHTS, Pretrained
from eil.core.settings import SettingError, check, schema


def build(
    name: str,
    pretrained: Pretrained = False,
    output_stride: int | None = None,
    network: Mapping[str, Any] | None = None,
    *,
    shapes_only: bool = False,
) -> Backbone:
    """Build a backbone.

    Args:
        name: of a file of :mod:`eil.backbones.networks`, an entry point, or ``timm/NAME.TAG``
            (:mod:`eil.backbones.timm_networks`).
        pretrained: True for the default ImageNet weights, the name of others, or ``FILE@sha256:HASH``, a local file
            (safetensors, or tensors saved by torch) with torchvision's or timm's names, whose hash is checked. The file
            may have any classifier, and the weights may be in a checkpoint's ``state_dict`` or ``model``.
        output_stride: input pixels per cell of the last feature map (default: the first of its info).
        network: options of the network: those of :func:`with_options`, and the keyword arguments of the backbone's own
            function.
        shapes_only: check ``pretrained``, but load nothing.

    Raises:
        SettingError: an unknown name, or weights, a stride or an option that the backbone does not offer.
        InputError: pretrained weights are missing; the message says what to put where.
    """
    info, factory = definition(name)
    if pretrained and not info.weights:
        raise SettingError("pretrained", pretrained, f"{name} has no pretrained weights")
    known = pretrained in (*info.weights, True, False)
    if not known and not (info.local_weights and LOCAL_WEIGHTS.fullmatch(str(pretrained))):
        files = " or FILE@sha256:HASH, of 64 hexadecimal digits" if info.local_weights else ""
        raise SettingError("pretrained", pretrained, f"must be true, false, {', '.join(info.weights)}{files}")
    if output_stride is not None and output_stride not in info.output_strides:
        offered = ", ".join(map(str, info.output_strides))
        raise SettingError("output_stride", output_stride, f"{name} offers {offered}")
    weights = None if shapes_only or not pretrained else info.weights[0] if pretrained is True else pretrained
    given = dict(network or {})
    require_options(factory, given)
    if given.get("keep_classifier") and not pretrained:
        raise SettingError("keep_classifier", True, "needs pretrained weights")
    arguments = {key: given.pop(key) for key in schema(factory).model_fields.keys() & given.keys()}
    backbone = factory(weights, output_stride or info.output_strides[0], **arguments)
    backbone.info = with_options(backbone.info, **given)
    return backbone


def with_options(
    info: BackboneInfo,
    *,
    head: HeadKind | None = None,
    head_widths: tuple[Annotated[int, Field(ge=1)], ...] | None = None,
    head_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None,
    head_init: HeadInit | None = None,
    normalisation: Literal["own", "imagenet"] = "own",
) -> BackboneInfo:
    """What methods need to know of a backbone, with the options of a network that every backbone has.

    Args:
        info: of the backbone.
        head: "cam", "tap" or "calm", see :mod:`eil.methods.heads` (default: the backbone's, "cam").
        head_widths: channels of the 3x3 convolutions that the head adds (default: the backbone's).
        head_dropout: probability of the dropout before each of these convolutions and before the class layer (default:
            the backbone's).
        head_init: initial values of new layers (default: the backbone's).
        normalisation: of the input: with the backbone's own mean and standard deviation, or ImageNet's.
    """
    widths = None if head_widths is None else tuple(head_widths)
    given = {"head": head, "head_widths": widths, "head_dropout": head_dropout, "head_init": head_init}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if normalisation == "imagenet":
        changes |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return dataclasses.replace(info, **changes)


def require_options(factory: Callable[..., object], network: Mapping[str, Any]) -> None:
    """Refuse options that neither every backbone nor this one has.

    Raises:
        SettingError: an unknown option, or a value that it cannot have.
    """
    known = schema(with_options).model_fields | schema(factory).model_fields
    for key, value in network.items():
        if key not in known:
            raise SettingError("network", key, f"unknown option (known: {', '.join(known)})")
        owner = factory if key in schema(factory).model_fields else with_options
        if found := check(owner, {key: value}, "network"):
            raise SettingError(f"network.{key}", value, found[0].partition(": ")[2])


def build_shapes(
    name: str,
    pretrained: Pretrained = False,
    output_stride: int | None = None,
    network: Mapping[str, Any] | None = None,
) -> Backbone:
    """A backbone without memory or weights, to check settings with; raises what :func:`build` does."""
    with meta_tensors():
        return build(name, pretrained, output_stride, network, shapes_only=True)


def definition(name: str) -> tuple[BackboneInfo, Callable[..., Backbone]]:
    """What methods need to know of a backbone, and its builder: of the weights, the output stride, and options.

    Raises:
        SettingError: no such backbone, or a library that is not installed.
    """
    module = importlib.import_module(module_of(name))
    _, _, inside = name.partition("/")
    return module.find(inside) if inside else (module.INFO, getattr(module, name))


def module_of(name: str) -> str:
    """Name of the module that builds a backbone: one of ours, or an installed package's.

    Raises:
        SettingError: no such backbone; the message lists the known ones.
    """
    found = registry.module(registry.BACKBONES, name)
    if found is None:
        raise SettingError(
            "backbones", name, f"must be one of {', '.join(registry.available(registry.BACKBONES))}, or timm/NAME.TAG"
        )
    return found
