"""Tokens of a vision transformer as a grid, and stages that leave erased patches out.

A patch is erased by a key mask: in every later block no token attends to it, so that all others are as if it had been
dropped. To multiply it by 0 would not do: layer normalisation turns 0 into its bias, which is attended to like any
other token. In between blocks an erased patch is a token of zeros, which no patch is by itself; so erased tokens stay
erased through any number of stages. Prefix tokens (class, distillation, registers) are never erased.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# Added to the attention scores of erased keys: exp gives 0, and the number has the same value in float32 and bfloat16.
# Minus infinity would give NaN where nothing is kept.
_ABSENT = torch.finfo(torch.bfloat16).min


def grid_of(tokens: Tensor, prefix: int) -> Tensor:
    """The patch tokens of a square image as a grid, (B, P + h w, C) -> (B, C, h, w).

    Args:
        tokens: prefix tokens first, then the patches row by row.
        prefix: P.
    """
    side = math.isqrt(tokens.shape[1] - prefix)
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, side, side)  # (B, C, h, w)


def erased_tokens(tokens: Tensor, mask: Tensor, prefix: int) -> Tensor:
    """Tokens with the erased patches set to 0.

    Args:
        tokens: (B, P + h w, C).
        mask: 1 where patches are kept, else 0, (B, 1, h, w).
        prefix: P, tokens that are kept.

    Returns:
        (B, P + h w, C).
    """
    factor = mask.flatten(2).transpose(1, 2)  # (B, h w, 1)
    return tokens * torch.cat([factor.new_ones(len(factor), prefix, 1), factor], dim=1)


def kept_tokens(tokens: Tensor) -> Tensor:
    """Whether a token has not been erased, (B, N, C) -> (B, N) bool."""
    return (tokens.detach() != 0).any(dim=2)


def key_mask(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores so that no token attends to an erased one, (B, N) bool -> (B, 1, 1, N)."""
    return torch.zeros_like(kept, dtype=dtype).masked_fill(~kept, _ABSENT)[:, None, None]


class TokenStage(nn.Module):
    """A stage that can leave erased tokens out."""

    def forward(self, tokens: Tensor, erased: bool = False) -> Tensor:
        """Run the stage.

        Args:
            tokens: (B, N, C).
            erased: whether tokens of zeros are erased ones; False is quicker where there are none.

        Returns:
            (B, N, C), or a grid (B, C, h, w); 0 where erased.
        """
        raise NotImplementedError


class TokenBlock(TokenStage):
    """A transformer block, (B, N, C) -> (B, N, C).

    Args:
        block: takes tokens and ``attn_mask``, which is added to the attention scores, (B, 1, 1, N).
        attention: of a block, its tokens and such a mask: what the class token, the first one, pays to each token, mean
            over heads, (B, N); None where there is no class token, or none of that kind.
    """

    def __init__(
        self, block: nn.Module, attention: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, tokens: Tensor, erased: bool = False) -> Tensor:
        """Run the block; erased tokens are no keys, and stay 0."""
        if not erased:
            return self.block(tokens)
        kept = kept_tokens(tokens)  # (B, N)
        return self.block(tokens, attn_mask=key_mask(kept, tokens.dtype)) * kept[..., None]

    def class_attention(self, tokens: Tensor) -> Tensor:
        """Attention that the class token pays to each token in this block; 0 to erased ones.

        Args:
            tokens: (B, N, C).

        Returns:
            (B, N), mean over heads; each row sums to 1.

        Raises:
            TypeError: the block has no class token's attention.
        """
        if self.attention is None:
            raise TypeError("this block has no class token's attention")
        return self.attention(self.block, tokens, key_mask(kept_tokens(tokens), tokens.dtype))


class TokenGrid(TokenStage):
    """The last normalisation, and the patches as a grid: (B, P + h w, C) -> (B, C, h, w).

    Args:
        norm: of single tokens.
        prefix: P.
    """

    def __init__(self, norm: nn.Module, prefix: int) -> None:
        super().__init__()
        self.norm, self.prefix = norm, prefix

    def forward(self, tokens: Tensor, erased: bool = False) -> Tensor:
        """Normalise; erased patches stay 0, so that the mean over all cells counts them as nothing."""
        features = self.norm(tokens)
        if erased:
            features = features * kept_tokens(tokens)[..., None]
        return grid_of(features, self.prefix)
