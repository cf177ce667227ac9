"""BridgeGap: align features with the class's weights, and keep them the same when attended cells are dropped.

Bridging the Gap between Classification and Localization for Weakly Supervised Object Localization, Kim et al.,
CVPR 2022, https://arxiv.org/abs/2204.00220. A class map is a norm times a cosine, so that cells of a large norm stand
out whatever their direction. With F the last features, w_c the classifier's weights, and over the cells u of an image

    S_c(u) = <F(u), w_c> / (|F(u)| |w_c|)           the cosine
    N(u)   = min-max of |F(u)|                      the norm
    L_sim  = mean of S_y where N < tau_bg  -  mean of S_y where N > tau_fg
    L_norm = mean of N where A < 0         -  mean of N where A > 0,     A = S_y, or the largest S_c
    L_drop = mean of |F - F'|,  F' the features after attended cells of an earlier stage were dropped
    L = CE + lambda_drop L_drop + lambda_sim L_sim + lambda_norm L_norm,  the last two after a warm-up

Attended cells are those where the channel mean exceeds t times its maximum; each is dropped with probability p, in all
channels and without rescaling: EIL's mask with a coin for each cell, and a consistency in place of a second
classification. The clean stream alone is classified, and alone makes the map, by plain CAM. Defaults are those of the
authors' configuration for ResNet-50 on CUB. The loss weights of VGG16 on ILSVRC stand in the paper's appendix only,
which we have not read. Their batch on VGG16 grows from 32 to 64 after the warm-up; ours stays.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.core.settings import SettingError
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.eil import check_stage
from eil.methods.erasing import Attention, attention_map
from eil.methods.head import min_max, of_class

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
AlignedClass = Literal["best", "label"]


def drop_mask(attention: Tensor, threshold: float, draws: Tensor, drop_rate: float) -> Tensor:
    """Where features are kept: everywhere but in attended cells whose draw is below the drop rate.

    Args:
        attention: (B, 1, H, W).
        threshold: t; cells above this share of each image's maximum are attended. With a maximum below 0 none is.
        draws: uniform in [0, 1), (B, 1, H, W).
        drop_rate: p.

    Returns:
        (B, 1, H, W) bool.
    """
    highest = attention.amax(dim=(2, 3), keepdim=True)
    attended = (attention > threshold * highest) & (highest >= 0)
    return ~(attended & (draws < drop_rate))


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Cosine of each cell's features with each class's weights, (B, K, H, W), (C, K) -> (B, C, H, W) float32."""
    directions = F.normalize(features.float(), dim=1, eps=1e-6)  # a cell of zeros has cosine 0
    return torch.einsum("bkhw,ck->bchw", directions, F.normalize(weight.float(), dim=1, eps=1e-6))


