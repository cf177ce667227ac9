"""BagCAMs: every position of an earlier stage as a classifier, whose maps are added up.

Bagging Regional Classification Activation Maps for Weakly Supervised Object Localization, Zhu et al., ECCV 2022,
https://arxiv.org/abs/2207.07818. With g the gradient of the logit's logarithm by the features f of a stage, and ReLUs
that stop negative gradients (guided backpropagation):

    M = sum_k ReLU((1 + mean_u(g_k f_k)) g_k f_k)

The published numbers use layer3 of ResNet-50 and thresholds chosen on the test set. The release takes log s of the raw
logit, whose gradient g / s changes its sign with s: for s < 0 the map becomes that of negative weights. Here it is
g / |s|, which is the same for s > 0.
"""

from typing import Literal

from torch import Tensor

from eil.methods.base import Method
from eil.methods.extractor import Evidence, GradientExtractor

Objective = Literal["log", "logit"]
_LEAST = 1e-6  # magnitude of a logit, below which its logarithm's gradient does not grow


def bagcams(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, K, h, w) twice -> (B, h, w), 0 or above."""
    product = gradients * features
    return ((1 + product.mean(dim=(2, 3), keepdim=True)) * product).relu().sum(dim=1)


class BagCAMs(GradientExtractor):
    """Bagging regional classification activation maps.

    Args:
        model: the method whose network is read.
        at: see :class:`GradientExtractor`.
        objective: gradient of the "log" of the logit's magnitude, or of the "logit".
        guided: whether ReLUs stop negative gradients; it does nothing in a network without ReLUs.
    """

    signed = False

    def __init__(
        self, model: Method, *, at: str | None = None, objective: Objective = "log", guided: bool = True
    ) -> None:
        super().__init__(model, at=at)
        self.objective = objective
        self.gradients = "guided" if guided else "plain"

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        gradients = found.slopes
        if self.objective == "log":
            logit = found.logits.gather(1, found.classes[:, None])[:, :, None, None]  # (B, 1, 1, 1)
            gradients = gradients / logit.abs().clamp(min=_LEAST)
        return bagcams(found.features, gradients)
