"""vgg_small: a small VGG for images of about 64 pixels, quick enough for a CPU.

As VGG16-GAP it has a 3x3 convolution before the global pooling. Its map has 16x16 cells at 64 pixels. It has batch
norm, without which it learns nothing in the few epochs that a CPU can afford.
"""

from collections import OrderedDict

from torch import nn

from eil.backbones import pretrained
from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.blocks import he_initialised

INFO = BackboneInfo(
    non_negative=("conv1", "pool1", "conv2", "pool2", "conv3", "conv4"),
    output_strides=(4,),
    eil_stage="conv3",
    meil_stages=("pool2", "conv3"),
    # ADL, SPG, BridgeGap and BAS by analogy to VGG16.
    adl_stages=("pool2", "conv3", "conv4"),
    spg_stages=("conv3", "conv4"),
    bridgegap_stage="conv3",
    bas_stage="conv3",
    head_widths=(64,),
    branch_width=64,
    weights=("birds",),
    pretrained_on="drawn birds of kinds 6 to 10, with their labels",
    grids=True,
)


def vgg_small(weights: str | None, output_stride: int) -> Backbone:
    """Five 3x3 convolutions and two poolings (after VGG; Simonyan & Zisserman, ICLR 2015)."""
    stages = OrderedDict(
        conv1=_conv(3, 16),
        pool1=nn.MaxPool2d(2),
        conv2=_conv(16, 32),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Sequential(_conv(32, 64), _conv(64, 64)),
        conv4=_conv(64, 64),
    )
    return pretrained.load_packaged(he_initialised(Backbone("vgg_small", stages, 64, INFO)), weights)


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
