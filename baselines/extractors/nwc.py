"""NWC: negative weight clamping, CAM without the channels that speak against the class.

Rethinking Class Activation Mapping for Weakly Supervised Object Localization, Bae, Noh & Kim, ECCV 2020. The paper's
thresholded average pooling is a head (``head: tap``); its percentile as a standard, which chooses a threshold, is not
here. No settings.
"""

from torch import Tensor

from eil.methods.extractor import Evidence, Extractor
from eil.methods.head import class_activation_maps


class NWC(Extractor):
    """``sum_k max(w_yk, 0) f_k``."""

    def maps(self, found: Evidence) -> Tensor:
        """(B, h, w)."""
        return class_activation_maps(found.features, found.weight.clamp(min=0), found.classes)
