"""Other heads than :class:`eil.methods.head.CamHead`: options of the network (``head: tap | calm``), for every method.

Both keep the head's convolutions and its classifier, and change how features become scores. Neither paper's protocol is
this project's: TAP's authors scored every checkpoint on the test set, and CALM's clip the map to [0, 1] and cut it at
log-spaced thresholds without a normaliser, where ours normalise each map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones.base import HeadInit, HeadKind
from eil.methods.head import CamHead, initialise, of_class

KEPT = 0.1  # TAP keeps values above this share of their channel's maximum (the authors' code)


def thresholded_average(features: Tensor, share: float = KEPT) -> Tensor:
    """Mean of each channel's values above a share of its maximum (Bae, Noh & Kim, ECCV 2020).

    Args:
        features: (B, K, H, W), not negative.
        share: of the maximum.

    Returns:
        (B, K); 0 where a channel is 0 everywhere.
    """
    kept = features > share * features.amax(dim=(2, 3), keepdim=True)
    return (features * kept).sum(dim=(2, 3)) / kept.sum(dim=(2, 3)).clamp(min=1)


def prior(scores: Tensor) -> Tensor:
    """Where the network looks, p(z | x) = r / sum of r with r = ReLU of the scores; even where r is 0 everywhere.

    Args:
        scores: (B, 1, H, W).

    Returns:
        (B, 1, H, W) float32, of sum 1. The gradient passes through the sum, too. CALM's code stops it there, which
        always pushes r up.
    """
    r = scores.float().relu()
    total = r.sum(dim=(2, 3), keepdim=True)
    return torch.where(total > 0, r / total.clamp(min=1e-8), 1 / (r.shape[2] * r.shape[3]))


class TapHead(CamHead):
    """Thresholded average pooling (TAP) in place of the mean.

    Rethinking Class Activation Mapping for Weakly Supervised Object Localization, Bae, Noh & Kim, ECCV 2020. A large
    object and a small one then get the same score, as cells of the background do not thin the mean. The map is CAM's.
    """

    def classify(self, features: Tensor) -> Tensor:
        """Pool and classify, (B, K, H, W) -> (B, C)."""
        logits: Tensor = self.classifier(thresholded_average(features))
        return logits


class CalmHead(CamHead):
    """Class activation latent mapping (CALM): the place z of the evidence is a latent variable.

    Keep CALM and Improve Visual Feature Attribution, Kim et al., ICCV 2021, https://arxiv.org/abs/2106.07861. Each cell
    classifies, and the prior says how much it counts:

        J(y, z) = p(y | x, z) p(z | x),    logits = log p(y | x) = log of the sum of J over z

    so that cross-entropy is the paper's loss ML. Its loss EM has the same gradient (Fisher's identity), so that it has
    no name here. The map of a class is J(y, z), which is not negative, and whose sum is the class's probability.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
        init: HeadInit = "own",
    ) -> None:
        super().__init__(in_channels, num_classes, widths, dropout, init)
        self.prior = nn.Conv2d(self.classifier.in_features, 1, 1)
        initialise(self.prior, init)

    def joint(self, features: Tensor) -> Tensor:
        """J, (B, K, H, W) -> (B, C, H, W) float32; its sum over classes and cells is 1."""
        cells = F.conv2d(features, self.classifier.weight[:, :, None, None], self.classifier.bias)  # (B, C, H, W)
        return cells.float().softmax(dim=1) * prior(self.prior(features))

    def classify(self, features: Tensor) -> Tensor:
        """Log p(y | x), (B, K, H, W) -> (B, C)."""
        return self.joint(features).sum(dim=(2, 3)).clamp(min=1e-30).log()

    def maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """J of ``classes``, (B, K, H, W) -> (B, H, W)."""
        return of_class(self.joint(features), classes)


HEADS: dict[HeadKind, type[CamHead]] = {"cam": CamHead, "tap": TapHead, "calm": CalmHead}
