"""CAM: class activation mapping, the baseline of all WSOL methods.

Learning Deep Features for Discriminative Localization, Zhou et al., CVPR 2016,
https://arxiv.org/abs/1512.04150. Train a classifier whose last convolution is pooled globally; its map of a
class is the features weighted by the classifier's weights of that class (equation 2). The paper has no settings; the
heads of later papers are one here, so that a study can compare them.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.backbones.base import HeadKind
from eil.methods.base import Losses, Method, Targets, top1


class CAM(Method):
    """Plain classification, maps by :func:`eil.methods.head.class_activation_maps`, or as another head makes them.

    Args:
        backbone: any.
        num_classes: C.
        widths: channels of the head's convolutions (default: the backbone's).
        head: "cam", "tap" or "calm", see :mod:`eil.methods.heads` (default: the network's option).

    Raises:
        IncompatibleSetting: head "tap" on features that can be negative.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        widths: Sequence[int] | None = None,
        *,
        head: HeadKind | None = None,
    ) -> None:
        super().__init__(backbone, num_classes, widths, head)

    def features(self, images: Tensor) -> Tensor:
        """The feature map that the head reads, (B, 3, H, W) -> (B, K, h, w)."""
        features: Tensor = self.backbone(images)
        return features

    def head_features(self, images: Tensor) -> Tensor:
        """The feature map that is pooled, (B, 3, H, W) -> (B, K, h, w)."""
        return self.head.features(self.features(images))

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """Cross-entropy, (B, 3, H, W) -> {"total": (), "top1": ()}."""
        logits = self.head.classify(self.head_features(images)).float()  # (B, C)
        return {"total": F.cross_entropy(logits, targets.labels), "top1": top1(logits, targets.labels)}
