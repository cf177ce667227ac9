"""MEIL: EIL with several erasing modules (Mai, Yang & Luo, CVPR 2020).

The paper puts modules after several stages "in a sequential manner". The paper is ambiguous about which stream the
next module erases; `reading` selects one. For two modules, with ``f1``, ``f2``, ``f3`` the parts of the network:

    F_u1 = f1(I),     F_e1 = F_u1 * mask(F_u1)
    F_u2 = f2(F_u1),  F_e2 = f2(F_e1) * mask(f2(F_e1))     reading: chain
                      F_e2 = F_u2 * mask(F_u2)             reading: independent
    L = CE(f3(F_u2), y) + sigma_1 CE(f3(f2(F_e1)), y) + sigma_2 CE(f3(F_e2), y)
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import SettingError
from eil.methods.base import Losses, Targets, top1
from eil.methods.eil import EIL, EilAttention, check_stage
from eil.methods.erasing import GammaMode, erased_fractions
from eil.methods.streams import BatchNorm, Streams, forward_streams

Reading = Literal["chain", "independent"]
Sigma = Annotated[float, Field(ge=0)]


class MEIL(EIL):
    """Several erasing modules; with one module it equals EIL bit for bit. Other arguments: see :class:`EIL`.

    The paper is ambiguous about which stream the next module erases; `reading` selects one.

    Args:
        backbone: as for EIL.
        num_classes: C.
        at: stages after which features are erased, in order (default: the backbone's).
        reading: "chain": each module erases the stream that the module before it erased; "independent": each module
            erases the unerased stream. Both have one stream more than modules.
        gamma: of every module.
        sigma: weight of the erased streams' losses: one for all, or one per module.

    Raises:
        SettingError: as EIL; also stages out of order, or another number of weights than of stages.
        IncompatibleSetting: as EIL.
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
        sigma: Sigma | tuple[Sigma, ...] = 1.0,
        attention: EilAttention = "mean",
        streams: Streams = "joint",
        bn: BatchNorm | None = None,
    ) -> None:
        stages = tuple(backbone.stages_or_default(at, backbone.info.meil_stages))
        positions = [backbone.index(stage) for stage in stages]
        if positions != sorted(set(positions)):
            raise SettingError("at", at, f"must be in the order of {backbone.name}: {', '.join(backbone.names)}")
        for stage in stages:
            check_stage(backbone, stage, attention)
        shared: dict[str, Any] = {"gamma_mode": gamma_mode, "attention": attention, "streams": streams, "bn": bn}
        super().__init__(backbone, num_classes, at=stages[-1], gamma=gamma, **shared)
        self.erasing_stages, self.reading = stages, reading
        self.sigmas = (sigma,) * len(stages) if isinstance(sigma, int | float) else tuple(sigma)
        if len(self.sigmas) != len(stages):
            raise SettingError("sigma", sigma, f"must be one weight, or one for each of {', '.join(stages)}")

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """L = L_u + sum_k sigma_k L_ek, (B, 3, H, W) -> scalars; also what each module erased."""
        features, masks = self._erase(images)  # F_u, F_e1, F_e2, … after the last module, (B, K, h, w) each
        logits = forward_streams(self, self.f2, features, self.streams, self.bn)  # (B, C) each
        unerased, *erased = [F.cross_entropy(scores.float(), targets.labels) for scores in logits]  # L_u, L_e1, …
        total = unerased
        for sigma, loss in zip(self.sigmas, erased, strict=True):
            total = total + sigma * loss  # L = L_u + sum_k sigma_k * L_ek
        losses = {"total": total, "unerased": unerased, "top1": top1(logits[0], targets.labels)}
        # The first module's losses have EIL's names, those of the others end in their stage.
        suffixes = ["", *(f"_{stage}" for stage in self.erasing_stages[1:])]
        for suffix, loss, mask in zip(suffixes, erased, masks, strict=True):
            module = {"erased": loss} | erased_fractions(mask, targets.masks)
            losses |= {name + suffix: value for name, value in module.items()}
        return losses

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The last erased stream's map, and the region that its module erased (1), (B, h, w) each."""
        features, masks = self._erase(images)
        last = self.head.features(self.backbone.forward_stages(features[-1], start=self.at, erased=True))
        return {"erased map": self.head.maps(last, classes), "erased region": 1 - masks[-1][:, 0]}

    def _erase(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The unerased and each erased stream after the last module, (B, K, h, w), and the modules' masks."""
        features, masks = [images], []
        for start, stop in zip((None, *self.erasing_stages), self.erasing_stages, strict=False):
            part = partial(self.backbone.forward_stages, start=start, stop=stop, erased=start is not None)
            features = forward_streams(self, part, features, self.streams, self.bn)
            source = features[-1] if self.reading == "chain" else features[0]
            masks.append(self.mask(source, stop))
            features.append(self.backbone.erase(source, masks[-1]))
        return features, masks
