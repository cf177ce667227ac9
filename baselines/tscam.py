"""TS-CAM: what the class token attends to, times the patches' map of the class.

TS-CAM: Token Semantic Coupled Attention Map for Weakly Supervised Object Localization, Gao et al., ICCV 2021,
https://arxiv.org/abs/2103.14862. It runs on a vision transformer with a class token. A 3x3 convolution makes semantic
maps of the patches' last tokens t, and alone is trained to classify:

    S = conv(t), (C, h, w)          s = mean of S over the patches          L = CE(s, y)
    a(u) = sum over the blocks of the mean over heads of A[class token, u],  A after the softmax
    M_y = a * S_y                   signed, nothing is cut off

The attention of all blocks is read, also that of the last one, whose row of the class token no loss reaches directly.
No settings. The authors' recipe is AdamW at 5e-5 on CUB and 5e-4 on ILSVRC, with drop-path 0.1 and weight decay 0.05
(``preset: paper``, for DeiT-S). They cut the map at a fixed 0.10 on CUB and 0.12 on ILSVRC, of which they do not say
where it comes from, and kept the checkpoint with the best GT-known Loc on the test set. Here the threshold comes from
val, and the last checkpoint counts. The convolution begins with torch's own draw, as theirs: what they call to
initialise it leaves convolutions out. Their variant on Conformer, which adds the logits of a convolutional branch, is
not here.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from baselines.cam import CAM
from eil.backbones import Backbone
from eil.backbones.base import HeadInit
from eil.backbones.class_attention import forward_with_attention, require_class_attention
from eil.core.settings import IncompatibleSetting, SettingError
from eil.methods.head import CamHead, initialise, of_class


class SemanticHead(CamHead):
    """A 3x3 convolution to class maps, which are pooled. Arguments: see :class:`~eil.methods.head.CamHead`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
        init: HeadInit = "own",
    ) -> None:
        super().__init__(in_channels, num_classes, widths, dropout, init)
        convolution = nn.Conv2d(self.classifier.in_features, num_classes, 3, padding=1)
        if init != "own":
            initialise(convolution, init)
        self.classifier = convolution  # type: ignore[assignment]  # its place, so that recipes know it as the classifier

    def start_from(self, pretrained: nn.Linear) -> None:
        """Refuse a pretrained classifier.

        Raises:
            SettingError: always.
        """
        raise SettingError("keep_classifier", True, "does not go with TS-CAM, whose class layer is a 3x3 convolution")

    def class_maps(self, features: Tensor) -> Tensor:
        """S, (B, K, H, W) -> (B, C, H, W) float32."""
        found: Tensor = self.classifier(features)
        return found.float()

    def classify(self, features: Tensor) -> Tensor:
        """Mean of each class map, (B, K, H, W) -> (B, C)."""
        return self.class_maps(features).mean(dim=(2, 3))

    def maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """Class maps of ``classes``, (B, K, H, W) -> (B, H, W)."""
        return of_class(self.class_maps(features), classes)


class TSCAM(CAM):
    """Token semantic coupled attention map.

    Args:
        backbone: a vision transformer that tells what its class token attends to in every block.
        num_classes: C.

    Raises:
        IncompatibleSetting: the backbone is none, or the network's options name another head.
        SettingError: the network's options keep the pretrained classifier.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        require_class_attention(backbone)
        super().__init__(backbone, num_classes)

    def new_head(self, widths: Sequence[int]) -> SemanticHead:
        """The head with a 3x3 convolution to class maps."""
        info = self.backbone.info
        if info.head != "cam":
            raise IncompatibleSetting(f"head: {info.head} does not go with {type(self).__name__}, which has its own")
        return SemanticHead(self.backbone.out_channels, self.num_classes, widths, info.head_dropout, info.head_init)

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits s (B, C) and maps a * S_y (B, h, w)."""
        semantics, attention = self.semantics_and_attention(images)
        return semantics.mean(dim=(2, 3)), attention * of_class(semantics, classes)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The attention a and the semantic map S_y, (B, h, w) each."""
        semantics, attention = self.semantics_and_attention(images)
        return {"attention": attention, "semantic map": of_class(semantics, classes)}

    def semantics_and_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """S (B, C, h, w) and a (B, h, w) of images (B, 3, H, W), float32; gradients pass."""
        features, attention = forward_with_attention(self.backbone, images)
        head: SemanticHead = self.head  # type: ignore[assignment]  # of new_head
        return head.class_maps(head.features(features)), attention.float().sum(dim=1)
