"""The localization head, and class activation maps.

Learning Deep Features for Discriminative Localization, Zhou et al., CVPR 2016,
https://arxiv.org/abs/1512.04150: with global average pooling before the classifier, the classifier's weights
of a class, applied at every position of the last feature map, show where the network sees the class.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def class_activation_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """``M_c(i, j) = sum_k w_ck f_k(i, j)`` (Zhou et al., equation 2).

    Args:
        features: last feature map, (B, K, H, W).
        weight: of the classifier, (C, K).
        classes: class of each wanted map, (B,) int64.

    Returns:
        (B, H, W) float32, not normalised; negative where the features speak against the class.
    """
    return torch.einsum("bkhw,bk->bhw", features.float(), weight[classes].float())


def min_max(maps: Tensor) -> Tensor:
    """Each map from 0 at its lowest to 1 at its highest, (B, H, W) -> (B, H, W) float32; a constant one becomes 0."""
    maps = maps.float()
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def convolution(in_channels: int, width: int) -> nn.Sequential:
    """A new 3x3 convolution with ReLU, He-initialised: (B, in, H, W) -> (B, width, H, W)."""
    layer = nn.Conv2d(in_channels, width, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # the layer has a bias
    return nn.Sequential(layer, nn.ReLU())


class CamHead(nn.Module):
    """Global average pooling and a linear classifier, after 3x3 convolutions.

    Pooling before the classifier equals a 1x1 convolution to classes before the pooling.

    Args:
        in_channels: K of the backbone's last feature map.
        num_classes: C.
        widths: channels of each convolution (EIL's conv6 on VGG16: (1024,)), default: none.
    """

    def __init__(self, in_channels: int, num_classes: int, widths: Sequence[int] = ()) -> None:
        super().__init__()
        channels = [in_channels, *widths]
        self.conv = nn.Sequential(*(convolution(*pair) for pair in pairwise(channels)))
        self.classifier = nn.Linear(channels[-1], num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor) -> Tensor:
        """The feature map that is pooled, (B, in, H, W) -> (B, K, H, W)."""
        features: Tensor = self.conv(x)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Pool and classify, (B, K, H, W) -> (B, C)."""
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits

    def maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps of ``classes``, (B, K, H, W) -> (B, H, W)."""
        return class_activation_maps(features, self.classifier.weight, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the backbone to logits, (B, in, H, W) -> (B, C)."""
        return self.classify(self.features(x))
