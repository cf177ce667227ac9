"""EIL: Erasing Integrated Learning.

Erasing Integrated Learning: A Simple Yet Effective Approach for Weakly Supervised Object Localization,
Mai, Yang & Luo, CVPR 2020. In the middle of the network the most discriminative region is erased from the
features; the rest of the network, with shared weights, classifies both the erased and the unerased features:

    F_u = f1(I)                         features, K channels
    M_avg = mean_k F_u                  self-attention
    F_e = F_u * [M_avg < gamma]         the erased features
    L = CE(f2(F_u), y) + sigma CE(f2(F_e), y)

Cross-entropy is the usual one, without the 1/C of the paper's equations, which only rescales it. Inference
uses the unerased stream alone. ``gamma`` is an activation value in the paper's text and a share of each
image's spatial maximum in its authors' code; the default is what they run: relative, 0.7, sigma 1.

MEIL puts modules at several levels, "in a sequential manner". Neither the paper's abstract nor its authors'
code says which stream the next module erases, so both readings are here, by name: "chain" and "independent".
"""

import contextlib
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import SettingError
from eil.methods.base import Method, Parts, Targets, top1
from eil.methods.erasing import Attention, GammaMode, check_gamma, erasing_mask, how_much
from eil.methods.streams import BatchNorm, Streams, running_averages_kept


class EIL(Method):
    """Erasing Integrated Learning with one erasing module.

    Args:
        backbone: any.
        num_classes: C.
        at: stage after which features are erased (default: the backbone's; pool4 on VGG16).
        gamma: erasing threshold.
        gamma_mode: "relative" (to each image's maximum) or "absolute" (the paper's text).
        sigma: weight of the erased stream's loss.
        attention: "mean" (the paper), or "mean_abs" (an extension for signed features).
        streams: run both through the rest of the network as one batch of 2B, or in turn, the erased one
            first, as the authors' code does. They differ with batch norm alone.
        bn: whose statistics batch norm sees: both streams at once ("joint", with joint streams), each its
            own ("sequential"), or each its own with the running averages fed by the unerased alone
            ("unerased_only"). Default: as ``streams``.

    Raises:
        SettingError: a value out of bounds, a stage that the backbone lacks, or a ``bn`` that ``streams`` excludes.
        Unsuitable: the plain mean of features that can be negative.
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
        self.at = at or backbone.traits.erase_at[-1]
        check_gamma(gamma, gamma_mode)
        if bn is not None and (bn == "joint") != (streams == "joint"):
            raise SettingError("bn", bn, f"does not go with streams = {streams}")
        if attention == "mean":
            backbone.require_attention(self.at, "or set attention: mean_abs")
        backbone.index(self.at)
        self.gamma, self.gamma_mode, self.sigma, self.attention = gamma, gamma_mode, sigma, attention
        self.streams, self.bn = streams, bn or streams

    def loss(self, images: Tensor, targets: Targets) -> Parts:
        """L = L_u + sigma L_e, (B, 3, H, W) -> scalars; also how much, and how much of the object, was erased."""
        features = self.backbone.run(images, stop=self.at)  # (B, K, h, w)
        keep = self.mask(features)  # (B, 1, h, w)
        unerased, erased = self.together(self.tail, [features, features * keep])  # (B, C) each
        loss_u = F.cross_entropy(unerased.float(), targets.labels)
        loss_e = F.cross_entropy(erased.float(), targets.labels)
        parts = {
            "total": loss_u + self.sigma * loss_e,
            "unerased": loss_u,
            "erased": loss_e,
            "top1": top1(unerased, targets.labels),
        }
        return parts | how_much(keep, targets.masks)

    def mask(self, features: Tensor) -> Tensor:
        """:func:`erasing_mask` with this module's settings, (B, K, h, w) -> (B, 1, h, w)."""
        return erasing_mask(features, self.gamma, self.gamma_mode, self.attention)

    def views(self, images: Tensor, classes: Tensor) -> Parts:
        """The erased stream's map, and what is erased (1) and kept (0), (B, h, w) each."""
        features = self.backbone.run(images, stop=self.at)
        keep = self.mask(features)
        erased = self.head.features(self.backbone.run(features * keep, start=self.at))
        return {"erased map": self.head.maps(erased, classes), "erased region": 1 - keep[:, 0]}

    def tail(self, features: Tensor) -> Tensor:
        """f2, from ``at`` to the scores: (B, K, h, w) -> (B, C)."""
        logits: Tensor = self.head(self.backbone.run(features, start=self.at))
        return logits

    def together(self, act: Callable[[Tensor], Tensor], streams: list[Tensor]) -> list[Tensor]:
        """``act`` on every stream, as ``streams`` and ``bn`` say; the first of them is the unerased one."""
        if self.streams == "joint":
            return list(act(torch.cat(streams)).chunk(len(streams)))
        with running_averages_kept(self) if self.bn == "unerased_only" else contextlib.nullcontext():
            erased = [act(stream) for stream in streams[1:]]
        return [act(streams[0]), *erased]
