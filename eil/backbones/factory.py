"""Build a backbone by name."""

import importlib

from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.meta import meta_tensors
from eil.core import registry
from eil.core.run import LOCAL_WEIGHTS, Pretrained
from eil.core.settings import SettingError


def build(
    name: str, pretrained: Pretrained = False, output_stride: int | None = None, *, shapes_only: bool = False
) -> Backbone:
    """Build a backbone.

    Args:
        name: of a file of :mod:`eil.backbones.networks`, or an entry point.
        pretrained: True for the default ImageNet weights, the name of others, or ``FILE@sha256:HASH``, a local file
            (safetensors, or tensors saved by torch) with torchvision's names, whose hash is checked. The file may have
            any classifier, and the weights may be in a checkpoint's ``state_dict`` or ``model``.
        output_stride: input pixels per cell of the last feature map (default: the first of its info).
        shapes_only: check ``pretrained``, but load nothing.

    Raises:
        SettingError: an unknown name, or weights or a stride that the backbone does not offer.
        InputError: pretrained weights are missing; the message says what to put where.
    """
    module = importlib.import_module(module_of(name))
    info: BackboneInfo = module.INFO
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
    backbone: Backbone = getattr(module, name)(weights, output_stride or info.output_strides[0])
    return backbone


def build_shapes(name: str, pretrained: Pretrained = False, output_stride: int | None = None) -> Backbone:
    """A backbone without memory or weights, to check settings with; raises what :func:`build` does."""
    with meta_tensors():
        return build(name, pretrained, output_stride, shapes_only=True)


def module_of(name: str) -> str:
    """Name of the module that builds a backbone: one of ours, or an installed package's.

    Raises:
        SettingError: no such backbone; the message lists the known ones.
    """
    found = registry.module(registry.BACKBONES, name)
    if found is None:
        raise SettingError("backbones", name, f"must be one of {', '.join(registry.available(registry.BACKBONES))}")
    return found
