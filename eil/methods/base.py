"""The contract of a method.

A method is how a network is trained and how it makes a map. It takes any backbone; its settings are the
keyword-only arguments of its constructor, typed, with the paper's values as defaults. Another package registers
its methods in the entry point group ``eil.methods``, as ``baselines/`` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eil import backbones
from eil.backbones import Backbone
from eil.backbones.base import HeadKind
from eil.core import registry
from eil.core.run import Pretrained
from eil.core.settings import IncompatibleSetting
from eil.methods.head import CamHead
from eil.methods.heads import HEADS

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Targets:
    """Labels of a training batch.

    Attributes:
        labels: (B,) int64.
        masks: true on the object, (B, 1, H, W) bool, if the data set has masks. For logging only: a method that
            learns from them is not weakly supervised.
    """

    labels: Tensor
    masks: Tensor | None = None


class Method(nn.Module):
    """A weakly supervised localizer: a backbone, a head, and a way to train them.

    A subclass overrides :meth:`loss`, and the others where it differs from CAM.

    Args:
        backbone: where features come from.
        num_classes: C.
        widths: channels of the head's convolutions (default: ``head_widths`` of the backbone's info).
        head: see :mod:`eil.methods.heads` (default: ``head`` of the backbone's info).

    Raises:
        SettingError: a pretrained classifier was kept that does not fit.
        IncompatibleSetting: the backbone's last feature map is not a (B, C, h, w) grid.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        widths: Sequence[int] | None = None,
        head: HeadKind | None = None,
    ) -> None:
        super().__init__()
        backbone.require_grid()
        self.backbone = backbone
        self.head_kind = head or backbone.info.head
        self.num_classes = num_classes
        self.head = self.new_head(backbone.info.head_widths if widths is None else widths)
        if backbone.classifier is not None:
            self.head.start_from(backbone.classifier)

    def new_head(self, widths: Sequence[int]) -> CamHead:
        """A head on the backbone's last feature map, as the network's options have it.

        Raises:
            IncompatibleSetting: ``head: tap`` on features that can be negative.
        """
        info, last = self.backbone.info, self.backbone.names[-1]
        if self.head_kind == "tap" and not widths and not self.backbone.is_non_negative(last):
            raise IncompatibleSetting(f"head: tap needs features that are not negative; those of {last} can be")
        cls = HEADS[self.head_kind]
        return cls(self.backbone.out_channels, self.num_classes, widths, info.head_dropout, info.head_init)

    def classifier_parameters(self) -> list[nn.Parameter]:
        """Parameters of the layers that give class scores, for ``multipliers: {classifier: …}`` of a recipe.

        A method with several classifiers adds theirs.
        """
        return list(self.head.classifier.parameters())

    def augment(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Change a training batch on the device, after cropping and normalisation; default: no change.

        Args:
            images: (B, 3, H, W), normalised, so that 0 is the mean colour.
            targets: labels of the batch.

        Returns:
            Images (B, 3, H, W) and their targets.
        """
        return images, targets

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Training calls this before each epoch, also when it is resumed; default: nothing.

        A loss that changes during training follows it. Until it is called, the loss has all of its terms: timings and
        tests measure those.

        Args:
            epoch: number of finished epochs, 0 at the start.
            epochs: of the whole training, as the recipe plans them.
        """

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """The training loss and its terms, (B, 3, H, W) -> {"total": (), …}; each is a scalar and is logged.

        "total" is minimised, the others explain it. "top1", by convention, is the training accuracy.
        """
        raise NotImplementedError

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the score maps of the given classes.

        Args:
            images: (B, 3, H, W), normalised.
            classes: class of each wanted map, (B,) int64.

        Returns:
            Logits (B, C) and maps (B, h, w), not normalised.
        """
        features = self.head.features(self.backbone(images))
        return self.head.classify(features), self.head.maps(features, classes)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Further maps for figures, name -> (B, h, w); arguments as of :meth:`maps`; default: none."""
        return {}


def build(
    method: str,
    settings: Mapping[str, Any],
    backbone: str,
    num_classes: int,
    *,
    pretrained: Pretrained = False,
    output_stride: int | None = None,
    network: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Method:
    """A method on a backbone. The backbone's initial weights depend on the seed, not on the method.

    Raises:
        SettingError: a setting that the method or the backbone cannot use.
        IncompatibleSetting: settings that make no sense on this backbone.
    """
    cls: type[Method] = registry.load(registry.METHODS, method)
    torch.manual_seed(seed)
    return cls(backbones.build(backbone, pretrained, output_stride, network), num_classes, **settings)


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Training accuracy: share of images whose largest logit is the label's, (B, C), (B,) -> ()."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()
