"""The benchmark's checkpoints: its networks from plain torch layers, with its names.

Names follow from the benchmark's lists of layers and from torchvision's names, not from eil.training.key_maps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import reference_networks
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from zero_values import zero_initial_values

from eil.core.run import Run
from eil.methods import base
from eil.methods.base import Method

CLASSES = 5
State = dict[str, Tensor]

# wsolevaluation's lists of layers: so many 3x3 convolutions with ReLU, M a pooling, A a layer of ADL.
VGG_LISTS = {
    ("cam", 16): "2M2M3M3M3",
    ("cam", 8): "2M2M3M33",
    ("acol", 16): "2M2M3M3M3M",
    ("acol", 8): "2M2M3M3M3M",
    ("spg", 16): "2M2M3M",
    ("spg", 8): "2M2M3M",
    ("adl", 16): "2M2M3MA3AM3A",
    ("adl", 8): "2M2M3MA3A3A",
}
CELLS = [
    (backbone, method, stride)
    for backbone in ("vgg16", "resnet50", "inception_v3")
    for method in ("cam", "acol", "spg", "adl")
    for stride in (16, 8)
]


def vgg_names(method: str, stride: int) -> Iterator[str]:
    position = 0
    for each in VGG_LISTS[method, stride]:
        if each.isdigit():
            for _ in range(int(each)):
                yield f"features.{position}"
                position += 2
        else:
            position += 1
    if method == "spg":
        yield from (f"SPG_A_{part}.{k}" for part in (1, 2) for k in (0, 2, 4))


def resnet_name(name: str, method: str) -> str:
    """The reference's name of one of torchvision's tensors."""
    layer, *rest = name.split(".")
    if layer in ("layer3", "layer4"):
        block = int(rest[0])
        if method == "adl":
            moved = {"layer3": [0, 2, 3, 4, 5, 6], "layer4": [0, 2, 3]}[layer][block]
            return ".".join([layer, str(moved), *rest[1:]])
        if method == "spg" and layer == "layer3":
            return ".".join(["SPG_A1" if block == 0 else "SPG_A2", str(max(block - 1, 0)), *rest[1:]])
    return name


def trunk_names(backbone: str, method: str, stride: int) -> list[str]:
    """Names of the tensors of the reference's trunk, in order."""
    if backbone == "vgg16":
        return [f"{layer}.{kind}" for layer in vgg_names(method, stride) for kind in ("weight", "bias")]
    with torch.device("meta"):
        options = {"init_weights": False} if backbone == "inception_v3" else {}
        whole = getattr(torchvision.models, backbone)(weights=None, **options).state_dict()
    others = ("fc.", "AuxLogits.", "Mixed_7")
    return [resnet_name(name, method) for name in whole if not name.startswith(others)]


def heads(backbone: str, method: str) -> dict[str, nn.Module]:
    """Layers beside the trunk by the reference's names."""
    width = {"vgg16": 512, "resnet50": 2048, "inception_v3": 768}[backbone]

    def conv(before: int, after: int, kernel: int = 3) -> nn.Module:
        return nn.Conv2d(before, after, kernel, padding=kernel // 2)

    if method == "acol":
        return {
            f"classifier_{part}.{k}": layer
            for part in "AB"
            for k, layer in ((0, conv(width, 1024)), (2, conv(1024, 1024)), (4, conv(1024, CLASSES, 1)))
        }
    if method in ("cam", "adl"):
        return {
            "vgg16": {"conv6": conv(512, 1024), "fc": nn.Linear(1024, CLASSES)},
            "resnet50": {"fc": nn.Linear(2048, CLASSES)},
            "inception_v3": inception_head(conv),
        }[backbone]
    first = {
        "vgg16": {"SPG_A_3.0": conv(512, 512), "SPG_A_3.2": conv(512, 512), "SPG_A_4": conv(512, CLASSES, 1)},
        "resnet50": {"SPG_A4": conv(2048, CLASSES, 1)},
        "inception_v3": inception_head(conv),
    }[backbone]
    b1, b2, b, c, c_width = {
        "vgg16": (512, 512, 512, 512, 512),
        "resnet50": (1024, 1024, 1024, 2048, 512),
        "inception_v3": (288, 768, 512, 1024, 512),
    }[backbone]
    return first | {
        "SPG_B_1a.0": conv(b1, b),
        "SPG_B_2a.0": conv(b2, b),
        "SPG_B_shared.0": conv(b, b),
        "SPG_B_shared.2": conv(b, 1, 1),
        "SPG_C.0": conv(c, c_width),
        "SPG_C.2": conv(c_width, 1, 1),
    }


def inception_head(conv: Callable[..., nn.Module]) -> dict[str, nn.Module]:
    return {"SPG_A3_1b.0": conv(768, 1024), "SPG_A3_2b.0": conv(1024, 1024), "SPG_A4": conv(1024, CLASSES, 1)}


@dataclass
class Reference:
    """A network of the benchmark: its layers, its state dict, and what it gives for images."""

    trunk: nn.ModuleDict
    layers: dict[str, nn.Module]
    names: list[str]
    average: bool  # ACoL on VGG16 averages neighbours first

    def state(self) -> State:
        values = list(self.trunk.state_dict().values())
        found = dict(zip(self.names, values, strict=True))
        for name, layer in self.layers.items():
            found |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
        return found

    def scores(self, images: Tensor, first: str = "") -> Tensor:
        """Class scores of the classifier whose layers' names begin so, (B, C)."""
        x = list(reference_networks.outputs(self.trunk, images).values())[-1]
        if self.average:
            x = F.avg_pool2d(x, 3, 1, 1)
        for name, layer in self.layers.items():
            if name.startswith(("SPG_B", "SPG_C")) or not name.startswith(first):
                continue
            if isinstance(layer, nn.Linear):
                return layer(x.mean(dim=(2, 3)))
            x = layer(x)
            if x.shape[1] == CLASSES:
                return x.mean(dim=(2, 3))
            x = torch.relu(x)
        raise AssertionError


def reference_of(backbone: str, method: str, stride: int) -> Reference:
    torch.manual_seed(1)
    pools = {"acol": ["acol"], "spg": ["spg"]}.get(method, []) if backbone == "vgg16" else []
    trunk = getattr(reference_networks, backbone)(stride, *pools)
    for name, value in trunk.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    average = (backbone, method) == ("vgg16", "acol")
    return Reference(trunk.eval(), heads(backbone, method), trunk_names(backbone, method, stride), average)


def method_of(run: Run) -> Method:
    """The run's network, whose values are all zero until a checkpoint gives it others."""
    with zero_initial_values():
        return base.build(
            run.method, run.settings, run.backbone, CLASSES, output_stride=run.output_stride, network=run.network
        ).eval()
