"""DDT: what varies together over all training images of a class.

Unsupervised Object Discovery and Co-Localization by Deep Descriptor Transforming, Wei et al., Pattern Recognition 2019,
https://arxiv.org/abs/1707.06397, as pseudo supervised object localization uses it (PSOL, Zhang et al., CVPR 2020,
https://arxiv.org/abs/2002.11359). The cells' features f(u) of all training images of a class have a mean and a first
principal direction v; the map is the projection

    M(u) = <f(u) - mean, v>

which is high on what these images share. It reads the labels of the training images, which weak supervision has, and
the class that is asked for. The covariance is summed in float64, a class at a time; that equals the principal component
of all the vectors at once.

A direction has no sign, and PSOL's code has no rule for it. Here the projection rises with the channels' mean over the
class, that is, the sum of v is positive. Where features can be negative, that mean says nothing; there each map is
turned over if its border is higher than the whole. PSOL reads VGG16 on images of 448 pixels, cuts at 0 and takes the
largest component; here images, thresholds and boxes are those of the study. Of training images the middle is read,
without augmentation.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from eil.methods.base import Method
from eil.methods.extractor import Evidence, Extractor


def first_direction(features: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and first principal direction of the vectors of all cells.

    Args:
        features: (B, K, h, w) each; read once.

    Returns:
        (K,) each, float64; the direction has length 1 and a sum that is not negative.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in features:
        vectors = batch.double().movedim(1, 3).flatten(0, 2)  # (B h w, K)
        count += len(vectors)
        total = total.to(vectors) + vectors.sum(dim=0)
        products = products.to(vectors) + vectors.mT @ vectors
    mean = total / count
    direction = torch.linalg.eigh(products / count - torch.outer(mean, mean)).eigenvectors[:, -1]
    return mean, torch.where(direction.sum() < 0, -direction, direction)


def projections(features: Tensor, means: Tensor, directions: Tensor) -> Tensor:
    """M of each image, (B, K, h, w), (B, K), (B, K) -> (B, h, w) float32."""
    along = torch.einsum("bkhw,bk->bhw", features.double(), directions)
    return (along - (means * directions).sum(dim=1)[:, None, None]).float()


def flip_if_border_mean_high(maps: Tensor) -> Tensor:
    """Maps turned over where the border's mean is above that of the whole, (B, h, w) -> (B, h, w)."""
    border = torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    border[1:-1, 1:-1] = False
    higher = maps[:, border].mean(dim=1) > maps.mean(dim=(1, 2))
    return torch.where(higher[:, None, None], -maps, maps)


class DDT(Extractor):
    """Projection on the first principal direction of a class.

    Args:
        model: the method whose network is read.
        at: stage (default: the features that the head pools).

    Raises:
        SettingError: no such stage.
        IncompatibleSetting: the stage's features are not a grid, or the method makes its logits in another way.
    """

    needs_fit = True

    def __init__(self, model: Method, *, at: str | None = None) -> None:
        super().__init__(model)
        backbone, last = model.backbone, model.backbone.names[-1]
        backbone.require_grid(at)
        self.at = None if at is None else backbone.names[backbone.index(at)]
        rectified = at is None and len(model.head.conv) > 0
        self.rises = rectified or backbone.is_non_negative(last if at is None else at)
        self.found: dict[int, tuple[Tensor, Tensor]] = {}  # label -> mean and direction, (K,) each

    def fit(self, label: int, features: Iterator[Tensor]) -> None:
        """Find the mean and the direction of a class."""
        self.found[label] = first_direction(features)

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w); 0 for a class without training images."""
        nothing = (found.features.new_zeros(found.features.shape[1], dtype=torch.float64),) * 2
        of_each = [self.found.get(label, nothing) for label in found.classes.tolist()]
        means, directions = (torch.stack(each) for each in zip(*of_each, strict=True))
        maps = projections(found.features, means, directions)
        return maps if self.rises else flip_if_border_mean_high(maps)
