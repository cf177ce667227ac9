"""Where the cells of a method's map look: centres of receptive fields, measured from gradients.

Maps are usually drawn by half-pixel resizing, as if cell n looked at the middle of the n-th share of the image. With
padded convolutions and poolings it looks elsewhere: at stride 16 cell n of resnet50 looks at pixel 16 n and is drawn at
16 n + 7.5.

What is measured is the geometry alone. All weights of a copy of the network are positive and equal, and maximum pooling
is replaced by average pooling, so that the gradient of a cell with respect to the input is its receptive field, each
pixel weighted by the paths that lead to it (the theoretical field of Luo et al., NeurIPS 2016). A trained network can
weigh these paths unequally.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from eil.core.cell_grid import CellGrid
from eil.methods.base import Method

Maps = Callable[[Method, Tensor], Tensor]  # a method and images (B, 3, H, W) -> maps (B, h, w)
# Cells along the measured image. With 32 the borders clip inception_v3's fields, and the result is off by 0.4 pixels.
_CELLS = 48
_ACROSS = 3  # cells of the short side
_PERIOD = 64  # pixels; the padding of "same" repeats with the product of all strides, a power of two up to 64
_GREY = 1e-6  # small enough that no ReLU6 saturates, however many blocks add their input


class Unlocated(Exception):
    """Where a map's cells look cannot be measured; the message says why."""


class _AveragePooling(TorchFunctionMode):
    """Replace maximum pooling: on a constant image its gradient would go to the first pixel of each window."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or average pooling in place of ``max_pool2d``."""
        if func is F.max_pool2d:
            return _average(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _average(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **rest: Any) -> Tensor:
    return F.avg_pool2d(x, kernel_size, stride, padding, bool(rest.get("ceil_mode", False)))


def with_equal_weights(model: Method) -> Method:
    """A copy on the CPU, in evaluation mode, whose layers average their input.

    Weights of two or more dimensions become 1 / fan-in, factors 1, biases 0; batch norm passes on its input.
    """
    equal = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    for name, parameter in equal.named_parameters():
        if parameter.ndim > 1:
            parameter.fill_(1 / parameter[0].numel())
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for name, buffer in equal.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("running_var")))
    return equal


def of_class_zero(model: Method, images: Tensor) -> Tensor:
    """The method's own maps, (B, 3, H, W) -> (B, h, w)."""
    return model.maps(images, torch.zeros(len(images), dtype=torch.int64))[1]


def locate_cells(model: Method, side: int, maps: Maps = of_class_zero) -> CellGrid:
    """Measure where the cells of a method's maps look, to a tenth of a pixel.

    It is measured through the maps, so that heads, branches and fused maps count. Maps that an image's minimum and
    maximum scale are located as well: only differences of two cells are used, and where the image is constant scaling
    multiplies these by a number. For cells whose fields differ by a shift, ``sum(x**2 g) / sum(x g) / 2`` of the
    gradient g of the difference is the middle between the two centres.

    Args:
        model: any; it is not changed.
        side: S of the network's square input. "Same" padding depends on it.
        maps: what makes the maps (default: the method).

    Raises:
        Unlocated: the maps have no gradient, or the network takes no image of another size.
    """
    equal = with_equal_weights(model)
    image = _constant(side, side)
    with torch.enable_grad(), _AveragePooling():
        found = maps(equal, image)
        if not found.requires_grad:
            if found.shape[1:] == image.shape[2:]:  # drawn in the image's own pixels, as most controls
                return CellGrid((0.0, 0.0), (1.0, 1.0))
            raise Unlocated("its maps have no gradient with respect to the image")
        pairs = [_along(equal, maps, side, found.shape[1 + axis], axis) for axis in (0, 1)]
    if not all(map(math.isfinite, (*pairs[0], *pairs[1]))) or min(pair[1] for pair in pairs) <= 0:
        raise Unlocated("its maps do not vary with the image from cell to cell")
    (y, rows), (x, columns) = ((round(origin, 1) + 0.0, round(stride, 1)) for origin, stride in pairs)  # no -0.0
    return CellGrid((y, x), (rows, columns))


def _constant(height: int, width: int) -> Tensor:
    return torch.full((1, 3, height, width), _GREY).requires_grad_()


def _along(model: Method, maps: Maps, side: int, cells: int, axis: int) -> tuple[float, float]:
    """Origin and stride along an axis, on a strip that is long enough for whole receptive fields."""
    stride = max(1, round(side / cells))
    length = side + _PERIOD * max(0, math.ceil((_CELLS * stride - side) / _PERIOD))
    image = _constant(*((length, _ACROSS * stride) if axis == 0 else (_ACROSS * stride, length)))
    try:
        found = maps(model, image)[0]
    except (RuntimeError, ValueError, AssertionError) as error:  # what a network says to a size that it cannot take
        reason = str(error).strip().partition("\n")[0]
        raise Unlocated(f"its network takes no image of {image.shape[2]} x {image.shape[3]} pixels: {reason}") from None
    line = found.select(1 - axis, found.shape[1 - axis] // 2)  # (cells,)
    first = len(line) // 2 - 1
    middles = [_middle(line[k + 1] - line[k], image, axis) for k in (first, first + 1)]
    between = middles[1] - middles[0]
    return middles[0] - between * (first + 0.5), between


def _middle(difference: Tensor, image: Tensor, axis: int) -> float:
    """Pixel in the middle between the receptive fields of two cells, from the gradient of their difference."""
    (gradient,) = torch.autograd.grad(difference, image, retain_graph=True)
    along = gradient.double().sum(dim=(0, 1, 3 - axis))  # (length,)
    half = (len(along) - 1) / 2
    x = torch.arange(len(along), dtype=torch.float64) - half
    return float((along * x**2).sum() / (along * x).sum() / 2) + half
