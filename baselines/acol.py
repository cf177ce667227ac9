"""ACoL: Adversarial Complementary Learning, a second classifier learns from the region that the first ignores.

Adversarial Complementary Learning for Weakly Supervised Object Localization, Zhang et al., CVPR 2018,
https://arxiv.org/abs/1804.06962. Two equal classifiers A and B read the last feature map S. Where A's
map of the class, scaled to [0, 1], reaches the threshold delta, S is erased for B; both learn the label
(section 3.2), and the two maps are fused by their maximum:

    L = CE(A(S), y) + CE(B(S * [M_A < delta]), y),    M = max(M_A, M_B)

delta = 0.6 in the authors' code. Each classifier is two 3x3 convolutions of 1024 channels and a linear
classifier on pooled features, which is their 1x1 convolution with the pooling first.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.head import min_max

TestClass = Literal["predicted", "given"]


def complement(features: Tensor, score_maps: Tensor, threshold: float) -> Tensor:
    """Features without the cells where the map, scaled to [0, 1], reaches the threshold.

    Args:
        features: (B, K, H, W).
        score_maps: of classifier A, (B, H, W); no gradient passes. A constant map erases nothing.
        threshold: delta.

    Returns:
        (B, K, H, W).
    """
    keep = min_max(score_maps.detach()) < threshold
    return features * keep[:, None].to(features.dtype)


class ACoL(Method):
    """Adversarial Complementary Learning.

    Args:
        backbone: any.
        num_classes: C.
        threshold: cells where A's scaled map reaches this value are erased for B.
        width: channels of the classifiers' convolutions (default: the backbone's, 1024 on big ones).
        average_pool: smooth the features by a 3x3 average first, as the authors' code does (on VGG16).
        test_class: whose map erases in testing: the class that A predicts, or the class whose map is "given"
            to be made. The harness makes maps of the true class, so that "given" tells B the true class, which only
            GT-known Loc may use. Top-1 Loc is the same, as it counts only images where the two classes agree.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        threshold: Annotated[float, Field(gt=0, le=1)] = 0.6,
        width: Annotated[int, Field(ge=1)] | None = None,
        average_pool: bool = False,
        test_class: TestClass = "predicted",
    ) -> None:
        widths = (width or backbone.info.branch_width,) * 2
        super().__init__(backbone, num_classes, widths)
        self.second = self.new_head(widths)
        self.threshold, self.average_pool, self.test_class = threshold, average_pool, test_class

    def classifier_parameters(self) -> list[nn.Parameter]:
        """Of A and B."""
        return [*super().classifier_parameters(), *self.second.classifier.parameters()]

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """CE of A and of B, (B, 3, H, W) -> scalars; "top1" is A's."""
        shared = self.features(images)
        first = self.head.features(shared)
        logits = self.head.classify(first).float()
        erased = complement(shared, self.head.maps(first, targets.labels), self.threshold)
        loss_a = F.cross_entropy(logits, targets.labels)
        loss_b = F.cross_entropy(self.second(erased).float(), targets.labels)
        return {"total": loss_a + loss_b, "first": loss_a, "second": loss_b, "top1": top1(logits, targets.labels)}

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """A's logits (B, C) and the fused maps (B, h, w), in [0, 1]."""
        logits, first, second = self._both(images, classes)
        return logits, torch.maximum(first, second)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """B's map alone, (B, h, w)."""
        return {"second map": self._both(images, classes)[2]}

    def features(self, images: Tensor) -> Tensor:
        """The feature map that both classifiers read, (B, 3, H, W) -> (B, K, h, w)."""
        features: Tensor = self.backbone(images)
        return F.avg_pool2d(features, 3, stride=1, padding=1) if self.average_pool else features

    def _both(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A's logits (B, C), and the scaled maps of A and of B, (B, h, w) each."""
        shared = self.features(images)
        first = self.head.features(shared)
        logits = self.head.classify(first)
        eraser = logits.argmax(dim=1) if self.test_class == "predicted" else classes
        erased = complement(shared, self.head.maps(first, eraser), self.threshold)
        second = self.second.maps(self.second.features(erased), classes)
        return logits, min_max(self.head.maps(first, classes)), min_max(second)
