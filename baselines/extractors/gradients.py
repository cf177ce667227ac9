"""Grad-CAM and its relatives: maps from the gradient g of a logit by a stage's features f.

Sums over channels k; means and sums over positions u where it says so. All but HiResCAM end in a ReLU.

    gradcam     sum_k mean_u(g_k) f_k                    Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391
    gradcam++   sum_k [sum_u alpha_k ReLU(g_k)] f_k      Chattopadhay et al., WACV 2018, https://arxiv.org/abs/1710.11063
    xgradcam    sum_k [sum_u g_k f_k / sum_u f_k] f_k    Fu et al., BMVC 2020, https://arxiv.org/abs/2008.02312
    hirescam    sum_k g_k f_k                            Draelos & Carin, 2020, https://arxiv.org/abs/2011.08891
    layercam    sum_k ReLU(g_k) f_k                      Jiang et al., IEEE TIP 2021

On features that are pooled and classified by a linear layer, without layers between, g_k = w_yk / (h w) everywhere.
Then gradcam and xgradcam are CAM's ReLU, hirescam is CAM, and layercam is ``nwc`` (for f >= 0), each up to a factor.
They differ at earlier stages. LayerCAM's fusion of several stages is not here.
"""

from typing import Literal

from torch import Tensor

from eil.methods.base import Method
from eil.methods.extractor import Evidence, GradientExtractor

Reading = Literal["equation-19", "per-position"]


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, K, h, w) twice -> (B, h, w), 0 or above."""
    return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).relu()


def gradcam_plus_plus(features: Tensor, gradients: Tensor, reading: Reading = "equation-19") -> Tensor:
    """``alpha = g^2 / (2 g^2 + d)``, 0 where g is 0; (B, K, h, w) twice -> (B, h, w), 0 or above.

    The paper's factor exp(s) is one positive number an image, so it is left out.

    Args:
        features: (B, K, h, w).
        gradients: likewise.
        reading: "equation-19", as printed: d = g^3 sum_v f_k(v); or "per-position": d = sum_v f_k(v) g_k(v)^3.
    """
    cube = gradients**3
    if reading == "equation-19":
        further = cube * features.sum(dim=(2, 3), keepdim=True)
    else:
        further = (cube * features).sum(dim=(2, 3), keepdim=True)
    below = 2 * gradients**2 + further  # (B, K, h, w)
    alpha = (gradients**2 / below.where(below != 0, 1)).where(gradients != 0, 0)
    weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1).relu()


def xgradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, K, h, w) twice -> (B, h, w), 0 or above.

    A channel that is 0 everywhere has weight 0. The sum of signed features can be near 0, and the weight then large.
    """
    weights = (gradients * features).sum(dim=(2, 3), keepdim=True) / (features.sum(dim=(2, 3), keepdim=True) + 1e-8)
    return (weights * features).sum(dim=1).relu()


def hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, K, h, w) twice -> (B, h, w), signed."""
    return (gradients * features).sum(dim=1)


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """(B, K, h, w) twice -> (B, h, w), 0 or above."""
    return (gradients.relu() * features).sum(dim=1).relu()


class GradCAM(GradientExtractor):
    """Grad-CAM: each channel weighted by its mean gradient."""

    signed = False

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return gradcam(found.features, found.slopes)


class GradCAMPlusPlus(GradientExtractor):
    """Grad-CAM++: positive gradients weighted by alpha, see :func:`gradcam_plus_plus`.

    torch-cam 0.5 loses the division by alpha's denominator (its in-place division acts on a copy), so that its maps
    differ from these.

    Args:
        model: the method whose network is read.
        at: see :class:`GradientExtractor`.
        reading: of alpha's denominator.
    """

    signed = False

    def __init__(self, model: Method, *, at: str | None = None, reading: Reading = "equation-19") -> None:
        super().__init__(model, at=at)
        self.reading: Reading = reading

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return gradcam_plus_plus(found.features, found.slopes, self.reading)


class XGradCAM(GradientExtractor):
    """XGrad-CAM: each channel weighted so that the map sums to the first-order part of the logit."""

    signed = False

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return xgradcam(found.features, found.slopes)


class HiResCAM(GradientExtractor):
    """HiResCAM: every position weighted by its own gradient."""

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return hirescam(found.features, found.slopes)


class LayerCAM(GradientExtractor):
    """LayerCAM: every position weighted by its own positive gradient."""

    signed = False

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return layercam(found.features, found.slopes)
