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
(:mod:`eil.backbones.tokens`); the class token is kept. Tokens are signed: ``attention`` must be "mean_abs".
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.erasing import Attention, GammaMode, check_gamma, erased_fractions, erasing_mask
from eil.methods.streams import BatchNorm, Streams, check_bn, forward_streams


class EIL(Method):
    """Erasing Integrated Learning with one erasing module.

    Args:
        backbone: any with a stage whose channel mean is an attention map.
        num_classes: C.
        at: stage after which features are erased (default: the backbone's; pool4 on VGG16).
        gamma: erasing threshold.
        gamma_mode: "relative" (to each image's maximum) or "absolute" (the paper's text).
        sigma: weight of the erased stream's loss.
        attention: "mean" (the paper), or "mean_abs" (an extension for features that can be negative).
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
        attention: Attention = "mean",
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

    def mask(self, features: Tensor) -> Tensor:
        """:func:`erasing_mask` with the settings of this module, (B, K, h, w) -> (B, 1, h, w)."""
        return erasing_mask(self.backbone.grid(features), self.gamma, self.gamma_mode, self.attention)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The erased stream's map, and the erased region (1 where erased, else 0), (B, h, w) each."""
        features = self.f1(images)
        mask = self.mask(features)
        erased = self.backbone.erase(features, mask)
        last = self.head.features(self.backbone.forward_stages(erased, start=self.at, erased=True))
        return {"erased map": self.head.maps(last, classes), "erased region": 1 - mask[:, 0]}


def check_stage(backbone: Backbone, stage: str, attention: Attention) -> None:
    """Refuse a stage after which nothing can be erased.

    Raises:
        SettingError: no such stage.
        IncompatibleSetting: its features are not a grid, or their channel mean is no attention map.
    """
    backbone.require_grid(stage)
    if attention == "mean":
        backbone.require_attention(stage, "set attention: mean_abs")
