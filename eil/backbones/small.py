"""vgg_small and resnet_small: for images of about 64 pixels, quick enough for a CPU.

They keep what matters of their big namesakes: vgg_small is a plain stack that pools and, as VGG16-GAP does,
has a 3x3 convolution before the global pooling; resnet_small has residual blocks and strides. Both give a
16x16 map at 64, and both have batch norm, without which vgg_small learns nothing in a CPU's few epochs.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone, Traits

TRAITS = {
    "vgg_small": Traits(
        erase_at=("pool2", "conv3"),
        non_negative=("conv1", "pool1", "conv2", "pool2", "conv3", "conv4"),
        strides=(4,),
        head_widths=(64,),
        branch_width=64,
    ),
    "resnet_small": Traits(
        erase_at=("layer1", "layer2"),
        non_negative=("stem", "layer1", "layer2", "layer3"),
        strides=(4,),
        branch_width=64,
    ),
}


def vgg_small(weights: str | None, output_stride: int) -> Backbone:
    """Five 3x3 convolutions and two poolings (after VGG; Simonyan & Zisserman, ICLR 2015)."""
    del output_stride
    stages = OrderedDict(
        conv1=_conv(3, 16),
        pool1=nn.MaxPool2d(2),
        conv2=_conv(16, 32),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Sequential(_conv(32, 64), _conv(64, 64)),
        conv4=_conv(64, 64),
    )
    backbone = Backbone("vgg_small", stages, 64, TRAITS["vgg_small"])
    return _initialised(backbone)


def resnet_small(weights: str | None, output_stride: int) -> Backbone:
    """A stem and three basic blocks (after ResNet; He et al., CVPR 2016)."""
    del output_stride
    stages = OrderedDict(
        stem=nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        layer1=BasicBlock(16, 32, stride=2),
        layer2=BasicBlock(32, 64),
        layer3=BasicBlock(64, 64),
    )
    return _initialised(Backbone("resnet_small", stages, 64, TRAITS["resnet_small"]))


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


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _initialised(backbone: Backbone) -> Backbone:
    """He initialisation of every convolution (He et al., ICCV 2015)."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return backbone
