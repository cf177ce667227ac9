"""What a backbone is, and what methods need to know about one."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from eil.backbones.tokens import TokenBlock, TokenStage, erased_tokens, grid_of
from eil.core.settings import IncompatibleSetting, SettingError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

T = TypeVar("T")
HeadInit = Literal["own", "xavier", "he"]
HeadKind = Literal["cam", "tap", "calm"]


@dataclass(frozen=True)
class BackboneInfo:
    """What methods need to know about a backbone besides its stages.

    A stage can be given by a prefix of its name: ``layer3`` is the last of ``layer3_0`` … ``layer3_5``. A method whose
    default stages are None runs on the backbone only if the study names the stages.

    Attributes:
        non_negative: stages that end in an activation without negative values, where a channel mean is an attention
            map; all stages that begin with ``{prefix}_`` or are named ``prefix``.
        output_strides: input pixels per cell of the last feature map that can be asked for, the default first.
        eil_stage: EIL erases after this stage by default.
        meil_stages: MEIL erases after these stages by default, in order.
        adl_stages: ADL inserts its layer after these stages by default.
        spg_stages: SPG-B1 and SPG-B2 read the output of these two stages by default.
        bridgegap_stage: BridgeGap drops cells after this stage by default.
        bas_stage: BAS makes its foreground map of this stage by default.
        head: how the head makes scores of features, see :mod:`eil.methods.heads`.
        head_widths: channels of the 3x3 convolutions that the head adds before pooling.
        head_dropout: probability of the dropout before each of the head's convolutions and before its class layer.
        head_init: initial values of new layers; "own": He for convolutions, N(0, 0.01) for class layers.
        branch_width: channels of the convolutions in a method's own branches (ACoL, SPG).
        weights: names of the pretrained weights, the default first; for torchvision's networks, of its enums.
        pretrained_on: the images that its weights have seen, and what of them, for the notes of tables.
        local_weights: whether a local file of weights with torchvision's (or the library's) names can be loaded.
        mean: per-channel mean of the input, for values in [0, 1].
        std: per-channel standard deviation of the input, likewise.
        example_side: side in pixels of a square input on which the shapes of the stages are computed; a network with a
            fixed input size (a ViT with learned positions) gives that size.
        grids: whether every stage returns a (B, C, h, w) grid, or tokens with a known number of prefix tokens. If True,
            it is not computed to check it: to compute shapes torch loads its symbolic mathematics, at the start of
            every command.
        prefix_tokens: of a transformer whose stages pass on tokens (B, P + h w, C): P, the class token and others that
            stand before the patches; None if a stage's tokens are no grid.
    """

    non_negative: tuple[str, ...]
    output_strides: tuple[int, ...]
    eil_stage: str | None = None
    meil_stages: tuple[str, ...] | None = None
    adl_stages: tuple[str, ...] | None = None
    spg_stages: tuple[str, str] | None = None
    bridgegap_stage: str | None = None
    bas_stage: str | None = None
    head: HeadKind = "cam"
    head_widths: tuple[int, ...] = ()
    head_dropout: float = 0.0
    head_init: HeadInit = "own"
    branch_width: int = 1024
    weights: tuple[str, ...] = ()
    pretrained_on: str = "ImageNet, with the labels of its 1,000 classes"
    local_weights: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    example_side: int = 224
    grids: bool = False
    prefix_tokens: int | None = None


class Backbone(nn.Module):
    """A network as an ordered set of named stages.

    Args:
        name: of the network, as in a study.
        stages: modules in the order in which they run. The output of the last one is a (B, C, h, w) grid; that of
            every other stage that a method reads is a grid too, or tokens that :meth:`grid` makes one.
        out_channels: channels of the last stage's output.
        info: what methods need to know.
        classifier: a pretrained one, K -> C, that the head starts from (default: none). It is not part of the backbone.
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[str, nn.Module],
        out_channels: int,
        info: BackboneInfo,
        classifier: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.name, self.out_channels, self.info = name, out_channels, info
        self.stages = nn.ModuleDict(stages)
        self._classifier = (classifier,)  # in a tuple, so that its weights are not the backbone's

    @property
    def classifier(self) -> nn.Linear | None:
        """The pretrained classifier that the head starts from, if any."""
        return self._classifier[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names in order."""
        return tuple(self.stages)

    def index(self, stage: str, setting: str = "at") -> int:
        """Position of a stage, given by its name or a prefix.

        Raises:
            SettingError: no such stage; the message names ``setting`` and lists the stages.
        """
        for position, name in reversed(list(enumerate(self.names))):
            if name == stage or name.startswith(f"{stage}_"):
                return position
        raise SettingError(setting, stage, f"must be a stage of {self.name}: {', '.join(self.names)}")

    def stages_or_default(self, given: T | None, default: T | None, setting: str = "at") -> T:
        """The stages that a method was given, else the backbone's default for it.

        Args:
            given: value of the method's setting.
            default: from :class:`BackboneInfo`.
            setting: its name, for the message.

        Raises:
            SettingError: neither; the message lists the stages to choose from.
        """
        found = default if given is None else given
        if found is None:
            raise SettingError(setting, None, f"has no default for {self.name}: choose from {', '.join(self.names)}")
        return found

    def is_non_negative(self, stage: str) -> bool:
        """Whether a stage's features cannot be negative."""
        name = self.names[self.index(stage)]
        return any(name == known or name.startswith(f"{known}_") for known in self.info.non_negative)

    def require_attention(self, stage: str, alternative: str | None = None) -> None:
        """Refuse a stage whose channel mean is not an attention map.

        Args:
            stage: where the mean is taken.
            alternative: another setting that would do, for the message.

        Raises:
            SettingError: no such stage.
            IncompatibleSetting: its features can be negative, so that they cancel in the mean.
        """
        if self.is_non_negative(stage):
            return
        suitable = ", ".join(name for name in self.names if self.is_non_negative(name))
        remedies = [f"use one of {suitable}"] if suitable else []
        remedies += [alternative] if alternative else []
        raise IncompatibleSetting(
            f"features of {self.name}'s {stage} can be negative, so that their channel mean is no attention map: "
            + (", or ".join(remedies) or f"no stage of {self.name} is declared non-negative")
        )

    def require_grid(self, stage: str | None = None) -> None:
        """Refuse a stage whose features are not a grid: a ViT's tokens, say.

        Args:
            stage: whose output is needed (default: the last one).

        Raises:
            SettingError: no such stage.
            IncompatibleSetting: another shape than (B, C, h, w).
        """
        position = len(self.names) - 1 if stage is None else self.index(stage)
        if self.info.grids:
            return
        self._check_grid(self.names[position], self._output_shapes[position])

    def require_convolutional(self) -> None:
        """Refuse a transformer, whose stages pass on tokens (IncompatibleSetting)."""
        if self.info.prefix_tokens is not None:
            raise IncompatibleSetting(
                f"{self.name} is a transformer, whose stages pass on tokens; a stage of (B, C, h, w) cells within a "
                "convolutional network is needed"
            )

    def channels(self, stage: str) -> int:
        """Channels of a stage's output.

        Raises:
            IncompatibleSetting: the output is not a (B, C, h, w) grid.
        """
        self.require_grid(stage)
        return self._output_shapes[self.index(stage)][1]

    def stage_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each stage's output for one image of ``example_side``: (C, h, w), or (N, C) of tokens."""
        return {name: shape[1:] for name, shape in zip(self.names, self._output_shapes, strict=True)}

    def forward_stages(
        self, x: Tensor, start: str | None = None, stop: str | None = None, *, erased: bool = False
    ) -> Tensor:
        """Run the stages after ``start`` up to and including ``stop``.

        Args:
            x: images (B, 3, H, W) if ``start`` is None, else the output of stage ``start``.
            start: the stage that ``x`` comes from.
            stop: the last stage to run (default: the last one of the network).
            erased: whether ``x`` may have erased cells (:meth:`erase`). Stages of tokens then leave these out; it makes
                no difference to others.

        Returns:
            (B, C, h, w), or tokens (B, P + h w, C) within a transformer (:meth:`grid`).
        """
        first = 0 if start is None else self.index(start) + 1
        last = len(self.names) if stop is None else self.index(stop) + 1
        for name in self.names[first:last]:
            stage = self.stages[name]
            x = stage(x, erased=True) if erased and isinstance(stage, TokenStage) else stage(x)
        return x

    def grid(self, features: Tensor) -> Tensor:
        """A stage's output as a grid: (B, C, h, w) as it is; of tokens (B, P + h w, C) the patches, (B, C, h, w)."""
        return features if features.ndim == 4 else grid_of(features, self.info.prefix_tokens or 0)

    def erase(self, features: Tensor, mask: Tensor) -> Tensor:
        """A stage's output with cells erased.

        Args:
            features: (B, C, h, w), or tokens (B, P + h w, C), whose prefix tokens are kept.
            mask: 1 where cells are kept, 0 where they are erased, (B, 1, h, w).

        Returns:
            Shape of ``features``; 0 where erased. Give ``erased=True`` to :meth:`forward_stages` from here.
        """
        return features * mask if features.ndim == 4 else erased_tokens(features, mask, self.info.prefix_tokens or 0)

    def has_class_attention(self, stage: str) -> bool:
        """Whether the stage after this one is a transformer's block whose class token's attention is known."""
        following = self.names[self.index(stage) + 1 :][:1]
        blocks = [self.stages[name] for name in following]
        return any(isinstance(block, TokenBlock) and block.attention is not None for block in blocks)

    def class_attention(self, features: Tensor, stage: str) -> Tensor:
        """Attention that the class token pays to each patch in the block after a stage.

        Args:
            features: output of the stage, tokens (B, P + h w, C).
            stage: its name, see :meth:`has_class_attention`.

        Returns:
            (B, 1, h, w), mean over heads; 0 where erased.
        """
        block: TokenBlock = self.stages[self.names[self.index(stage) + 1]]  # type: ignore[assignment]
        return grid_of(block.class_attention(features)[..., None], self.info.prefix_tokens or 0)

    def forward(self, x: Tensor) -> Tensor:
        """All stages: (B, 3, H, W) -> (B, C, h, w)."""
        return self.forward_stages(x)

    @functools.cached_property
    def _output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each stage's output for one image, from shapes alone: no weights are read, nothing is drawn."""
        # Copied with meta tensors in place of the weights, so that no memory is copied.
        weights: dict[int, object] = {id(p): nn.Parameter(p.detach().to("meta"), False) for p in self.parameters()}
        weights |= {id(buffer): buffer.to("meta") for buffer in self.buffers()}
        network = copy.deepcopy(self, weights).eval()
        x = torch.empty(1, 3, self.info.example_side, self.info.example_side, device="meta")
        shapes = []
        with torch.no_grad():
            for module in network.stages.values():
                x = module(x)
                tokens = x.ndim == 3 and self.info.prefix_tokens is not None
                shapes.append(tuple((self.grid(x) if tokens else x).shape))
        return tuple(shapes)

    def _check_grid(self, stage: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise IncompatibleSetting(
                f"features of {self.name}'s {stage} have shape (B, {', '.join(map(str, shape[1:]))}); expected a grid, "
                "(B, C, h, w): let the stage reshape its tokens, or declare prefix_tokens"
            )
