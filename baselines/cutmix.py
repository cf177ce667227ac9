"""CutMix: a rectangle of each training image is replaced by another image's, and the labels are mixed by area.

CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, Yun et al., ICCV 2019,
https://arxiv.org/abs/1905.04899. With lambda ~ Beta(beta, beta) and a rectangle of area share 1 - lambda
around a uniformly drawn centre (equations 1 and 2),

    x = M * x_A + (1 - M) * x_B,    L = lambda CE(x, y_A) + (1 - lambda) CE(x, y_B)

where lambda is computed again after the rectangle has been clipped at the border. One rectangle and one
permutation a batch, as in the authors' code. Their settings: beta 1, probability 1 on ImageNet, 0.5 on CIFAR. Their
code and the wsolevaluation benchmark's cut from the centre - side // 2 to the centre + side // 2 (``cut="even"``).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.methods.base import Losses, Method, Targets, top1

Cut = Literal["full", "even"]


@dataclass(frozen=True)
class Mixed(Targets):
    """Targets of a mixed batch: ``others`` are the pasted images' labels, (B,); ``kept`` is lambda, ()."""

    others: Tensor | None = None
    kept: Tensor | None = None


def rectangle(height: int, width: int, share: Tensor, centre: Tensor, cut: Cut = "full") -> Tensor:
    """The pixels of a rectangle with the image's proportions, clipped at the border.

    Args:
        height: of the image.
        width: of the image.
        share: of the image's area, 1 - lambda, ().
        centre: as shares of height and width, (2,).
        cut: "full" sides, or "even" ones, where an odd side is one pixel shorter.

    Returns:
        (H, W) bool. All on the device, without synchronisation.
    """
    rows = torch.arange(height, device=share.device)
    columns = torch.arange(width, device=share.device)
    cut_height, cut_width = (height * share.sqrt()).floor(), (width * share.sqrt()).floor()
    half_height, half_width = (cut_height / 2).floor(), (cut_width / 2).floor()
    if cut == "even":
        cut_height, cut_width = 2 * half_height, 2 * half_width
    top = (centre[0] * height).floor() - half_height
    left = (centre[1] * width).floor() - half_width
    inside_rows = (rows >= top) & (rows < top + cut_height)
    inside_columns = (columns >= left) & (columns < left + cut_width)
    return inside_rows[:, None] & inside_columns[None, :]


class CutMix(Method):
    """CAM on mixed images.

    Args:
        backbone: any.
        num_classes: C.
        beta: both parameters of the Beta distribution that lambda is drawn from.
        probability: that a batch is mixed.
        cut: "full" rectangles, or "even" ones: an odd side is one pixel shorter, as in the authors' code.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        beta: Annotated[float, Field(gt=0)] = 1.0,
        probability: Annotated[float, Field(ge=0, le=1)] = 1.0,
        cut: Cut = "full",
    ) -> None:
        super().__init__(backbone, num_classes)
        self.beta, self.probability, self.cut = beta, probability, cut

    def augment(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Paste one rectangle from a permutation of the batch, (B, 3, H, W) -> (B, 3, H, W)."""
        height, width = images.shape[2:]
        beta = torch.full((), self.beta, device=images.device)
        kept = torch.distributions.Beta(beta, beta, validate_args=False).sample()  # validation would synchronise
        pasted = rectangle(height, width, 1 - kept, torch.rand(2, device=images.device), self.cut)
        pasted = pasted & (torch.rand((), device=images.device) < self.probability)
        partner = torch.randperm(len(images), device=images.device)
        # One mask value per pixel and channel, in the images' memory layout: broadcasting takes twice as long.
        everywhere = torch.empty_like(images[:1], dtype=torch.bool).copy_(pasted)
        mixed = torch.where(everywhere, images[partner], images)
        return mixed, Mixed(targets.labels, None, targets.labels[partner], 1 - pasted.float().mean())

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """Cross-entropy with both labels by area, (B, 3, H, W) -> scalars; "top1" counts likewise."""
        logits = self.head(self.backbone(images)).float()  # (B, C)
        total, correct = F.cross_entropy(logits, targets.labels), top1(logits, targets.labels)
        if not isinstance(targets, Mixed) or targets.others is None or targets.kept is None:
            return {"total": total, "top1": correct}
        kept = targets.kept
        total = kept * total + (1 - kept) * F.cross_entropy(logits, targets.others)
        correct = kept * correct + (1 - kept) * top1(logits, targets.others)
        return {"total": total, "top1": correct, "kept": kept}
