"""resnet_small: a small ResNet for images of about 64 pixels, quick enough for a CPU.

It has residual blocks and strides. Its map has 16x16 cells at 64 pixels.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import pretrained
from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.blocks import he_initialised

INFO = BackboneInfo(
    non_negative=("stem", "layer1", "layer2", "layer3"),
    output_strides=(4,),
    eil_stage="layer2",
    meil_stages=("layer1", "layer2"),
    # ADL, SPG, BridgeGap and BAS by analogy to ResNet-50.
    adl_stages=("layer2", "layer3"),
    spg_stages=("layer2", "layer3"),
    bridgegap_stage="layer2",
    bas_stage="layer2",
    branch_width=64,
    weights=("birds",),
    pretrained_on="drawn birds of kinds 6 to 10, with their labels",
    grids=True,
)


def resnet_small(weights: str | None, output_stride: int) -> Backbone:
    """A stem and three basic blocks (after ResNet; He et al., CVPR 2016)."""
    stages = OrderedDict(
        stem=nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        layer1=BasicBlock(16, 32, stride=2),
        layer2=BasicBlock(32, 64),
        layer3=BasicBlock(64, 64),
    )
    return pretrained.load_packaged(he_initialised(Backbone("resnet_small", stages, 64, INFO)), weights)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut: (B, in, H, W) -> (B, out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
