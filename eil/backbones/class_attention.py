"""What the class token attends to in every block of a transformer, for methods whose map or loss reads it."""

import torch
from torch import Tensor

from eil.backbones.base import Backbone
from eil.backbones.tokens import TokenBlock, grid_of
from eil.core.settings import IncompatibleSetting


def require_class_attention(backbone: Backbone) -> None:
    """Refuse a network that does not tell what a class token attends to in every block.

    Raises:
        IncompatibleSetting: the message says what is missing.
    """
    blocks = {name: stage for name, stage in backbone.stages.items() if isinstance(stage, TokenBlock)}
    without = [name for name, block in blocks.items() if block.attention is None]
    if blocks and not without:
        return
    missing = f"has none in {', '.join(without)}" if blocks else "has no transformer blocks"
    raise IncompatibleSetting(
        f"needs what a class token attends to in every block, and {backbone.name} {missing}: expected a vision "
        "transformer with a class token, such as timm/deit_small_patch16_224.fb_in1k"
    )


def forward_with_attention(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """All stages, and what the class token attends to in each block.

    The attention is computed beside each block, since fused kernels keep none: a second projection to queries and keys.

    Args:
        backbone: see :func:`require_class_attention`.
        images: (B, 3, H, W).

    Returns:
        The last features, (B, C, h, w), equal to ``backbone(images)``; and the attention that the class token pays to
        each patch in each of L blocks, after the softmax and before any dropout, mean over heads, (B, L, h, w).
        Gradients pass through both.
    """
    x, rows = images, []
    for stage in backbone.stages.values():
        if isinstance(stage, TokenBlock):
            rows.append(stage.class_attention(x))  # (B, P + h w)
        x = stage(x)
    return x, grid_of(torch.stack(rows, dim=2), backbone.info.prefix_tokens or 0)
