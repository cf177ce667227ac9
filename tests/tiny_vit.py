"""A small vision transformer through the contract, for tests: with tokens as they are, or reshaped to a grid."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from eil.backbones import Backbone, BackboneInfo

SIDE, PATCH, WIDTH = 32, 8, 16
CELLS = SIDE // PATCH


class PatchEmbedding(nn.Module):
    """Patches and a class token with learned positions: (B, 3, 32, 32) -> (B, 17, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + CELLS**2, WIDTH) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (B, 16, 16)
        return torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.positions  # (B, 17, 16)


class Tokens(nn.Module):
    """A block on tokens whose output is a grid: (B, 3, H, W) or (B, 16, 4, 4) -> (B, 16, 4, 4), no class token."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == WIDTH:
            x = x.flatten(2).transpose(1, 2)  # (B, 16, 16)
        tokens: Tensor = self.layers(x)[:, -(CELLS**2) :]  # (B, 16, 16)
        return tokens.transpose(1, 2).unflatten(2, (CELLS, CELLS))  # (B, 16, 4, 4)


def block() -> nn.Module:
    """A transformer block: (B, N, 16) -> (B, N, 16)."""
    return nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, batch_first=True, norm_first=True)


def tokens() -> Backbone:
    """Its stages pass on tokens."""
    stages = OrderedDict(embedding=PatchEmbedding(), block1=block(), block2=block())
    info = BackboneInfo(non_negative=(), output_strides=(PATCH,), branch_width=8, example_side=SIDE)
    return Backbone("token_vit", stages, WIDTH, info)


def grid() -> Backbone:
    """Its stages pass on grids; their values can be negative."""
    stages = OrderedDict(embedding=Tokens(PatchEmbedding()), block1=Tokens(block()), block2=Tokens(block()))
    info = BackboneInfo(
        non_negative=(),
        output_strides=(PATCH,),
        eil_stage="block1",
        meil_stages=("embedding", "block1"),
        spg_stages=("block1", "block2"),
        branch_width=8,
        example_side=SIDE,
    )
    return Backbone("grid_vit", stages, WIDTH, info)
