"""SPG: Self-Produced Guidance, attention supervises pixel-wise heads that separate object and background.

Self-produced Guidance for Weakly-supervised Object Localization, Zhang et al., ECCV 2018,
https://arxiv.org/abs/1807.08902. Besides the classifier (SPG-A) there are two heads on earlier features (SPG-B1,
SPG-B2, which share their last layers) and one on the last features (SPG-C). Each predicts for each pixel the
probability of an object. Pixels where a map is high are foreground seeds, pixels where it is low are background
seeds, and pixels between the two thresholds are ignored (section 3.2):

    attention -> seeds for B2;  sigmoid(B2) -> seeds for B1;  (sigmoid(B1) + sigmoid(B2)) / 2 -> seeds for C
    L = CE(A, y) + w_b1 BCE(B1) + w_b2 BCE(B2) + w_c BCE(C)

The localization map is the classifier's. Thresholds by default are those of the authors' code.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.backbones.base import HeadInit
from eil.core.settings import SettingError
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.head import convolution, initialise, min_max

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]
CReads = Literal["trunk", "head"]

# Where a smaller share of the image is foreground, the authors' code lowers the threshold ...
MIN_FOREGROUND = 30 / 224**2
FALLBACK_THRESHOLD = 0.7  # ... to this share of the map's maximum


def seeds(probability: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """Foreground and background seeds of a map.

    Args:
        probability: (B, H, W) in [0, 1]; no gradient passes.
        high: pixels above are foreground. An image with less foreground than :data:`MIN_FOREGROUND` uses
            :data:`FALLBACK_THRESHOLD` of its maximum instead; other images keep ``high``.
        low: pixels below are background, even those above the lowered threshold: the authors' code writes the
            background last.

    Returns:
        Foreground (B, H, W) bool, background (B, H, W) bool; no pixel is both.
    """
    probability = probability.detach()
    few = (probability > high).float().mean(dim=(1, 2), keepdim=True) < MIN_FOREGROUND  # (B, 1, 1)
    threshold = torch.where(few, FALLBACK_THRESHOLD * probability.amax(dim=(1, 2), keepdim=True), high)
    background = probability < low
    return (probability > threshold) & ~background, background


def guided_loss(logits: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Mean binary cross-entropy over the seeds, 0 if there are none: (B, H, W) each -> ()."""
    used = foreground | background
    loss = F.binary_cross_entropy_with_logits(logits, foreground.float(), reduction="none")
    return (loss * used).sum() / used.sum().clamp(min=1)


