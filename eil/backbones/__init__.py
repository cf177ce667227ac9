"""Backbones: networks cut into named stages, so that a method can step in between any two.

Each file adds the builders of one family to :data:`BUILDERS`; another package adds its own by an entry point in the
group ``eil.backbones``. A backbone ends with its last feature map; the
localization head (:mod:`eil.methods.head`) follows. Wherever a stage is asked for, its name or a prefix of it is
meant: ``layer3`` is the last of ``layer3_0`` … ``layer3_5``.
"""

import copy
import hashlib
import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from eil.backbones import state_dicts
from eil.backbones.meta import meta_tensors
from eil.core import registry
from eil.core.files import InputError
from eil.core.run import LOCAL_WEIGHTS, Pretrained
from eil.core.safe_yaml import in_a_line
from eil.core.settings import SettingError, Unsuitable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# name -> module that builds it; imported on use, as torchvision takes a second.
BUILDERS: dict[str, str] = {
    "vgg_small": "eil.backbones.small",
    "resnet_small": "eil.backbones.small",
    "vgg16": "eil.backbones.torchvision_nets",
    "resnet50": "eil.backbones.torchvision_nets",
    "inception_v3": "eil.backbones.torchvision_nets",
    "efficientnet_lite0": "eil.backbones.efficientnet_lite",
}


