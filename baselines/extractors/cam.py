"""CAM as an extractor: the own map of every method that keeps CAM's, for comparison of values and of time.

Learning Deep Features for Discriminative Localization, Zhou et al., CVPR 2016, https://arxiv.org/abs/1512.04150,
equation 2. No settings.
"""

from torch import Tensor

from eil.methods.extractor import Evidence, Extractor
from eil.methods.head import class_activation_maps


class CAMMap(Extractor):
    """``sum_k w_yk f_k``."""

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return class_activation_maps(found.features, found.weight, found.classes)
