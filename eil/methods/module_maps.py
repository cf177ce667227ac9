"""Class activation maps of a trained network that eil did not build: any ``nn.Module`` that gives logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from eil.core.files import InputError


def module_maps(
    model: nn.Module, layer: str, images: Tensor, classes: Tensor, *, relu: bool = False
) -> tuple[Tensor, Tensor]:
    """Maps of classes at a layer of a network, weighted by gradients (Selvaraju et al., ICCV 2017, equations 1 and 2).

    ``M_c(i, j) = sum_k a_k f_k(i, j)``, where ``a_k`` is the mean over positions of the gradient of class c's logit
    by ``f_k``. If only global average pooling and a linear layer follow, this is CAM (Zhou et al., CVPR 2016) divided
    by the number of positions, which changes no box. The paper's Grad-CAM also sets what is below 0 to 0.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        >>> model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> logits, maps = module_maps(model, "0", torch.rand(5, 3, 8, 8), torch.zeros(5, dtype=torch.int64))
        >>> logits.shape, maps.shape
        (torch.Size([5, 2]), torch.Size([5, 8, 8]))

    Args:
        model: gives logits (B, C) of images; run in evaluation mode, then as it was, modes and hooks too.
        layer: name of the layer whose output is the feature map (B, K, h, w), as ``model.named_modules()`` gives it.
        images: prepared as in the model's training, (B, 3, H, W), on its device.
        classes: class of each wanted map, (B,) int64.
        relu: set what speaks against the class to 0.

    Returns:
        Logits (B, C) and maps (B, h, w), float32, not normalised, without gradient.

    Raises:
        InputError: there is no such layer, it is not used once, its output is no grid, or the model gives no logits.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept.append(_require_grid(output, layer).detach().requires_grad_())  # no gradient is needed below
        return kept[-1].clone()  # a layer that follows may change it in place

    with torch.enable_grad():
        with _evaluating(model), _hooked(_layer(model, layer), keep):
            logits = model(images)
        _require_logits(logits, model)
        class_logits = logits.gather(1, classes[:, None]).sum()
    if len(kept) != 1:
        raise InputError(f"layer {layer}: is used {len(kept)} times in a forward pass, expected once")
    features = kept[0]  # (B, K, h, w)
    (gradient,) = torch.autograd.grad(class_logits, features)
    maps = torch.einsum("bkhw,bk->bhw", features.float(), gradient.float().mean(dim=(2, 3)))  # (B, h, w)
    return logits.detach().float(), (maps.relu() if relu else maps).detach()


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(child for child, _ in model.named_children())
        raise InputError(f"layer {name}: {type(model).__name__} has none of this name; it has {known}") from None


def _require_grid(output: object, layer: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise InputError(f"layer {layer}: expected an output of shape (B, K, h, w), got {_shape(output)}")
    return output


def _require_logits(output: object, model: nn.Module) -> None:
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise InputError(f"{type(model).__name__}: expected logits of shape (B, C), got {_shape(output)}")


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _hooked(module: nn.Module, hook: Callable[[nn.Module, object, Tensor], Tensor]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
