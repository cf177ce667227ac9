"""BAS: Background Activation Suppression, a generator learns the mask that leaves the background nothing of the class.

Background Activation Suppression for Weakly Supervised Object Localization, Wu, Zhai & Cao, CVPR 2022,
https://arxiv.org/abs/2112.00580. Of the features x of a middle stage, a 3x3 convolution with a sigmoid makes a
foreground map G for each class; M = G_y is that of the label. The rest of the network, "tail", gives class maps P that
are not negative, and scores s, their means:

    s = mean of P,  P = tail(x)             s- = tail with constant weights, of stopgrad(x) * (1 - M)
    L_bas = s-_y / stopgrad(s_y), 0 where s-_y >= s_y          s+ = mean of P * M (M pooled to P's cells)
    L = CE(s, y) + a CE(s+, y) + L_bas + b mean(M)

L_bas teaches the generator and what it reads, the tail nothing. The map is G of the class, or the mean of G over the N
classes that are predicted first; with N = C it does not depend on the class. The authors chose N and the threshold for
each network and data set, without a val split in their release, and on VGG16 they picked the seed for the result, as
one of them says in their repository's issue 3: their scores are maxima, not means. Here the threshold comes from val,
and seeds from the study. Defaults are theirs for ResNet-50 on CUB, with the map of the class (N = 1 on ILSVRC). New
layers start from Xavier's values, as theirs on ResNet-50 (N(0, 0.02) on VGG16): from small ones, the ReLU of a class
map can die before it learns.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.backbones.base import HeadInit
from eil.core.settings import IncompatibleSetting
from eil.methods.base import Losses, Method, Targets, top1
from eil.methods.head import CamHead, initialise, of_class
from eil.methods.streams import forward_frozen

Weight = Annotated[float, Field(ge=0)]


def suppression(background: Tensor, scores: Tensor) -> Tensor:
    """Share of the class's score that the background alone still gets, mean over images.

    Args:
        background: score of the label without the foreground, (B,), not negative; gradients pass.
        scores: of the label, (B,), not negative; no gradient passes.

    Returns:
        A scalar in [0, 1). An image whose background scores no less than the whole counts 0, and teaches nothing.
    """
    scores = scores.detach()
    ratio = background / (scores + 1e-8)
    return torch.where(background >= scores, 0, ratio).mean()


class ClassMapHead(CamHead):
    """A head whose class maps end in a ReLU before they are pooled, so that no score is negative."""

    def class_maps(self, features: Tensor) -> Tensor:
        """P, (B, K, H, W) -> (B, C, H, W)."""
        return F.conv2d(features, self.classifier.weight[:, :, None, None], self.classifier.bias).relu()

    def classify(self, features: Tensor) -> Tensor:
        """Mean of each class map, (B, K, H, W) -> (B, C)."""
        return self.class_maps(features).mean(dim=(2, 3))

    def maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """Class maps of ``classes``, (B, K, H, W) -> (B, H, W)."""
        return of_class(self.class_maps(features), classes).float()


class BAS(Method):
    """Background Activation Suppression.

    Args:
        backbone: any with a default stage for BAS, or with ``at`` given.
        num_classes: C.
        at: stage whose features the generator reads (default: the backbone's; conv4 on VGG16, layer3 on ResNet-50).
        pool: whether a 2x2 max-pooling follows the stage. With the output stride of 8 this is the authors' ResNet-50,
            whose layer3 has 28x28 cells and layer4 14x14.
        foreground_weight: a.
        area_weight: b.
        top: N, the number of predicted classes whose maps are averaged in testing, at most C; None for the map of the
            class that is asked for.

    Raises:
        SettingError: a stage that the backbone lacks, or no default stage.
        IncompatibleSetting: a transformer, features of the stage that are not a grid, or another head in the network's
            options.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        at: str | None = None,
        pool: bool = False,
        foreground_weight: Weight = 0.5,
        area_weight: Weight = 1.2,
        top: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        backbone.require_convolutional()
        super().__init__(backbone, num_classes, (backbone.info.branch_width,) * 2)
        self.at = backbone.stages_or_default(at, backbone.info.bas_stage)
        self.pool, self.foreground_weight, self.area_weight, self.top = pool, foreground_weight, area_weight, top
        self.generator = nn.Conv2d(backbone.channels(self.at), num_classes, 3, padding=1)
        initialise(self.generator, self.init)

    def new_head(self, widths: Sequence[int]) -> ClassMapHead:
        """The head with class maps that are not negative; a ratio of signed scores would mean nothing."""
        info = self.backbone.info
        if info.head != "cam":
            raise IncompatibleSetting(f"head: {info.head} does not go with BAS, which has a head of its own")
        return ClassMapHead(self.backbone.out_channels, self.num_classes, widths, info.head_dropout, self.init)

    @property
    def init(self) -> HeadInit:
        """Initial values of new layers: Xavier's, unless the network's options name others."""
        found = self.backbone.info.head_init
        return "xavier" if found == "own" else found

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """The four terms, (B, 3, H, W) -> scalars, logged before their weight."""
        x = self.backbone.forward_stages(images, stop=self.at)  # (B, K, h, w)
        mask = of_class(self.foreground(x), targets.labels)[:, None]  # M, (B, 1, h, w)
        class_maps = self.class_maps(x)  # P, (B, C, h', w')
        scores = class_maps.mean(dim=(2, 3)).float()  # s
        background = forward_frozen(self, self.scores, x.detach() * (1 - mask).to(x.dtype))  # s-, (B, C)
        pooled = F.adaptive_avg_pool2d(mask, (class_maps.shape[2], class_maps.shape[3]))  # (B, 1, h', w')
        foreground = (class_maps.float() * pooled).mean(dim=(2, 3))  # s+, (B, C)
        terms = {
            "classification": F.cross_entropy(scores, targets.labels),
            "foreground": F.cross_entropy(foreground, targets.labels),
            "suppression": suppression(*(of_class(each.float(), targets.labels) for each in (background, scores))),
            "area": mask.mean(),
        }
        weights = (1, self.foreground_weight, 1, self.area_weight)
        total = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True))
        return {"total": total, **terms, "top1": top1(scores, targets.labels)}  # type: ignore[dict-item]  # of tensors

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, C), and foreground maps (B, h, w) in (0, 1), at the middle stage's size."""
        x = self.backbone.forward_stages(images, stop=self.at)
        scores, every = self.scores(x), self.foreground(x)
        shown = classes[:, None] if self.top is None else scores.topk(min(self.top, self.num_classes), dim=1).indices
        return scores, torch.stack([of_class(every, each) for each in shown.unbind(1)]).mean(dim=0)  # (B, h, w)

    def extra_maps(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The class map P of the class, (B, h', w')."""
        x = self.backbone.forward_stages(images, stop=self.at)
        return {"class map": of_class(self.class_maps(x), classes).float()}

    def foreground(self, x: Tensor) -> Tensor:
        """G, (B, K, h, w) -> (B, C, h, w) float32."""
        found: Tensor = self.generator(x)
        return found.float().sigmoid()

    def class_maps(self, x: Tensor) -> Tensor:
        """P, the rest of the network: (B, K, h, w) -> (B, C, h', w')."""
        x = F.max_pool2d(x, 2) if self.pool else x
        head: ClassMapHead = self.head  # type: ignore[assignment]  # of new_head
        return head.class_maps(head.features(self.backbone.forward_stages(x, start=self.at)))

    def scores(self, x: Tensor) -> Tensor:
        """s, (B, K, h, w) -> (B, C)."""
        return self.class_maps(x).mean(dim=(2, 3))
