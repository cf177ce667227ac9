"""The localization head, and class activation maps.

Learning Deep Features for Discriminative Localization, Zhou et al., CVPR 2016,
https://arxiv.org/abs/1512.04150: with global average pooling before the classifier, the classifier's weights
of a class, applied at every position of the last feature map, show where the network sees the class.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones.base import HeadInit
from eil.core.settings import SettingError


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


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """What each image has of its own class, (B, C, ...), (B,) -> (B, ...)."""
    return values[torch.arange(len(classes), device=classes.device), classes]


def initialise(layer: nn.Conv2d | nn.Linear, init: HeadInit) -> None:
    """Draw a new layer's weights: by Glorot & Bengio, uniform ("xavier"), or by He et al., normal; its bias is 0.

    With "own", layers that give scores (a linear one, or a convolution of 1x1) are drawn from N(0, 0.01) instead.
    """
    if init == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif init == "own" and (isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)):
        nn.init.normal_(layer.weight, std=0.01)
    elif isinstance(layer, nn.Linear):  # as the 1x1 convolution that it stands for: fan_out is the number of classes
        nn.init.normal_(layer.weight, std=(2 / layer.out_features) ** 0.5)
    else:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # the layer has a bias


def convolution(in_channels: int, width: int, init: HeadInit = "own") -> nn.Sequential:
    """A new 3x3 convolution with ReLU: (B, in, H, W) -> (B, width, H, W)."""
    layer = nn.Conv2d(in_channels, width, 3, padding=1)
    initialise(layer, init)
    return nn.Sequential(layer, nn.ReLU())


class CamHead(nn.Module):
    """Global average pooling and a linear classifier, after 3x3 convolutions.

    Pooling before the classifier equals a 1x1 convolution to classes before the pooling.

    Args:
        in_channels: K of the backbone's last feature map.
        num_classes: C.
        widths: channels of each convolution (EIL's conv6 on VGG16: (1024,)), default: none.
        dropout: probability of the dropout before each convolution and before the class layer, for each value of the
            grid; in training only.
        init: see :func:`initialise`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
        init: HeadInit = "own",
    ) -> None:
        super().__init__()
        channels = [in_channels, *widths]
        self.conv = nn.Sequential(*(convolution(*pair, init) for pair in pairwise(channels)))
        self.classifier = nn.Linear(channels[-1], num_classes)
        initialise(self.classifier, init)
        self.dropout = dropout

    def features(self, x: Tensor) -> Tensor:
        """The feature map that is pooled, (B, in, H, W) -> (B, K, H, W); in training after the last dropout."""
        for layer in self.conv:
            x = layer(self.drop(x))
        return self.drop(x)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of single values in training, if the head has any: (B, K, H, W) -> (B, K, H, W)."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def start_from(self, pretrained: nn.Linear) -> None:
        """Take over a pretrained classifier, K -> C.

        Raises:
            SettingError: it has other features or other classes.
        """
        classifier = self.classifier
        # A study's check builds networks without memory and with any number of classes.
        same_classes = classifier.weight.is_meta or classifier.out_features == pretrained.out_features
        if len(self.conv) or classifier.in_features != pretrained.in_features or not same_classes:
            expected = f"{pretrained.in_features} features of the backbone itself and {pretrained.out_features} classes"
            found = (
                f"{classifier.in_features} after {len(self.conv)} convolutions and {classifier.out_features} classes"
            )
            raise SettingError("keep_classifier", True, f"needs {expected}; this head has {found}")
        if not classifier.weight.is_meta:
            classifier.load_state_dict(pretrained.state_dict())

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
