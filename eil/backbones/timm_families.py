"""Networks of the library timm as named stages, one function for each family that can be cut.

Stages have timm's names with ``_`` for its dots; what comes before the first block is the ``stem``. All stages in turn
are timm's ``forward_features``, bit for bit (tested). What timm does after pooling is left out, since the localization
head pools and classifies: the norm of ConvNeXt's head and of some ViTs, MobileNetV3's last convolution.

A stage is declared non-negative only if its last operation is known to be a ReLU.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from eil.backbones.tokens import TokenBlock, TokenGrid
from eil.core.settings import SettingError

Stages = dict[str, nn.Module]


@dataclass(frozen=True)
class Cut:
    """A network cut into stages.

    Attributes:
        stages: in order.
        non_negative: names of stages that end in a ReLU.
        defaults: default stages of methods, fields of :class:`eil.backbones.BackboneInfo`.
        output_strides: input pixels per cell of the last feature map that can be asked for, the default first.
        prefix_tokens: of a transformer.
        linear_head: whether timm's own head is average pooling and a linear classifier on the last stage, as ours.
    """

    stages: Stages
    non_negative: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    output_strides: tuple[int, ...] = (16, 8, 32)
    prefix_tokens: int | None = None
    linear_head: bool = False


def cut(net: Any) -> Cut:
    """The stages of a network of timm, which is taken apart.

    Raises:
        TypeError: a family that cannot be cut; the message lists those that can.
    """
    for family, function in _families().items():
        if isinstance(net, family):
            return function(net)
    known = ", ".join(family.__name__ for family in _families())
    raise TypeError(f"is a {type(net).__name__}, which cannot be cut into stages; expected a {known}")


def _families() -> dict[type[nn.Module], Callable[[Any], Cut]]:
    from timm.models import convnext, efficientnet, mobilenetv3, regnet, resnet, vision_transformer

    return {
        resnet.ResNet: _resnet,
        regnet.RegNet: _regnet,
        convnext.ConvNeXt: _convnext,
        efficientnet.EfficientNet: _efficientnet,
        mobilenetv3.MobileNetV3: _mobilenetv3,
        vision_transformer.VisionTransformer: _vision_transformer,
    }


def _resnet(net: Any) -> Cut:
    stages: Stages = {"stem": nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)}
    for level in ("layer1", "layer2", "layer3", "layer4"):
        stages |= {f"{level}_{i}": block for i, block in enumerate(getattr(net, level))}
    last = {name: getattr(stage, "act3", getattr(stage, "act2", None)) for name, stage in stages.items()}
    last["stem"] = net.act1
    return _of_levels(stages, last, ("layer1", "layer2", "layer3", "layer4"), "{level}_0")


def _regnet(net: Any) -> Cut:
    stages: Stages = {"stem": net.stem}
    for level in ("s1", "s2", "s3", "s4"):
        stages |= {f"{level}_{name}": block for name, block in getattr(net, level).named_children()}
    last = {name: getattr(stage, "act3", None) for name, stage in stages.items()}
    last["stem"] = _activation_of(net.stem.bn)
    if not isinstance(net.final_conv, nn.Identity):
        stages["final_conv"], last["final_conv"] = net.final_conv, None
    return _of_levels(stages, last, ("s1", "s2", "s3", "s4"), "{level}_b1")


def _of_levels(stages: Stages, last: dict[str, Any], levels: tuple[str, ...], first: str) -> Cut:
    """A network of four levels, with the default stages of :mod:`eil.backbones.networks.resnet50`."""
    rectified = tuple(name for name, activation in last.items() if _is_rectified(activation))
    defaults: dict[str, Any] = {"spg_stages": levels[1:3]}
    if len(rectified) == len(stages):
        adl_stages = (first.format(level=levels[2]), first.format(level=levels[3]), list(stages)[-1])
        defaults |= {"eil_stage": levels[2], "meil_stages": levels[1:3], "adl_stages": tuple(dict.fromkeys(adl_stages))}
    return Cut(stages, rectified, defaults, linear_head="final_conv" not in stages)


def _convnext(net: Any) -> Cut:
    stages: Stages = {"stem": net.stem}
    for i, level in enumerate(net.stages):
        first, *others = level.blocks
        stages[f"stages_{i}_0"] = nn.Sequential(level.downsample, first)
        stages |= {f"stages_{i}_{j}": block for j, block in enumerate(others, start=1)}
    if not isinstance(net.norm_pre, nn.Identity):
        stages["norm_pre"] = net.norm_pre
    return Cut(stages, defaults={"spg_stages": ("stages_1", "stages_2")})


def _efficientnet(net: Any) -> Cut:
    stages = _mobile(net) | {"conv_head": nn.Sequential(net.conv_head, net.bn2)}
    rectified = tuple(
        name for name, norm in (("stem", net.bn1), ("conv_head", net.bn2)) if _is_rectified(_activation_of(norm))
    )
    defaults: dict[str, Any] = {"spg_stages": _last_two(net)}
    if "conv_head" in rectified:  # as in eil.backbones.networks.efficientnet_lite0
        defaults |= {"eil_stage": "conv_head", "meil_stages": ("conv_head",), "adl_stages": ("conv_head",)}
    return Cut(stages, rectified, defaults, linear_head=True)


def _mobilenetv3(net: Any) -> Cut:
    rectified = ("stem",) if _is_rectified(_activation_of(net.bn1)) else ()
    defaults = {"spg_stages": _last_two(net)}
    return Cut(_mobile(net), rectified, defaults, output_strides=(32,))  # timm offers no other for this family


def _mobile(net: Any) -> Stages:
    blocks = {f"blocks_{i}_{j}": block for i, level in enumerate(net.blocks) for j, block in enumerate(level)}
    return {"stem": nn.Sequential(net.conv_stem, net.bn1), **blocks}


def _last_two(net: Any) -> tuple[str, ...]:
    """Where the map has a 16th and a 32nd of the input's side, about two thirds of the way and near the end."""
    return tuple(level["module"].replace(".", "_") for level in net.feature_info[-2:])


