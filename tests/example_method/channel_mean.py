"""A map extractor in a few lines: what EIL erases by, as a map."""

from torch import Tensor

from eil.methods.extractor import Evidence, StageExtractor


class ChannelMean(StageExtractor):
    """The channel mean of a stage's features; it has a setting ``at``, the stage."""

    class_dependent = False

    def maps(self, found: Evidence) -> Tensor:
        return found.features.mean(dim=1)  # (B, h, w)