class SPG(Method):
    """Self-Produced Guidance.

    Args:
        backbone: any with default SPG stages, or with ``taps`` given.
        num_classes: C.
        taps: stages that B1 and B2 read (default: the backbone's).
        seeds_b2: thresholds (high, low) of the attention map, which teaches B2.
        seeds_b1: of B2's probability, which teaches B1.
        seeds_c: of B1's and B2's mean probability, which teaches C.
        weight_b1: of B1's loss; ``weight_b2`` and ``weight_c`` likewise.
        head_widths: channels of the classifier's 3x3 convolutions (default: two of the backbone's ``branch_width``,
            1024 on big ones).
        b_width: channels of the convolutions of B1, B2 and their shared layers (default: half of ``branch_width``).
        c_width: channels of C's convolution (default: likewise).
        c_reads: C reads the backbone's last features ("trunk"), or the classifier's features after its convolutions
            and dropout ("head": the authors' code).
        seed_side: seeds and losses are made on maps of this side (default: of the images' size). The authors' code has
            224 for images of 321.

    Raises:
        SettingError: no such stage, no default stages, or a low threshold that is not below its high one.
        IncompatibleSetting: a stage whose features are not a grid.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        taps: tuple[str, str] | None = None,
        seeds_b2: tuple[Share, Share] = (0.7, 0.05),
        seeds_b1: tuple[Share, Share] = (0.5, 0.05),
        seeds_c: tuple[Share, Share] = (0.7, 0.1),
        weight_b1: Weight = 1.0,
        weight_b2: Weight = 1.0,
        weight_c: Weight = 1.0,
        head_widths: tuple[Width, ...] | None = None,
        b_width: Width | None = None,
        c_width: Width | None = None,
        c_reads: CReads = "trunk",
        seed_side: Width | None = None,
    ) -> None:
        info = backbone.info
        widths = (info.branch_width,) * 2 if head_widths is None else tuple(head_widths)
        super().__init__(backbone, num_classes, widths)
        stages = backbone.stages_or_default(taps, backbone.info.spg_stages, "taps")
        self.taps = tuple(sorted(stages, key=lambda stage: backbone.index(stage, "taps")))
        for name, pair in (("seeds_b2", seeds_b2), ("seeds_b1", seeds_b1), ("seeds_c", seeds_c)):
            if pair[1] >= pair[0]:
                raise SettingError(name, list(pair), "must be (high, low) with low below high")
        self.seeds_b2, self.seeds_b1, self.seeds_c = seeds_b2, seeds_b1, seeds_c
        self.weights = {"b1": weight_b1, "b2": weight_b2, "c": weight_c}
        self.c_reads, self.seed_side = c_reads, seed_side
        b_width, c_width = b_width or info.branch_width // 2, c_width or info.branch_width // 2
        c_channels = self.head.classifier.in_features if c_reads == "head" else backbone.out_channels
        self.b1, self.b2 = (convolution(backbone.channels(stage), b_width, info.head_init) for stage in self.taps)
        self.shared = _pixel_head(b_width, b_width, info.head_init)
        self.c = _pixel_head(c_channels, c_width, info.head_init)

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """The four losses, (B, 3, H, W) -> scalars; heads and seeds are compared at ``seed_side``."""
        first, second = self.taps
        x1 = self.backbone.forward_stages(images, stop=first)
        x2 = self.backbone.forward_stages(x1, first, second)
        last = self.backbone.forward_stages(x2, second)
        features = self.head.features(last)
        logits = self.head.classify(features).float()

        size = (self.seed_side, self.seed_side) if self.seed_side else (images.shape[2], images.shape[3])
        attention = min_max(_enlarged(self.head.maps(features, targets.labels)[:, None], size))
        g1, g2 = self.backbone.grid(x1), self.backbone.grid(x2)
        b1, b2 = (_enlarged(self.shared(x), size) for x in (self.b1(g1), self.b2(g2)))  # (B, H, W) each
        c = _enlarged(self.c(features if self.c_reads == "head" else last), size)
        fused = (b1.sigmoid() + b2.sigmoid()) / 2
        guided = {
            "b1": guided_loss(b1, *seeds(b2.sigmoid(), *self.seeds_b1)),
            "b2": guided_loss(b2, *seeds(attention, *self.seeds_b2)),
            "c": guided_loss(c, *seeds(fused, *self.seeds_c)),
        }
        classification = F.cross_entropy(logits, targets.labels)
        total = classification + sum(self.weights[name] * loss for name, loss in guided.items())
        return {"total": total, "classification": classification, **guided, "top1": top1(logits, targets.labels)}

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Mean object probability of B1 and B2, (B, h, w)."""
        x1 = self.backbone.forward_stages(images, stop=self.taps[0])
        x2 = self.backbone.forward_stages(x1, *self.taps)
        g1, g2 = self.backbone.grid(x1), self.backbone.grid(x2)
        b1, b2 = (self.shared(x).float().sigmoid() for x in (self.b1(g1), self.b2(g2)))
        return {"guidance": (b1[:, 0] + F.interpolate(b2, b1.shape[2:], mode="bilinear")[:, 0]) / 2}


def _pixel_head(in_channels: int, width: int, init: HeadInit) -> nn.Sequential:
    """A 3x3 and a 1x1 convolution to one logit for each pixel: (B, in, h, w) -> (B, 1, h, w)."""
    last = nn.Conv2d(width, 1, 1)
    initialise(last, init)
    return nn.Sequential(convolution(in_channels, width, init), last)


def _enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, float32: (B, 1, h, w) -> (B, H, W)."""
    return F.interpolate(x.float(), size, mode="bilinear", align_corners=False)[:, 0]