def _vision_transformer(net: Any) -> Cut:
    """Patches and positions, then each block, then the last normalisation, whose output is the patches' grid."""
    blocks, norm, prefix = list(net.blocks), net.norm, net.num_prefix_tokens
    # Without its later parts, timm's own forward_features is the embedding, whatever kinds of tokens it adds.
    for name in ("blocks", "norm", "fc_norm", "head_drop", "head", "head_dist", "attn_pool"):
        if isinstance(getattr(net, name, None), nn.Module):
            setattr(net, name, nn.Identity())
    stages: Stages = {"patch_embed": PatchEmbedding(net)}
    stages |= {f"blocks_{i}": TokenBlock(block, _attention_of(net, block)) for i, block in enumerate(blocks)}
    stages["norm"] = TokenGrid(norm, prefix)
    return Cut(stages, output_strides=(net.patch_embed.patch_size[0],), prefix_tokens=prefix)


def _attention_of(net: Any, block: nn.Module) -> Callable[[nn.Module, Tensor, Tensor], Tensor] | None:
    """How to compute the class token's attention; None for kinds of blocks that do it otherwise."""
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block

    known = type(block) is Block and type(block.attn) is Attention
    return class_attention if known and net.cls_token is not None else None


def class_attention(block: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """What the class token attends to in a block of timm; its fused kernels keep no attention, so this is done again.

    Args:
        block: with ``norm1`` and ``attn``, timm's Attention.
        tokens: the class token first, (B, N, C).
        mask: added to the scores, (B, 1, 1, N).

    Returns:
        (B, N), mean over heads; each row sums to 1.
    """
    attention, (batch, count, _) = block.attn, tokens.shape
    qkv = attention.qkv(block.norm1(tokens)).reshape(batch, count, 3, attention.num_heads, -1)
    query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, C / heads) each
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    scores = (query * attention.scale) @ key.transpose(2, 3) + mask  # (B, heads, 1, N)
    row: Tensor = scores.softmax(dim=3).mean(dim=1)[:, 0]  # (B, N)
    return row


class PatchEmbedding(nn.Module):
    """Patches with positions, after the prefix tokens: (B, 3, H, W) -> (B, P + h w, C).

    Args:
        net: a VisionTransformer of timm without blocks and norm.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Embed the patches.

        Raises:
            SettingError: the images' side is not a multiple of the patches'.
        """
        side, patch = images.shape[3], self.net.patch_embed.patch_size[0]
        if side % patch:
            raise SettingError("crop", side, f"must be a multiple of {patch}, the side of the transformer's patches")
        tokens: Tensor = self.net.forward_features(images)
        return tokens


def _activation_of(norm: Any) -> nn.Module | None:
    """The activation within timm's norm layers."""
    return getattr(norm, "act", None)


def _is_rectified(activation: nn.Module | None) -> bool:
    return isinstance(activation, nn.ReLU | nn.ReLU6)