def gap(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Mean over images of: mean of the values in ``low``, less mean of those in ``high``; an empty set gives 0.

    Args:
        values: (B, H, W); gradients pass.
        low: cells, (B, H, W) bool.
        high: likewise.

    Returns:
        A scalar.
    """
    below, above = (((values * cells).sum((1, 2)) / cells.sum((1, 2)).clamp(min=1)) for cells in (low, high))  # (B,)
    return (below - above).mean()


class BridgeGap(Method):
    """Cosine alignment, and consistency under attentive dropout.

    Args:
        backbone: any with a stage whose channel mean is an attention map.
        num_classes: C.
        at: stage after which cells are dropped (default: the backbone's; the first block of layer4 on ResNet-50).
        threshold: t, a share of each image's largest channel mean.
        drop_rate: p, of each attended cell.
        attention: "mean" (the paper), or "mean_abs" (an extension for features that can be negative).
        drop_weight: lambda_drop; ``similarity_weight`` and ``norm_weight`` likewise.
        foreground: tau_fg.
        background: tau_bg.
        aligned_class: whether A is the largest cosine of all classes ("best", the authors' choice on CUB) or that of
            the label ("label", on ILSVRC).
        warmup: share of the training's epochs without L_sim and L_norm (the authors' 20 of 70 epochs on CUB).

    Raises:
        SettingError: tau_bg above tau_fg, a stage that the backbone lacks, or no default stage.
        IncompatibleSetting: a transformer, after whose last normalisation all norms are nearly equal; or the stage's
            features are not a grid, or can be negative with attention "mean".
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        at: str | None = None,
        threshold: Share = 0.8,
        drop_rate: Share = 0.25,
        attention: Attention = "mean",
        drop_weight: Weight = 2.0,
        similarity_weight: Weight = 0.5,
        norm_weight: Weight = 0.05,
        foreground: Share = 0.4,
        background: Share = 0.2,
        aligned_class: AlignedClass = "best",
        warmup: Share = 0.28,
    ) -> None:
        backbone.require_convolutional()
        super().__init__(backbone, num_classes)
        self.at = backbone.stages_or_default(at, backbone.info.bridgegap_stage)
        check_stage(backbone, self.at, attention)
        if background > foreground:
            raise SettingError("background", background, f"must be at most foreground, {foreground}")
        self.threshold, self.drop_rate, self.attention = threshold, drop_rate, attention
        self.weights = {"drop": drop_weight, "similarity": similarity_weight, "norm": norm_weight}
        self.foreground, self.background, self.aligned_class = foreground, background, aligned_class
        self.warmup, self.aligned = warmup, True

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """L_sim and L_norm count after the warm-up."""
        self.aligned = epoch >= self.warmup * epochs

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """CE and the three terms, (B, 3, H, W) -> scalars; the terms are logged before their weight."""
        middle = self.backbone.forward_stages(images, stop=self.at)  # (B, K', h', w')
        features = self.last_features(middle)  # F, (B, K, h, w)
        dropped = self.last_features(middle * self.mask(middle))  # F', with batch norm after F
        logits = self.head.classify(features).float()
        classification = F.cross_entropy(logits, targets.labels)
        terms = {"drop": (features.float() - dropped.float()).abs().mean()}
        if self.aligned:
            terms |= self.alignment(features, targets.labels)
        else:  # every epoch has the same columns
            terms |= dict.fromkeys(("similarity", "norm"), terms["drop"].new_zeros(()))
        total = classification + sum(self.weights[name] * term for name, term in terms.items())
        return {"total": total, "classification": classification, **terms, "top1": top1(logits, targets.labels)}

    def alignment(self, features: Tensor, labels: Tensor) -> Losses:
        """L_sim and L_norm of the last features, (B, K, h, w), (B,) -> two scalars."""
        every = cosines(features, self.head.classifier.weight)  # (B, C, h, w)
        label_cosines = of_class(every, labels)  # S_y, (B, h, w)
        norm = min_max(torch.linalg.vector_norm(features.float(), dim=1))  # N, (B, h, w)
        sign = label_cosines if self.aligned_class == "label" else every.amax(dim=1)  # A
        return {
            "similarity": gap(label_cosines, norm < self.background, norm > self.foreground),
            "norm": gap(norm, sign < 0, sign > 0),
        }

    def last_features(self, middle: Tensor) -> Tensor:
        """The rest of the network up to the pooling: (B, K', h', w') -> (B, K, h, w)."""
        return self.head.features(self.backbone.forward_stages(middle, start=self.at))

    def mask(self, middle: Tensor) -> Tensor:
        """:func:`drop_mask` with the settings of this module, (B, K', h', w') -> (B, 1, h', w'), 0 where dropped."""
        attention = attention_map(middle, self.attention)
        return drop_mask(attention, self.threshold, torch.rand_like(attention), self.drop_rate).to(middle.dtype)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The cosine with the class's weights, and the norm, (B, h, w) each."""
        features = self.head.features(self.backbone(images))
        label_cosines = of_class(cosines(features, self.head.classifier.weight), classes)
        return {"cosine": label_cosines, "norm": torch.linalg.vector_norm(features.float(), dim=1)}
