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
"""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.method import Method, Parts, Targets, top1
from eil.settings import SettingError, Unsuitable

GammaMode = Literal["relative", "absolute"]
Attention = Literal["mean", "mean_abs"]
Streams = Literal["joint", "sequential"]
BatchNorm = Literal["joint", "sequential", "unerased_only"]


def attention_map(features: Tensor, attention: Attention = "mean") -> Tensor:
    """Mean over channels, of the values ("mean", the paper's) or their magnitudes ("mean_abs", an extension).

    Args:
        features: (B, K, H, W).
        attention: "mean" wants features that are not negative; else positive and negative ones cancel.

    Returns:
        (B, 1, H, W) float32, no gradient.
    """
    values = features.detach().float()  # in bf16 too: the mask flips at gamma times the maximum
    if attention == "mean_abs":
        values = values.abs()
    return values.mean(dim=1, keepdim=True)  # (B, 1, H, W)


def erasing_mask(features: Tensor, gamma: float, mode: GammaMode = "relative", attention: Attention = "mean") -> Tensor:
    """Where attention stays below the threshold (Mai et al., CVPR 2020, Algorithm 1).

    Args:
        features: unerased feature map, (B, K, H, W).
        gamma: threshold; a share of each image's spatial maximum if ``mode`` is "relative", an activation
            value if "absolute" (the paper's text).
        mode: what ``gamma`` is measured in.
        attention: see :func:`attention_map`.

    Returns:
        1 where features are kept, 0 where they are erased, (B, 1, H, W), dtype of ``features``, no gradient.

    Raises:
        SettingError: ``gamma`` outside (0, 1] in relative mode, or not above 0 in absolute mode.
    """
    _check_gamma(gamma, mode)
    mean = attention_map(features, attention)
    threshold = gamma * mean.amax(dim=(2, 3), keepdim=True) if mode == "relative" else gamma
    return (mean < threshold).to(features.dtype)


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
        self.at = at or backbone.traits.erase_at
        _check_gamma(gamma, gamma_mode)
        if bn is not None and (bn == "joint") != (streams == "joint"):
            raise SettingError("bn", bn, f"does not go with streams = {streams}")
        if attention == "mean" and not backbone.is_non_negative(self.at):
            suits = ", ".join(name for name in backbone.names if backbone.is_non_negative(name))
            raise Unsuitable(
                f"features of {backbone.name}'s {self.at} can be negative, so that their channel mean is no attention "
                f"map: erase at one of {suits}, or set attention: mean_abs"
            )
        backbone.index(self.at)
        self.gamma, self.gamma_mode, self.sigma, self.attention = gamma, gamma_mode, sigma, attention
        self.streams, self.bn = streams, bn or streams

    def loss(self, images: Tensor, targets: Targets) -> Parts:
        """L = L_u + sigma L_e, (B, 3, H, W) -> scalars; also how much, and how much of the object, was erased."""
        features = self.backbone.run(images, stop=self.at)  # (B, K, h, w)
        keep = self.mask(features)  # (B, 1, h, w)
        unerased, erased = self._classify(features, features * keep)  # (B, C) each
        loss_u = F.cross_entropy(unerased.float(), targets.labels)
        loss_e = F.cross_entropy(erased.float(), targets.labels)
        parts = {
            "total": loss_u + self.sigma * loss_e,
            "unerased": loss_u,
            "erased": loss_e,
            "top1": top1(unerased, targets.labels),
            "erased_fraction": 1 - keep.float().mean(),
        }
        if targets.masks is not None:
            parts["object_erased"] = _share_erased(keep, targets.masks)
        return parts

    def mask(self, features: Tensor) -> Tensor:
        """:func:`erasing_mask` with this module's settings, (B, K, h, w) -> (B, 1, h, w)."""
        return erasing_mask(features, self.gamma, self.gamma_mode, self.attention)

    def views(self, images: Tensor, classes: Tensor) -> Parts:
        """The erased stream's map, and what is erased (1) and kept (0), (B, h, w) each."""
        features = self.backbone.run(images, stop=self.at)
        keep = self.mask(features)
        erased = self.head.features(self.backbone.run(features * keep, start=self.at))
        return {"erased map": self.head.maps(erased, classes), "erased region": 1 - keep[:, 0]}

    def _classify(self, unerased: Tensor, erased: Tensor) -> tuple[Tensor, Tensor]:
        """f2 on both streams, (B, K, h, w) each -> logits (B, C) each."""
        if self.streams == "joint":
            logits = self._tail(torch.cat([unerased, erased]))  # (2B, C)
            return logits[: len(unerased)], logits[len(unerased) :]
        with _running_averages_kept(self) if self.bn == "unerased_only" else contextlib.nullcontext():
            logits_e = self._tail(erased)
        return self._tail(unerased), logits_e

    def _tail(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone.run(features, start=self.at))
        return logits


def _check_gamma(gamma: float, mode: GammaMode) -> None:
    if gamma <= 0 or (mode == "relative" and gamma > 1):
        interval = "in (0, 1], a share of the maximum" if mode == "relative" else "above 0"
        raise SettingError("gamma", gamma, f"must be {interval} (gamma_mode: {mode})")


def _share_erased(keep: Tensor, masks: Tensor) -> Tensor:
    """Share of the object's area that is erased, over the batch: (B, 1, h, w), (B, 1, H, W) -> ()."""
    area = F.adaptive_avg_pool2d(masks.float(), (keep.shape[2], keep.shape[3]))  # (B, 1, h, w)
    return ((1 - keep.float()) * area).sum() / area.sum().clamp(min=1e-6)


@contextlib.contextmanager
def _running_averages_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by batch statistics without moving its running averages."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
