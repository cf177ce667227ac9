"""resnet50: torchvision's ResNet-50, with the strides of the wsolevaluation benchmark.

The modules are torchvision's own: at ``output_stride=32`` the stages give its features bit for bit.
"""

from collections import OrderedDict
from typing import Any

import torchvision
from torch import nn

from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.pretrained import load_torchvision

INFO = BackboneInfo(
    non_negative=("stem", "layer1", "layer2", "layer3", "layer4"),
    output_strides=(16, 8, 32),
    eil_stage="layer3",
    meil_stages=("layer2", "layer3"),
    adl_stages=("layer3_0", "layer4_0", "layer4_2"),  # the benchmark's, and the authors' on their SE network
    # SPG's paper has no ResNet-50: the depths of inception_v3, about two thirds of the way and near the end.
    spg_stages=("layer2", "layer3"),
    bridgegap_stage="layer4_0",  # the authors', as BAS's
    bas_stage="layer3",
    weights=("IMAGENET1K_V1", "IMAGENET1K_V2"),
    local_weights=True,
    grids=True,
)


def resnet50(weights: str | None, output_stride: int, *, keep_classifier: bool = False) -> Backbone:
    """ResNet-50, one stage per bottleneck: layer4 loses its stride at 16, and layer3 too at 8; no dilation.

    Args:
        weights: see :func:`eil.backbones.pretrained.load_torchvision`.
        output_stride: 16, 8, or torchvision's 32.
        keep_classifier: whether the head starts from the pretrained classifier, as the benchmark's does on ILSVRC.
    """
    net = load_torchvision(torchvision.models.resnet50(), "resnet50", weights, keep_classifier)
    stages: OrderedDict[str, Any] = OrderedDict()
    stages["stem"] = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for i, block in enumerate(getattr(net, layer)):
            stages[f"{layer}_{i}"] = block
    for layer, largest in (("layer4_0", 16), ("layer3_0", 8)):
        if output_stride <= largest:
            stages[layer].conv2.stride = (1, 1)
            stages[layer].downsample[0].stride = (1, 1)
    return Backbone("resnet50", stages, 2048, INFO, net.fc if keep_classifier else None)
