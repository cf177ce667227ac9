"""The contract of a method.

A method is how a network is trained and how it makes a map. It takes any backbone; its settings are the
keyword-only arguments of its constructor, typed, with the paper's values as defaults. A third party's
package joins by an entry point in the group ``eil.methods``; ``baselines/`` is merely the first to do so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eil import backbones
from eil.backbones import Backbone
from eil.core import registry
from eil.core.run import Pretrained
from eil.methods.head import CamHead

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Targets:
    """What a batch of images is trained towards.

    Attributes:
        labels: (B,) int64.
        masks: where the object is, (B, 1, H, W) bool, if the data set knows. For logging only: a method that
            learns from it is not weakly supervised.
    """

    labels: Tensor
    masks: Tensor | None = None


class Method(nn.Module):
    """A weakly supervised localizer: a backbone, a head, and a way to train them.

    A subclass overrides :meth:`loss`, and the others where it differs from CAM.

    Args:
        backbone: where features come from.
        num_classes: C.
        widths: channels of the head's convolutions (default: the backbone's, see its traits).
    """

    def __init__(self, backbone: Backbone, num_classes: int, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = CamHead(
            backbone.out_channels, num_classes, backbone.traits.head_widths if widths is None else widths
        )

    def augment(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Change a training batch on the device, after cropping and normalisation; default: leave it.

        Args:
            images: (B, 3, H, W), normalised, so that 0 is the mean colour.
            targets: of the batch.
        """
        return images, targets

    def loss(self, images: Tensor, targets: Targets) -> Parts:
        """The training loss, (B, 3, H, W) -> {"total": (), …}; every part is a scalar and is logged.

        "total" is minimised, the others explain it. "top1", by convention, is the share classified right.
        """
        raise NotImplementedError

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the score maps of the given classes.

        Args:
            images: (B, 3, H, W), normalised.
            classes: whose map is wanted, (B,) int64.

        Returns:
            Logits (B, C) and maps (B, h, w), not normalised.
        """
        features = self.head.features(self.backbone(images))
        return self.head.classify(features), self.head.maps(features, classes)

    def views(self, images: Tensor, classes: Tensor) -> Parts:
        """Further maps worth a look in a figure, name -> (B, h, w); default: none."""
        return {}


def build(
    method: str,
    settings: Mapping[str, Any],
    backbone: str,
    num_classes: int,
    *,
    pretrained: Pretrained = False,
    output_stride: int | None = None,
    seed: int = 0,
) -> Method:
    """A method on a backbone with initial weights that depend on the seed, not on the method.

    Raises:
        SettingError: a setting that the method or the backbone cannot use.
    """
    cls: type[Method] = registry.load(registry.METHODS, method)
    torch.manual_seed(seed)
    return cls(backbones.build(backbone, pretrained, output_stride), num_classes, **settings)


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of a batch whose largest logit is the label's, (B, C), (B,) -> ()."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()
