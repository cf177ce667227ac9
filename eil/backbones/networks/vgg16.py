"""vgg16: torchvision's VGG16 without batch norm, with the strides of the wsolevaluation benchmark.

The modules are torchvision's own: at ``output_stride=32`` the stages give its features bit for bit.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn
from torchvision.models import vgg

from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.pretrained import load_torchvision
from eil.core.settings import SettingError

INFO = BackboneInfo(
    non_negative=tuple(f"{kind}{k}" for k in range(1, 6) for kind in ("conv", "pool")),
    output_strides=(16, 8, 32),
    eil_stage="pool4",
    meil_stages=("pool3", "pool4"),
    adl_stages=("pool3", "pool4", "conv5"),  # the authors'; the benchmark at 16 has conv4 instead of pool4
    # SPG's paper has no VGG16: the depths of inception_v3, about two thirds of the way and near the end.
    spg_stages=("conv4", "conv5"),
    bridgegap_stage="conv4",  # the authors', as BAS's
    bas_stage="conv4",
    head_widths=(1024,),
    weights=("IMAGENET1K_V1",),
    local_weights=True,
    grids=True,
)
_POOLS = (4, 9, 16, 23, 30)  # positions of the five poolings in torchvision's `features`


Pools = Literal["own", "3x3", "3x3-pool4"]


def vgg16(weights: str | None, output_stride: int, *, pools: Pools = "own") -> Backbone:
    """VGG16: pool5 is left out at stride 16, and pool4 too at stride 8 (where the stage does nothing).

    Args:
        weights: see :func:`eil.backbones.pretrained.load_torchvision`.
        output_stride: 16, 8, or torchvision's 32.
        pools: "own" are torchvision's of 2x2; "3x3" are those of ACoL's authors and of the benchmark's ACoL: 3x3, with
            padding, and a pool5 without stride; "3x3-pool4" those of the benchmark's SPG: pool4 of 3x3 at stride 16.

    Raises:
        SettingError: ``pools`` at stride 32.
    """
    if output_stride == 32 and pools != "own":
        raise SettingError("pools", pools, "needs output_stride 16 or 8")
    features = _features()
    load_torchvision(nn.ModuleDict({"features": features}), "vgg16", weights)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    start = 0
    for k, pool in enumerate(_POOLS, start=1):
        stages[f"conv{k}"] = features[start:pool]
        stages[f"pool{k}"] = features[pool]
        start = pool + 1
    if output_stride < 32:
        del stages["pool5"]
    if output_stride < 16:
        stages["pool4"] = nn.Identity()
    if pools == "3x3":
        strides = (2, 2, 2, 2 if output_stride == 16 else 1, 1)
        stages |= {f"pool{k}": nn.MaxPool2d(3, stride, padding=1) for k, stride in enumerate(strides, start=1)}
    elif pools == "3x3-pool4" and output_stride == 16:
        stages["pool4"] = nn.MaxPool2d(3, 2, padding=1)
    return Backbone("vgg16", stages, 512, INFO)


def _features() -> nn.Sequential:
    """torchvision's, without its classifier, whose 124 million values would cost 3 s and 0.5 GB at every start."""
    features = vgg.make_layers(vgg.cfgs["D"])
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return features
