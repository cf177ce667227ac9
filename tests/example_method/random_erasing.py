"""Random erasing: what EIL is without its attention. Cells of the last feature map are erased by chance."""

import torch
from torch import Tensor

from baselines.cam import CAM
from eil.backbones import Backbone


class RandomErasing(CAM):
    """CAM that trains on features of which a share ``rate`` of the cells is erased."""

    def __init__(self, backbone: Backbone, num_classes: int, *, rate: float = 0.3) -> None:
        super().__init__(backbone, num_classes)
        self.rate = rate

    def features(self, images: Tensor) -> Tensor:
        x = self.backbone(images)
        return x * (torch.rand_like(x[:, :1]) >= self.rate) if self.training else x
