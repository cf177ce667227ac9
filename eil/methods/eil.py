"""EIL: Erasing Integrated Learning.

Erasing Integrated Learning: A Simple Yet Effective Approach for Weakly Supervised Object Localization,
Mai, Yang & Luo, CVPR 2020. In the middle of the network the most discriminative region is erased from the
features. The rest of the network, with shared weights, classifies both the unerased and the erased features:

    F_u = f1(I)                               features, K channels
    M_avg = mean_k F_u                        self-attention
    F_e = F_u * [M_avg < gamma]               the erased features
    L = CE(f2(F_u), y) + sigma CE(f2(F_e), y)

Cross-entropy is the usual one, without the factor 1/C of the paper's equations, which only rescales the loss.
Inference uses the unerased stream alone. In the paper's text ``gamma`` is an activation value; in its authors'
code it is a share of each image's spatial maximum. The defaults are those of the code: relative, 0.7, sigma 1.

On a transformer, which the paper does not have, cells are patch tokens. An erased token is left out of all later blocks
(:mod:`eil.backbones.tokens`); the class token is kept. Tokens are signed: ``attention`` is "class_token", the nearest
to the paper's self-attention, or "mean_abs". In an untrained network both are nearly the same everywhere, so that 0.7
of the maximum erases every token; no published value of gamma is known.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import IncompatibleSetting
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.erasing import (
    Attention,
    GammaMode,
    attention_map,
    below_threshold,
    check_gamma,
    erased_fractions,
)
from eil.methods.precision import without_autocast
from eil.methods.streams import BatchNorm, Streams, check_bn, forward_streams

EilAttention = Attention | Literal["class_token"]


class EIL(Method):
    """Erasing Integrated Learning with one erasing module.

    Args:
        backbone: any with a stage whose channel mean is an attention map.
        num_classes: C.
        at: stage after which features are erased (default: the backbone's; pool4 on VGG16).
        gamma: erasing threshold.
        gamma_mode: "relative" (to each image's maximum) or "absolute" (the paper's text).
        sigma: weight of the erased stream's loss.
        attention: "mean" (the paper); "mean_abs" (an extension for features that can be negative); or "class_token"
            (an extension for transformers: what the class token attends to in the block after ``at``, mean over heads).
        streams: "joint" or "sequential", see :func:`~eil.methods.streams.forward_streams`.
        bn: what batch norm sees, see :func:`~eil.methods.streams.check_bn` (default: as ``streams``).

    Raises:
        SettingError: a value out of bounds, a stage that the backbone lacks, no default stage, or a ``bn`` that does
            not go with ``streams``.
        IncompatibleSetting: the stage's features are not a grid, or can be negative with attention "mean".
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        at: str | None = None,
        gamma: Annotated[float, Field(gt=0)] = 0.7,
        gamma_mode: GammaMode = "relative",
        sigma: Annotated[float, Field(ge=0)] = 1.0,
        attention: EilAttention = "mean",
        streams: Streams = "joint",
        bn: BatchNorm | None = None,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.at = backbone.stages_or_default(at, backbone.info.eil_stage)
        check_gamma(gamma, gamma_mode)
        check_stage(backbone, self.at, attention)
        self.gamma, self.gamma_mode, self.sigma, self.attention = gamma, gamma_mode, sigma, attention
        self.streams, self.bn = streams, check_bn(bn, streams)

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """Algorithm 1: (B, 3, H, W) -> scalars; also which fraction of the map, and of the object, was erased."""
        features = self.f1(images)  # F_u = f1(I), (B, K, h, w)
        mask = self.mask(features)  # 0 where M_avg >= gamma, else 1, (B, 1, h, w)
        erased = self.backbone.erase(features, mask)  # F_e = F_u * mask, (B, K, h, w)
        logits_unerased, logits_erased = forward_streams(  # f2(F_u) and f2(F_e), (B, C) each
            self, self.f2, [features, erased], self.streams, self.bn
        )
        loss_unerased = F.cross_entropy(logits_unerased.float(), targets.labels)  # L_u
        loss_erased = F.cross_entropy(logits_erased.float(), targets.labels)  # L_e
        losses = {
            "total": loss_unerased + self.sigma * loss_erased,  # L = L_u + sigma * L_e
            "unerased": loss_unerased,
            "erased": loss_erased,
            "top1": top1(logits_unerased, targets.labels),
        }
        return losses | erased_fractions(mask, targets.masks)

    def f1(self, images: Tensor) -> Tensor:
        """The network up to ``at``: (B, 3, H, W) -> (B, K, h, w), or tokens within a transformer."""
        return self.backbone.forward_stages(images, stop=self.at)

    def f2(self, features: Tensor) -> Tensor:
        """The rest of the network with the classifier: (B, K, h, w) -> (B, C)."""
        logits: Tensor = self.head(self.backbone.forward_stages(features, start=self.at, erased=True))
        return logits

    def mask(self, features: Tensor, stage: str | None = None) -> Tensor:
        """Where features are kept, by the settings of this module (:func:`~eil.methods.erasing.erasing_mask`).

        Args:
            features: output of a stage, (B, K, h, w), or tokens within a transformer.
            stage: its name (default: ``at``).

        Returns:
            1 where features are kept, 0 where they are erased, (B, 1, h, w), no gradient.
        """
        if self.attention == "class_token":
            # As attention_map does, not in bf16.
            with torch.no_grad(), without_autocast(features.device):
                attention = self.backbone.class_attention(features.float(), stage or self.at)
        else:
            attention = attention_map(self.backbone.grid(features), self.attention)
        return below_threshold(attention, self.gamma, self.gamma_mode).to(features.dtype)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The erased stream's map, and the erased region (1 where erased, else 0), (B, h, w) each."""
        features = self.f1(images)
        mask = self.mask(features)
        erased = self.backbone.erase(features, mask)
        last = self.head.features(self.backbone.forward_stages(erased, start=self.at, erased=True))
        return {"erased map": self.head.maps(last, classes), "erased region": 1 - mask[:, 0]}


def check_stage(backbone: Backbone, stage: str, attention: EilAttention) -> None:
    """Refuse a stage after which nothing can be erased.

    Raises:
        SettingError: no such stage.
        IncompatibleSetting: its features are not a grid, or there is no such attention map.
    """
    backbone.require_grid(stage)
    if attention == "mean":
        other = "class_token" if backbone.has_class_attention(stage) else "mean_abs"
        backbone.require_attention(stage, f"set attention: {other}")
    if attention == "class_token" and not backbone.has_class_attention(stage):
        raise IncompatibleSetting(
            f"after {backbone.name}'s {stage} comes no transformer block with a class token, whose attention is "
            "needed; another is attention: mean_abs"
        )
