"""CCAM: combinational class activation maps, the maps of all classes weighted by the classes' ranks.

Combinational Class Activation Maps for Weakly Supervised Object Localization, Yang et al., WACV 2020,
https://arxiv.org/abs/1910.05518. Classes are ranked by their logits; ``M = sum_r gamma_r M_(r)``, where M_(r) is the
CAM of the class of rank r. The weights gamma fall from 1 to -1. With "linear" and "quadratic" the class asked for is
not used: the map is that of the prediction. The paper's non-local blocks are a change of the training, and not here.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from eil.methods.base import Method
from eil.methods.extractor import Evidence, Extractor

Weights = Literal["quadratic", "linear", "first-last"]


def rank_weights(count: int, weights: Literal["quadratic", "linear"], positive: int) -> Tensor:
    """Weight of each rank, the best first, (C,).

    Args:
        count: C.
        weights: "linear" falls from 1 to -1; "quadratic" from 1 to 0 as the square of a line over the first ranks, then
            from 0 to -1 likewise over the rest.
        positive: number of these first ranks.
    """
    if weights == "linear":
        return torch.linspace(1, -1, count)
    return torch.cat([torch.linspace(1, 0, positive).square(), -torch.linspace(0, -1, count - positive).square()])


def combined_maps(features: Tensor, weight: Tensor, logits: Tensor, gamma: Tensor) -> Tensor:
    """``sum_r gamma_r M_(r)``, as one map of combined classifier weights.

    Args:
        features: (B, K, h, w).
        weight: of the classifier, (C, K).
        logits: (B, C); they rank the classes.
        gamma: weight of each rank, (C,).

    Returns:
        (B, h, w).
    """
    ranked = weight[logits.argsort(dim=1, descending=True, stable=True)]  # (B, C, K)
    return torch.einsum("bkhw,bck,c->bhw", features, ranked, gamma.to(features))


class CCAM(Extractor):
    """Combinational class activation maps.

    Args:
        model: the method whose network is read.
        weights: "quadratic" (the paper's best), "linear", or "first-last": the map of the class asked for minus that of
            the class with the lowest logit.
        positive: share of the ranks with weights of 0 or above, if "quadratic" (the authors: 100 of CUB's 200 classes).
    """

    class_dependent = False  # with "first-last" it is

    def __init__(
        self, model: Method, *, weights: Weights = "quadratic", positive: Annotated[float, Field(gt=0, le=1)] = 0.5
    ) -> None:
        super().__init__(model)
        self.weights, self.positive = weights, positive
        self.class_dependent = weights == "first-last"

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        if self.weights == "first-last":
            last = found.weight[found.logits.argmin(dim=1)]  # (B, K)
            return torch.einsum("bkhw,bk->bhw", found.features, found.weight[found.classes] - last)
        count = found.logits.shape[1]
        gamma = rank_weights(count, self.weights, max(1, round(self.positive * count)))
        return combined_maps(found.features, found.weight, found.logits, gamma)
