"""inception_v3: torchvision's Inception-v3, with the strides of the wsolevaluation benchmark.

The modules are torchvision's own: at ``output_stride=32`` the stages give its features bit for bit.
"""

from collections import OrderedDict
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones.base import Backbone, BackboneInfo
from eil.backbones.pretrained import load_torchvision
from eil.core.settings import SettingError

INFO = BackboneInfo(
    non_negative=("Conv2d", "maxpool1", "maxpool2", "maxpool3", "Mixed"),
    output_strides=(16, 8, 32),
    eil_stage="Mixed_6a",
    meil_stages=("Mixed_5d", "Mixed_6a"),
    adl_stages=("Mixed_5d", "Mixed_6e"),  # the benchmark's, without its third, head_2
    spg_stages=("Mixed_5d", "Mixed_6d"),  # as the authors' code and the benchmark at stride 8
    # BridgeGap's authors have no Inception; BAS's goes on to Mixed_7c, which this one has not.
    bridgegap_stage="Mixed_6d",
    bas_stage="Mixed_5d",
    head_widths=(1024,),
    weights=("IMAGENET1K_V1",),
    local_weights=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    grids=True,
)
_STAGES = [
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "maxpool1",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "maxpool2",
    "Mixed_5b",
    "Mixed_5c",
    "Mixed_5d",
    "Mixed_6a",
    "Mixed_6b",
    "Mixed_6c",
    "Mixed_6d",
    "Mixed_6e",
    "Mixed_7a",
    "Mixed_7b",
    "Mixed_7c",
]


Stem = Literal["own", "wsoleval"]


def inception_v3(weights: str | None, output_stride: int, *, stem: Stem = "own") -> Backbone:
    """Inception-v3 cut after Mixed_6e, with Mixed_6a without its stride (a pooling instead at 16).

    Args:
        weights: see :func:`eil.backbones.pretrained.load_torchvision`.
        output_stride: 16, 8, or torchvision's 32.
        stem: "own" pads every convolution and pooling, so that cell n looks at pixel n * output_stride; "wsoleval" has
            the paddings and the rounding of the benchmark and of SPG's authors (reference: wsoleval's inception.py),
            and its pooling at 16 as a stage of its own, maxpool3. At 32 there is only torchvision's.

    Raises:
        SettingError: ``stem`` at stride 32.

    Its pretrained weights expect inputs of (x - 0.5) / 0.5, which INFO gives; the WSOL field uses ImageNet's mean and
    standard deviation.
    """
    net = load_torchvision(torchvision.models.inception_v3(init_weights=True), "inception_v3", weights)
    stages: OrderedDict[str, Any] = OrderedDict((name, getattr(net, name)) for name in _STAGES)
    if output_stride == 32:
        if stem != "own":
            raise SettingError("stem", stem, "needs output_stride 16 or 8")
        return Backbone("inception_v3", stages, 2048, INFO)
    for name in ("Mixed_7a", "Mixed_7b", "Mixed_7c"):
        del stages[name]
    padded = ("Conv2d_1a_3x3",) if stem == "wsoleval" else ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3")
    for name in padded:
        stages[name].conv.padding = (1, 1)
    for name in ("maxpool1", "maxpool2"):
        stages[name].padding = 1
        stages[name].ceil_mode = stem == "wsoleval"
    reduction = stages["Mixed_6a"]
    reduction.branch3x3.conv.stride = reduction.branch3x3dbl_3.conv.stride = (1, 1)
    reduction.branch3x3.conv.padding = reduction.branch3x3dbl_3.conv.padding = (1, 1)
    stages["Mixed_6a"] = _MixedWithoutStride(reduction, pool=stem == "own" and output_stride == 16)
    if stem == "wsoleval":
        pool = nn.MaxPool2d(3, 2, ceil_mode=True) if output_stride == 16 else nn.Identity()
        stages = OrderedDict(
            item
            for name, stage in stages.items()
            for item in [("maxpool3", pool)] * (name == "Mixed_6a") + [(name, stage)]
        )
    return Backbone("inception_v3", stages, 768, INFO)


class _MixedWithoutStride(nn.Module):
    """Mixed_6a without its stride; ``pool`` puts a max pooling before it, which keeps the 14x14 map."""

    def __init__(self, block: nn.Module, pool: bool) -> None:
        super().__init__()
        self.block, self.pool = block, pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, 288, H, W) -> (B, 768, H, W), or half of H and W with ``pool``."""
        if self.pool:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        branches: Any = self.block
        double = branches.branch3x3dbl_3(branches.branch3x3dbl_2(branches.branch3x3dbl_1(x)))
        return torch.cat([branches.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)], 1)
