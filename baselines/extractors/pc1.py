"""PC1: the first principal component of an image's weighted channels.

CAM Back Again: Large Kernel CNNs from a Weakly Supervised Object Localization Perspective, Yasuki & Taki, CVPR 2024,
https://arxiv.org/abs/2403.06676. Each channel w_yk f_k of an image is scaled to [0, 1]. With the channels as samples
and the positions as variables, the first principal axis is the map. After the scaling only the sign of w_yk is left.

A direction has no sign. As in the authors' code the border votes: if more than half of its cells lie above the mean,
the map is turned over. Their count of the border misses cells of two sides and divides by the wrong number; this one
does not. Channels that are constant (dead after a ReLU) are left out; there, their code divides by 0. No settings.
"""

import torch
from torch import Tensor
from torch.nn import functional

from eil.methods.extractor import Evidence, Extractor


def first_component(features: Tensor, weights: Tensor) -> Tensor:
    """The first principal axis over positions.

    Args:
        features: (B, K, h, w).
        weights: of each image's class, (B, K).

    Returns:
        (B, h, w), of length 1, the border low; 0 where fewer than two channels vary.
    """
    size = features.shape[2:]
    products = (weights[:, :, None] * features.flatten(2)).double()  # (B, K, hw)
    low, high = products.aminmax(dim=2, keepdim=True)
    alive = (high > low).double()  # (B, K, 1)
    scaled = (products - low) / (high - low).where(high > low, 1)
    mean = (scaled * alive).sum(dim=1, keepdim=True) / alive.sum(dim=1, keepdim=True).clamp(min=1)
    centred = (scaled - mean) * alive
    return _flip_if_most_of_border_high(_first_axis(centred).reshape(-1, *size)).float()


def _first_axis(rows: Tensor) -> Tensor:
    """The first right singular vector, (B, K, P) -> (B, P), by the smaller of two products; 0 if all rows are 0."""
    if rows.shape[1] < rows.shape[2]:
        left = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, :, -1:]  # (B, K, 1)
        axes = functional.normalize(rows.mT @ left, dim=1)[:, :, 0]  # (B, P)
    else:
        axes = torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, :, -1]
    return axes * rows.any(dim=2).any(dim=1, keepdim=True)


def _flip_if_most_of_border_high(maps: Tensor) -> Tensor:
    """Maps turned over where more than half of the border lies above the mean, (B, h, w) -> (B, h, w)."""
    border = torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    border[1:-1, 1:-1] = False
    above = (maps > maps.mean(dim=(1, 2), keepdim=True))[:, border].double().mean(dim=1)  # (B,)
    return torch.where(above[:, None, None] > 0.5, -maps, maps)


class PC1(Extractor):
    """The first principal component of the weighted channels."""

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return first_component(found.features, found.weight[found.classes])
