"""A backbone in twelve lines, for docs/extending.md."""

from torch import nn

from eil.backbones import Backbone, BackboneInfo

INFO = BackboneInfo(non_negative=("conv1", "conv2", "conv3"), output_strides=(4,), eil_stage="conv2")


def tiny_net(weights: str | None, output_stride: int) -> Backbone:
    """Three convolutions; it has no pretrained weights, and one stride."""
    stages = {
        "conv1": nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
        "conv2": nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        "conv3": nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()),
    }
    return Backbone("tiny_net", stages, 32, INFO)
