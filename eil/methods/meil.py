"""MEIL: EIL with several erasing modules (Mai, Yang & Luo, CVPR 2020)."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import SettingError
from eil.methods.base import Parts, Targets, top1
from eil.methods.eil import EIL
from eil.methods.erasing import Attention, GammaMode, how_much
from eil.methods.streams import BatchNorm, Streams

Reading = Literal["chain", "independent"]


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
            own = {"erased": loss} | how_much(keep, targets.masks)
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