@dataclass(frozen=True)
class Traits:
    """What a method may ask of a backbone besides its stages.

    Attributes:
        erase_at: stages after which MEIL erases by default; EIL after the last of them.
        non_negative: stages (or prefixes) that end in an activation, where a channel mean is an attention map.
        strides: the output strides that can be asked for, the default first.
        head_widths: channels of the extra 3x3 convolutions before pooling.
        branch_width: channels of the convolutions that a method with branches of its own adds.
        weights: names of the pretrainings that there are, the default first; for torchvision's networks, of its enums.
        local_weights: whether a local file of weights in torchvision's names can be taken instead.
        mean: per-channel mean of the input, of values in [0, 1]; likewise ``std``.
    """

    erase_at: tuple[str, ...]
    non_negative: tuple[str, ...]
    strides: tuple[int, ...]
    head_widths: tuple[int, ...] = ()
    branch_width: int = 1024
    weights: tuple[str, ...] = ()
    local_weights: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Backbone(nn.Module):
    """A network as an ordered set of named stages.

    Args:
        name: as in :data:`BUILDERS`.
        stages: modules in the order in which they run.
        out_channels: channels of the last stage's output.
        traits: see :class:`Traits`.
    """

    def __init__(self, name: str, stages: Mapping[str, nn.Module], out_channels: int, traits: Traits) -> None:
        super().__init__()
        self.name, self.out_channels, self.traits = name, out_channels, traits
        self.stages = nn.ModuleDict(stages)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names in order."""
        return tuple(self.stages)

    def index(self, stage: str) -> int:
        """Position of a stage.

        Raises:
            SettingError: there is none of that name; the message lists the stages.
        """
        for position, name in reversed(list(enumerate(self.names))):
            if name == stage or name.startswith(f"{stage}_"):
                return position
        raise SettingError("at", stage, f"must be a stage of {self.name}: {', '.join(self.names)}")

    def is_non_negative(self, stage: str) -> bool:
        """Whether a stage's features cannot be negative."""
        name = self.names[self.index(stage)]
        return any(name == known or name.startswith(f"{known}_") for known in self.traits.non_negative)

    def require_attention(self, stage: str, otherwise: str = "") -> None:
        """Refuse a stage whose channel mean is no attention map.

        Args:
            stage: where the mean is taken.
            otherwise: what else could be done, for the message.

        Raises:
            Unsuitable: its features can be negative, so that they cancel in the mean.
        """
        if not self.is_non_negative(stage):
            suits = ", ".join(name for name in self.names if self.is_non_negative(name))
            raise Unsuitable(
                f"features of {self.name}'s {stage} can be negative, so that their channel mean is no attention map: "
                f"use one of {suits}{', ' if otherwise else ''}{otherwise}"
            )

    def channels(self, stage: str) -> int:
        """Channels of a stage's output, found by running shapes alone."""
        shapes = copy.deepcopy(self).to("meta").eval()
        return shapes.run(torch.empty(1, 3, 64, 64, device="meta"), stop=stage).shape[1]

    def run(self, x: Tensor, start: str | None = None, stop: str | None = None) -> Tensor:
        """Run the stages after ``start`` up to and with ``stop``.

        Args:
            x: images (B, 3, H, W) if ``start`` is None, else the output of stage ``start``.
            start: the stage that ``x`` comes from.
            stop: the last stage to run (default: the last there is).

        Returns:
            (B, C, h, w).
        """
        first = 0 if start is None else self.index(start) + 1
        last = len(self.names) if stop is None else self.index(stop) + 1
        for name in self.names[first:last]:
            x = self.stages[name](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """All stages: (B, 3, H, W) -> (B, C, h, w)."""
        return self.run(x)


def build(
    name: str, pretrained: Pretrained = False, output_stride: int | None = None, *, shapes_only: bool = False
) -> Backbone:
    """Build a backbone.

    Args:
        name: as in :data:`BUILDERS`.
        pretrained: load ImageNet weights: the default ones, or those of a name, or ``FILE@sha256:HASH``, a local file
            (safetensors, or tensors saved by torch) in torchvision's names, whose hash is checked; it may have any
            classifier, and lie in a checkpoint's ``state_dict`` or ``model``.
        output_stride: input pixels per cell of the last feature map (default: the WSOL one of its traits).
        shapes_only: check ``pretrained``, but load nothing.

    Raises:
        SettingError: an unknown name, weights or a stride that the backbone does not offer.
        InputError: pretrained weights that are not at hand; the message says what to put where.
    """
    module = importlib.import_module(module_of(name))
    traits: Traits = module.TRAITS[name]
    if pretrained and not traits.weights:
        raise SettingError("pretrained", pretrained, f"{name} has no pretrained weights")
    known = pretrained in (*traits.weights, True, False)
    if not known and not (traits.local_weights and LOCAL_WEIGHTS.fullmatch(str(pretrained))):
        files = " or FILE@sha256:HASH, of 64 hexadecimal digits" if traits.local_weights else ""
        raise SettingError("pretrained", pretrained, f"must be true, false, {', '.join(traits.weights)}{files}")
    if output_stride is not None and output_stride not in traits.strides:
        raise SettingError("output_stride", output_stride, f"{name} offers {', '.join(map(str, traits.strides))}")
    weights = None if shapes_only or not pretrained else traits.weights[0] if pretrained is True else pretrained
    backbone: Backbone = getattr(module, name)(weights, output_stride or traits.strides[0])
    return backbone


def module_of(name: str) -> str:
    """The module that builds a backbone: one of ours, or an installed package's.

    Raises:
        SettingError: nothing of that name; the message lists what there is.
    """
    found = BUILDERS.get(name) or registry.module(registry.BACKBONES, name)
    if found is None:
        known = ", ".join([*BUILDERS, *registry.available(registry.BACKBONES)])
        raise SettingError("backbones", name, f"must be one of {known}")
    return found


def read_local(weights: str) -> dict[str, Tensor]:
    """A state dict from ``FILE@sha256:HASH``, out of a checkpoint if it lies in one; only tensors are unpickled.

    Raises:
        InputError: no such file, one of another hash, or one that holds no state dict.
    """
    path, expected = weights.rsplit("@sha256:", 1)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"pretrained weights {path}: {error.strerror}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected.lower():
        raise InputError(f"pretrained weights {path}: sha256 {digest}, expected {expected}")
    try:
        if data[8:9] == b"{":  # safetensors, by whatever name: a length of 8 bytes and JSON
            return state_dicts.unwrapped(safetensors.torch.load(data))
        return state_dicts.unwrapped(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except state_dicts.NotFitting as error:
        raise InputError(f"pretrained weights {path}: not a file of weights: {error}") from None
    except Exception as error:  # a damaged file raises half a dozen unrelated kinds
        raise InputError(f"pretrained weights {path}: not a file of weights: {_told(error)}") from None


def _told(error: Exception) -> str:
    """Why a file was not read, and what to do about one that holds objects besides tensors."""
    text = in_a_line(error)
    if "not an allowed global" not in text:
        return text
    return (
        f"{text} Only tensors are unpickled here, since a pickle can run any code. If you trust the file, save its "
        "state dict alone in a new file (torch.load(FILE, weights_only=False), then torch.save), whose hash you give"
    )


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's weights, whatever file they came from or go to."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_shapes(name: str, pretrained: Pretrained = False, output_stride: int | None = None) -> Backbone:
    """A backbone without memory or weights, to check settings against; raises what :func:`build` does."""
    with meta_tensors():
        return build(name, pretrained, output_stride, shapes_only=True)
