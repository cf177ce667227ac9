"""vgg16, resnet50 and inception_v3 from torchvision, with the strides that WSOL gives them.

The modules are torchvision's own, so that the stages give its logits bit for bit as long as no stride is
changed (``output_stride=32``). The changes follow facts of the wsolevaluation benchmark: 28x28 or 14x14 maps
at 224 pixels, weights reused as they are.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone, Traits, read_local, state_dicts
from eil.core.files import InputError
from eil.core.run import LOCAL_WEIGHTS

TRAITS = {
    "vgg16": Traits(
        erase_at=("pool3", "pool4"),
        non_negative=tuple(f"{kind}{k}" for k in range(1, 6) for kind in ("conv", "pool")),
        strides=(16, 8, 32),
        weights=("IMAGENET1K_V1",),
        local_weights=True,
        head_widths=(1024,),
    ),
    "resnet50": Traits(
        erase_at=("layer2", "layer3"),
        non_negative=("stem", "layer1", "layer2", "layer3", "layer4"),
        strides=(16, 8, 32),
        weights=("IMAGENET1K_V1", "IMAGENET1K_V2"),
        local_weights=True,
    ),
    "inception_v3": Traits(
        erase_at=("Mixed_5d", "Mixed_6a"),
        non_negative=("Conv2d", "maxpool1", "maxpool2", "Mixed"),
        strides=(16, 8, 32),
        weights=("IMAGENET1K_V1",),
        local_weights=True,
        head_widths=(1024,),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
}
_HEADS = ("classifier.", "fc.", "AuxLogits.")  # of what is pretrained, thrown away: any number of classes, or none
_VGG16_POOLS = (4, 9, 16, 23, 30)  # positions of the five poolings in torchvision's `features`
_INCEPTION_STAGES = [
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


def vgg16(weights: str | None, output_stride: int) -> Backbone:
    """VGG16 without batch norm: the last pooling goes at stride 16, pool4 as well at stride 8."""
    features = _load(torchvision.models.vgg16, weights).features
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    start = 0
    for k, pool in enumerate(_VGG16_POOLS, start=1):
        stages[f"conv{k}"] = features[start:pool]
        stages[f"pool{k}"] = features[pool]
        start = pool + 1
    if output_stride < 32:
        del stages["pool5"]
    if output_stride < 16:
        stages["pool4"] = nn.Identity()
    return Backbone("vgg16", stages, 512, TRAITS["vgg16"])


def resnet50(weights: str | None, output_stride: int) -> Backbone:
    """ResNet-50, one stage a bottleneck: layer4 loses its stride at 16, layer3 as well at 8; no dilation."""
    net = _load(torchvision.models.resnet50, weights)
    stages: OrderedDict[str, Any] = OrderedDict()
    stages["stem"] = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for i, block in enumerate(getattr(net, layer)):
            stages[f"{layer}_{i}"] = block
    for layer, largest in (("layer4_0", 16), ("layer3_0", 8)):
        if output_stride <= largest:
            stages[layer].conv2.stride = (1, 1)
            stages[layer].downsample[0].stride = (1, 1)
    return Backbone("resnet50", stages, 2048, TRAITS["resnet50"])


def inception_v3(weights: str | None, output_stride: int) -> Backbone:
    """Inception-v3 cut after Mixed_6e as SPG does: padded stem, Mixed_6a without stride (a pooling instead at 16).

    Its pretrained weights expect inputs of (x - 0.5) / 0.5, which is what its traits give it; the field feeds
    them ImageNet's mean and deviation.
    """
    net = _load(torchvision.models.inception_v3, weights, init_weights=True)
    stages: OrderedDict[str, Any] = OrderedDict((name, getattr(net, name)) for name in _INCEPTION_STAGES)
    if output_stride == 32:
        return Backbone("inception_v3", stages, 2048, TRAITS["inception_v3"])
    for name in ("Mixed_7a", "Mixed_7b", "Mixed_7c"):
        del stages[name]
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3"):
        stages[name].conv.padding = (1, 1)
    for name in ("maxpool1", "maxpool2"):
        stages[name].padding = 1
    reduction = stages["Mixed_6a"]
    reduction.branch3x3.conv.stride = reduction.branch3x3dbl_3.conv.stride = (1, 1)
    reduction.branch3x3.conv.padding = reduction.branch3x3dbl_3.conv.padding = (1, 1)
    stages["Mixed_6a"] = _Reduction(reduction, pool=output_stride == 16)
    return Backbone("inception_v3", stages, 768, TRAITS["inception_v3"])


class _Reduction(nn.Module):
    """Mixed_6a without its stride; with ``pool`` a max pooling before it keeps the 14x14 map."""

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


def _load(factory: Any, weights: str | None, **options: Any) -> Any:
    """A torchvision network, with weights of its enums or of a local file, if any."""
    net = factory(weights=None, **options)
    if weights is None:
        return net
    if LOCAL_WEIGHTS.fullmatch(weights):
        try:
            net.load_state_dict(state_dicts.fitting(read_local(weights), net.state_dict(), _HEADS), strict=False)
        except state_dicts.NotFitting as error:
            raise InputError(f"pretrained weights {weights}: not {factory.__name__}'s: {error}") from None
        return net
    entry = torchvision.models.get_model_weights(factory)[weights]
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    try:
        state = entry.get_state_dict(check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise InputError(
            f"pretrained weights {entry} are not at hand and cannot be fetched ({error}); "
            f"download {entry.url} and put it at {place}"
        ) from None
    net.load_state_dict(state)
    return net
