"""EIL and MEIL: Erasing Integrated Learning, with one erasing module or several.

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
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import SettingError
from eil.methods.base import Method, Parts, Targets, top1

GammaMode = Literal["relative", "absolute"]
Attention = Literal["mean", "mean_abs"]
Reading = Literal["chain", "independent"]
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
        self.at = at or backbone.traits.erase_at[-1]
        _check_gamma(gamma, gamma_mode)
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
        return parts | _how_much(keep, targets.masks)

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
        with _running_averages_kept(self) if self.bn == "unerased_only" else contextlib.nullcontext():
            erased = [act(stream) for stream in streams[1:]]
        return [act(streams[0]), *erased]


class MEIL(EIL):
    """Several erasing modules; with one it is EIL, to the last bit. Other arguments: see :class:`EIL`.

    Args:
        backbone: any.
        num_classes: C.
        at: stages after which features are erased, in order (default: the backbone's).
        reading: "chain": each module erases the stream that the one before erased; "independent": each erases
            the unerased stream. Either way there is one stream more than there are modules.
        gamma: of every module.
        sigma: weight of the erased streams' losses; one for all, or one for each.

    Raises:
        SettingError: what EIL raises; stages out of order; another number of weights than of stages.
        Unsuitable: as EIL.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        at: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
        reading: Reading = "chain",
        gamma: Annotated[float, Field(gt=0)] = 0.7,
        gamma_mode: GammaMode = "relative",
        sigma: Annotated[float, Field(ge=0)] | tuple[Annotated[float, Field(ge=0)], ...] = 1.0,
        attention: Attention = "mean",
        streams: Streams = "joint",
        bn: BatchNorm | None = None,
    ) -> None:
        levels = tuple(at or backbone.traits.erase_at)
        places = [backbone.index(level) for level in levels]
        if places != sorted(set(places)):
            raise SettingError("at", at, f"must be in the order of {backbone.name}: {', '.join(backbone.names)}")
        for level in levels if attention == "mean" else ():
            backbone.require_attention(level, "or set attention: mean_abs")
        shared: dict[str, Any] = {"gamma_mode": gamma_mode, "attention": attention, "streams": streams, "bn": bn}
        super().__init__(backbone, num_classes, at=levels[-1], gamma=gamma, **shared)
        self.levels, self.reading = levels, reading
        self.sigmas = (sigma,) * len(levels) if isinstance(sigma, int | float) else tuple(sigma)
        if len(self.sigmas) != len(levels):
            raise SettingError("sigma", sigma, f"must be one weight, or one for each of {', '.join(levels)}")

    def loss(self, images: Tensor, targets: Targets) -> Parts:
        """L = L_u + sum_k sigma_k L_ek, (B, 3, H, W) -> scalars; also how much each module erased."""
        streams, masks = self._streams(images)
        logits = self.together(self.tail, streams)  # (B, C) each
        losses = [F.cross_entropy(scores.float(), targets.labels) for scores in logits]
        total = losses[0]
        for sigma, loss in zip(self.sigmas, losses[1:], strict=True):
            total = total + sigma * loss
        parts = {"total": total, "unerased": losses[0], "top1": top1(logits[0], targets.labels)}
        for level, loss, keep in zip(("", *self.levels[1:]), losses[1:], masks, strict=False):
            suffix = f"_{level}" if level else ""  # the first module's parts are named as EIL's
            own = {"erased": loss} | _how_much(keep, targets.masks)
            parts |= {name + suffix: value for name, value in own.items()}
        return parts

    def views(self, images: Tensor, classes: Tensor) -> Parts:
        """The last erased stream's map, and what its module erased (1), (B, h, w) each."""
        streams, masks = self._streams(images)
        features = self.head.features(self.backbone.run(streams[-1], start=self.at))
        return {"erased map": self.head.maps(features, classes), "erased region": 1 - masks[-1][:, 0]}

    def _streams(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The unerased stream and each erased one after the last module, (B, K, h, w), and the masks."""
        streams, masks = [images], []
        for start, stop in zip((None, *self.levels), self.levels, strict=False):
            streams = self.together(partial(self.backbone.run, start=start, stop=stop), streams)
            source = streams[-1] if self.reading == "chain" else streams[0]
            masks.append(self.mask(source))
            streams.append(source * masks[-1])
        return streams, masks


def _check_gamma(gamma: float, mode: GammaMode) -> None:
    if gamma <= 0 or (mode == "relative" and gamma > 1):
        interval = "in (0, 1], a share of the maximum" if mode == "relative" else "above 0"
        raise SettingError("gamma", gamma, f"must be {interval} (gamma_mode: {mode})")


def _how_much(keep: Tensor, masks: Tensor | None) -> Parts:
    """Share of the cells, and of the object's area if it is known, that is erased: (B, 1, h, w) -> scalars."""
    parts = {"erased_fraction": 1 - keep.float().mean()}
    if masks is not None:
        area = F.adaptive_avg_pool2d(masks.float(), (keep.shape[2], keep.shape[3]))  # (B, 1, h, w)
        parts["object_erased"] = ((1 - keep.float()) * area).sum() / area.sum().clamp(min=1e-6)
    return parts


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
