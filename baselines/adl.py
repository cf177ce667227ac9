"""ADL: Attention-based Dropout Layer, at several stages of the network.

Attention-based Dropout Layer for Weakly Supervised Object Localization, Choe & Shim, CVPR 2019,
https://arxiv.org/abs/1908.10028. From the channel mean A of a feature map F come a drop mask, 0 where A is
above gamma times its maximum, and an importance map, sigmoid(A). In training one of the two, drawn at random,
multiplies F (section 3); in testing the layer does nothing. The drop mask hides the most discriminative part,
the importance map keeps the classification up. Paper: drop rate 0.75, gamma 0.8 on VGG and 0.9 on ResNet50-SE.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.cam import CAM
from eil.backbones import Backbone
from eil.core.settings import IncompatibleSetting, SettingError

Coin = Literal["batch", "image"]


def attention_dropout(features: Tensor, gamma: float, dropped: Tensor) -> Tensor:
    """Multiply features by their drop mask or their importance map.

    Args:
        features: (B, K, H, W), not negative.
        gamma: share of each image's spatial maximum from which cells are dropped.
        dropped: whether the drop mask is chosen, (B, 1, 1, 1) or (1, 1, 1, 1) bool.

    Returns:
        (B, K, H, W). The importance map passes gradients, the drop mask has none.
    """
    product: Tensor = _Product.apply(features, gamma, dropped)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """The layer with its own backward pass, which reads the features half as often as autograd's."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, gamma: float, dropped: Tensor) -> Tensor:
        attention = features.float().mean(dim=1, keepdim=True)  # (B, 1, H, W)
        drop_mask = attention < gamma * attention.amax(dim=(2, 3), keepdim=True)
        importance = attention.sigmoid()
        factor = torch.where(dropped, drop_mask.to(attention.dtype), importance).to(features.dtype)
        # Derivative of the factor by one channel: 0 for the drop mask, that of the sigmoid of the mean otherwise.
        slope = torch.where(dropped, 0, importance * (1 - importance) / features.shape[1])
        ctx.save_for_backward(features, factor, slope)
        return features * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, factor, slope = ctx.saved_tensors
        (gradient,) = gradients
        through_factor = slope * (gradient * features).sum(dim=1, keepdim=True, dtype=slope.dtype)  # (B, 1, H, W)
        return torch.addcmul(through_factor.to(gradient.dtype), gradient, factor), None, None


class ADL(CAM):
    """CAM with attention-based dropout in training.

    Args:
        backbone: any with default ADL stages, or with ``at`` given.
        num_classes: C.
        at: stages after which the layer is inserted, in any order (default: the backbone's). ``head_k`` is the k-th
            convolution of the head, after its ReLU.
        gamma: threshold of the drop mask, a share of the maximum.
        drop_rate: probability of the drop mask rather than the importance map.
        coin: one draw for all images of a "batch", as in the authors' code, or one for each "image".

    Raises:
        SettingError: no such stage or convolution of the head, or no default stages.
        IncompatibleSetting: a transformer, or a stage whose features are not a grid, or can be negative, so that
            their mean is no attention map.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        at: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
        gamma: Annotated[float, Field(gt=0, le=1)] = 0.8,
        drop_rate: Annotated[float, Field(ge=0, le=1)] = 0.75,
        coin: Coin = "batch",
    ) -> None:
        super().__init__(backbone, num_classes)
        if backbone.info.prefix_tokens is not None:
            raise IncompatibleSetting(
                f"{backbone.name} is a transformer: the layer multiplies features by a map, which the next layer "
                "normalisation undoes; eil and meil leave tokens out instead"
            )
        stages = backbone.stages_or_default(at, backbone.info.adl_stages)
        convolutions = [f"head_{k}" for k in range(1, len(self.head.conv) + 1)]
        in_head = [stage for stage in stages if stage in convolutions and stage not in backbone.names]
        in_backbone = [stage for stage in stages if stage not in in_head]
        for stage in in_backbone:
            try:
                backbone.index(stage)
            except SettingError as error:
                others = (
                    f", or of its head: {', '.join(convolutions)}" if convolutions else "; its head has no convolutions"
                )
                raise SettingError("at", stage, error.expected + others) from None
            backbone.require_grid(stage)
            backbone.require_attention(stage)
        self.at = tuple(sorted(in_backbone, key=backbone.index))
        self.at_head = tuple(sorted(convolutions.index(stage) for stage in in_head))
        self.gamma, self.drop_rate, self.coin = gamma, drop_rate, coin

    def features(self, images: Tensor) -> Tensor:
        """The backbone with the layer inserted, (B, 3, H, W) -> (B, K, h, w); in testing without it."""
        if not self.training:
            return self.backbone(images)
        x, start = images, None
        for stage in self.at:
            x = self.drop(self.backbone.forward_stages(x, start, stage))
            start = stage
        return self.backbone.forward_stages(x, start)

    def head_features(self, images: Tensor) -> Tensor:
        """The head's features with the layer inserted, (B, 3, H, W) -> (B, K, h, w); in testing without it."""
        x = self.features(images)
        if not self.training:
            return self.head.features(x)
        for k, convolution in enumerate(self.head.conv):
            x = convolution(self.head.drop(x))
            x = self.drop(x) if k in self.at_head else x
        return self.head.drop(x)

    def drop(self, features: Tensor) -> Tensor:
        """The layer, with its draw: (B, K, h, w) -> (B, K, h, w)."""
        coins = torch.rand(len(features) if self.coin == "image" else 1, 1, 1, 1, device=features.device)
        return attention_dropout(features, self.gamma, coins < self.drop_rate)
