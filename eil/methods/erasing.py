"""Pure functions of EIL and MEIL: the attention map, the erasing mask, and which fraction a mask erases."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from eil.core.settings import SettingError
from eil.methods.base import Losses

GammaMode = Literal["relative", "absolute"]
Attention = Literal["mean", "mean_abs"]


def attention_map(features: Tensor, attention: Attention = "mean") -> Tensor:
    """Mean over channels, of the values ("mean", the paper's) or their magnitudes ("mean_abs", an extension).

    Args:
        features: (B, K, H, W).
        attention: "mean" needs features that are not negative; otherwise values of both signs cancel.

    Returns:
        (B, 1, H, W) float32, no gradient.
    """
    values = features.detach().float()  # not in bf16: rounding would move cells over the threshold
    if attention == "mean_abs":
        values = values.abs()
    return values.mean(dim=1, keepdim=True)  # (B, 1, H, W)


def erasing_mask(features: Tensor, gamma: float, mode: GammaMode = "relative", attention: Attention = "mean") -> Tensor:
    """Where attention stays below the threshold (Mai et al., CVPR 2020, Algorithm 1).

    Args:
        features: unerased feature map, (B, K, H, W).
        gamma: threshold; a share of each image's spatial maximum if ``mode`` is "relative", an activation
            value if "absolute" (the paper's text).
        mode: how ``gamma`` is measured.
        attention: see :func:`attention_map`.

    Returns:
        1 where features are kept, 0 where they are erased, (B, 1, H, W), dtype of ``features``, no gradient.

    Raises:
        SettingError: ``gamma`` outside (0, 1] in relative mode, or not above 0 in absolute mode.
    """
    return below_threshold(attention_map(features, attention), gamma, mode).to(features.dtype)


def below_threshold(attention: Tensor, gamma: float, mode: GammaMode = "relative") -> Tensor:
    """Where an attention map stays below the threshold.

    Args:
        attention: (B, 1, H, W).
        gamma: threshold, as in :func:`erasing_mask`.
        mode: how ``gamma`` is measured.

    Returns:
        True where features are kept, (B, 1, H, W) bool.

    Raises:
        SettingError: as :func:`erasing_mask`.
    """
    check_gamma(gamma, mode)
    threshold = gamma * attention.amax(dim=(2, 3), keepdim=True) if mode == "relative" else gamma
    return attention < threshold


def check_gamma(gamma: float, mode: GammaMode) -> None:
    """Refuse a ``gamma`` out of bounds (SettingError)."""
    if gamma <= 0 or (mode == "relative" and gamma > 1):
        interval = "in (0, 1], a share of the maximum" if mode == "relative" else "above 0"
        raise SettingError("gamma", gamma, f"must be {interval} (gamma_mode: {mode})")


def erased_fractions(mask: Tensor, object_masks: Tensor | None) -> Losses:
    """Which fraction of the feature map, and of the object, is erased.

    Args:
        mask: 1 where features are kept, 0 where they are erased, (B, 1, h, w).
        object_masks: true on the object, (B, 1, H, W) bool, if known.

    Returns:
        ``erased_fraction`` of the cells, () in [0, 1]; with ``object_masks`` also ``object_erased``, of the object's
        area, () in [0, 1].
    """
    fractions = {"erased_fraction": 1 - mask.float().mean()}
    if object_masks is not None:
        area = F.adaptive_avg_pool2d(object_masks.float(), (mask.shape[2], mask.shape[3]))  # (B, 1, h, w)
        fractions["object_erased"] = ((1 - mask.float()) * area).sum() / area.sum().clamp(min=1e-6)
    return fractions
