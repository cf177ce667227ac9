"""The benchmark's trunks from plain torch layers, to compare our networks with.

Written from the description of wsolevaluation's networks, independently of eil's and torchvision's modules. A trunk is
a dictionary of stages, in order and with eil's names; :func:`outputs` runs it. A method's layers are left to its test.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Pools = Literal["2x2", "acol", "spg"]


def vgg16(stride: int, pools: Pools = "2x2") -> nn.ModuleDict:
    """VGG16 up to the last ReLU, for a stride of 16 or 8; with ``pools`` "acol" up to its pool5."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    before = 3
    for k, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        stages[f"conv{k}"] = nn.Sequential(*layers)
        if pools == "acol":
            stages[f"pool{k}"] = nn.MaxPool2d(3, 2 if k < 4 or (k == 4 and stride == 16) else 1, 1)
        elif k < 4:
            stages[f"pool{k}"] = nn.MaxPool2d(2, 2)
        elif k == 4 and stride == 16:
            stages["pool4"] = nn.MaxPool2d(3, 2, 1) if pools == "spg" else nn.MaxPool2d(2, 2)
    return nn.ModuleDict(stages)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        after = 4 * width
        self.main = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        shortcut = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)] if project else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


def resnet50(stride: int) -> nn.ModuleDict:
    """ResNet-50 (v1.5) for a stride of 16 or 8."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    stages["stem"] = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    )
    before = 64
    strides = (1, 2, 2 if stride == 16 else 1, 1)
    for k, (count, width, first) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strides, strict=True), start=1):
        for i in range(count):
            stages[f"layer{k}_{i}"] = _Bottleneck(before, width, first if i == 0 else 1, i == 0)
            before = 4 * width
    return nn.ModuleDict(stages)


def _unit(before: int, after: int, kernel: int | tuple[int, int], padding: int | tuple[int, int] = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=padding, bias=False), nn.BatchNorm2d(after, eps=1e-3), nn.ReLU()
    )


class _Mixed(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _mixed_5(before: int, pooled: int) -> _Mixed:
    return _Mixed(
        _unit(before, 64, 1),
        nn.Sequential(_unit(before, 48, 1), _unit(48, 64, 5, 2)),
        nn.Sequential(_unit(before, 64, 1), _unit(64, 96, 3, 1), _unit(96, 96, 3, 1)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _unit(before, pooled, 1)),
    )


def _mixed_6a() -> _Mixed:
    return _Mixed(
        _unit(288, 384, 3, 1),
        nn.Sequential(_unit(288, 64, 1), _unit(64, 96, 3, 1), _unit(96, 96, 3, 1)),
        nn.MaxPool2d(3, 1, 1),
    )


def _mixed_6(width: int) -> _Mixed:
    row, column = ((1, 7), (0, 3)), ((7, 1), (3, 0))
    return _Mixed(
        _unit(768, 192, 1),
        nn.Sequential(_unit(768, width, 1), _unit(width, width, *row), _unit(width, 192, *column)),
        nn.Sequential(
            _unit(768, width, 1),
            _unit(width, width, *column),
            _unit(width, width, *row),
            _unit(width, width, *column),
            _unit(width, 192, *row),
        ),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _unit(768, 192, 1)),
    )


def inception_v3(stride: int) -> nn.ModuleDict:
    """Inception-v3 up to Mixed_6e for a stride of 16 or 8, with the benchmark's stem."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    first = _unit(3, 32, 3, 1)
    first[0] = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
    stages["Conv2d_1a_3x3"] = first
    stages["Conv2d_2a_3x3"] = _unit(32, 32, 3)
    stages["Conv2d_2b_3x3"] = _unit(32, 64, 3, 1)
    stages["maxpool1"] = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    stages["Conv2d_3b_1x1"] = _unit(64, 80, 1)
    stages["Conv2d_4a_3x3"] = _unit(80, 192, 3)
    stages["maxpool2"] = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    stages["Mixed_5b"], stages["Mixed_5c"], stages["Mixed_5d"] = _mixed_5(192, 32), _mixed_5(256, 64), _mixed_5(288, 64)
    if stride == 16:
        stages["maxpool3"] = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    stages["Mixed_6a"] = _mixed_6a()
    for name, width in zip("bcde", (128, 160, 160, 192), strict=True):
        stages[f"Mixed_6{name}"] = _mixed_6(width)
    return nn.ModuleDict(stages)


def outputs(
    trunk: nn.ModuleDict, images: Tensor, after: Mapping[str, nn.Module] | None = None
) -> OrderedDict[str, Tensor]:
    """The output of each stage, in order.

    Args:
        trunk: of this module.
        images: (B, 3, H, W).
        after: layers that stand behind a stage, by its name; the stage's output is then theirs.
    """
    found: OrderedDict[str, Tensor] = OrderedDict()
    x = images
    for name, stage in trunk.items():
        x = stage(x)
        if after and name in after:
            x = after[name](x)
        found[name] = x
    return found


def pairs(ours: Sequence[nn.Module], theirs: Sequence[nn.Module]) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Parameters that stand for each other: the nth of ours and the nth of theirs.

    A linear layer stands for a convolution of 1x1.
    """
    first, second = ([p for module in modules for p in module.parameters()] for modules in (ours, theirs))
    for a, b in zip(first, second, strict=True):
        assert a.numel() == b.numel() and a.shape[:2] == b.shape[:2], (a.shape, b.shape)
    return list(zip(first, second, strict=True))


def share_weights(ours: Sequence[nn.Module], theirs: Sequence[nn.Module]) -> None:
    """Give their modules the values of ours, which have them in the same order; running statistics too."""
    with torch.no_grad():
        for a, b in pairs(ours, theirs):
            b.copy_(a.reshape(b.shape))
        first, second = ([x for module in modules for x in module.buffers()] for modules in (ours, theirs))
        for mean, same in zip(first, second, strict=True):
            same.copy_(mean)
