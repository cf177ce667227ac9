"""DA-WSOL: domain adaptation between what the classifier was trained on, pooled features, and single cells.

Weakly Supervised Object Localization as Domain Adaption, Zhu et al., CVPR 2022, https://arxiv.org/abs/2203.01714. A
classifier learns from pooled features z and is applied to the cells f(u). For each image the cells are clustered into
three (k-means, started from the running mean of all universum centres, from z, and from the running mean of the class's
source centres): 0 the universum, which holds nothing of the class, 1 cells like z, 2 the others, the target. With n
samples of source (z and cells of 1) and n of target (cells of 2) for each image that has so many,

    L_d = linear-time MMD of source and target, 5 Gaussian kernels whose widths double, mean over these images
    L_u = mean of |f| over the universum's cells
    L = CE + beta L_d + upsilon L_u,  the last two after a warm-up

The map is CAM's. Defaults are those of the authors' script for ResNet-50 on CUB. They use the last checkpoint; their
thresholds are the best on test, and on ILSVRC their Top-1 Loc has a threshold of its own. What differs here: the images
of a batch start their clusters from the means before the batch, in their code each from those after the last image;
k-means runs for at most 10 rounds, on the device; and L_u takes magnitudes, as the mean of signed features has no lower
bound (an extension; the same where no feature is negative). The means are buffers, so that a resumed training goes on
with them. During the warm-up nothing is clustered, and no mean is kept.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from eil.backbones import Backbone
from eil.methods.base import Losses, Method, Targets, top1

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
UNIVERSUM, SOURCE, TARGET = 0, 1, 2
ROUNDS = 10  # of Lloyd's iteration
TERMS = ("domain", "universum", "kept")


def clusters(cells: Tensor, starts: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """K-means of each image by itself (Lloyd's iteration), without a gradient.

    Args:
        cells: (B, N, K).
        starts: centres to start from, (B, 3, K).
        rounds: at most; an empty cluster keeps its centre.

    Returns:
        The cluster of each cell, (B, N) int64, and the centres, (B, 3, K).
    """
    centres = starts
    with torch.no_grad():
        for _ in range(rounds):
            member = F.one_hot(torch.cdist(cells, centres).argmin(dim=2), starts.shape[1]).to(cells.dtype)  # (B, N, 3)
            count = member.sum(dim=1)[..., None]  # (B, 3, 1)
            means = torch.einsum("bnc,bnk->bck", member, cells) / count.clamp(min=1)
            centres = torch.where(count > 0, means, centres)
        return torch.cdist(cells, centres).argmin(dim=2), centres


def discrepancy(source: Tensor, target: Tensor, kernels: int = 5) -> Tensor:
    """Linear-time maximum mean discrepancy of n source and n target samples of each image, (B, n, K) each -> (B,).

    Sample i is compared with sample i + 1, the last one with the first. The widths of the Gaussian kernels are 1/4,
    1/2, 1, 2 and 4 times the mean squared distance of all 2n samples, through which no gradient passes.
    """
    every = torch.cat([source, target], dim=1)  # (B, 2n, K)
    count = every.shape[1]
    width = (torch.cdist(every, every).detach() ** 2).sum(dim=(1, 2)) / (count * (count - 1))  # (B,)
    widths = width[:, None] * 2.0 ** (torch.arange(kernels, device=width.device) - kernels // 2)  # (B, 5)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a - b).square().sum(dim=2)  # (B, n)
        return torch.exp(-distance[..., None] / widths[:, None].clamp(min=1e-12)).sum(dim=2)

    source2, target2 = source.roll(-1, dims=1), target.roll(-1, dims=1)
    pairs = kernel(source, source2) + kernel(target, target2) - kernel(source, target2) - kernel(source2, target)
    return pairs.mean(dim=1)


def sampled(cells: Tensor, member: Tensor, draws: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Samples of each image's cells, without replacement.

    Args:
        cells: (B, N, K).
        member: which cells may be drawn, (B, N) bool.
        draws: uniform in [0, 1), (B, N); the lowest are taken.
        count: n.

    Returns:
        (B, min(n, N), K), and whether the image has so many, (B,) bool; the samples of one that has not mean nothing.
    """
    lowest = torch.where(member, draws, 2.0).topk(min(count, cells.shape[1]), dim=1, largest=False).indices
    return cells.gather(1, lowest[..., None].expand(-1, -1, cells.shape[2])), member.sum(dim=1) >= count


class DAWSOL(Method):
    """Domain adaptation by maximum mean discrepancy.

    Args:
        backbone: any.
        num_classes: C.
        domain_weight: beta.
        universum_weight: upsilon.
        samples: n, of source and of target in each image.
        warmup: share of the training's epochs without L_d and L_u (the authors' 1 of 50 epochs on ResNet-50).
    """

    universum: Tensor
    universum_count: Tensor
    sources: Tensor
    source_counts: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        domain_weight: Weight = 0.3,
        universum_weight: Weight = 2.0,
        samples: Annotated[int, Field(ge=2)] = 32,
        warmup: Share = 0.02,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.weights = {"domain": domain_weight, "universum": universum_weight}
        self.samples, self.warmup, self.adapted = samples, warmup, True
        width = self.head.classifier.in_features
        self.register_buffer("universum", torch.zeros(width))  # running mean over images
        self.register_buffer("universum_count", torch.zeros(()))
        self.register_buffer("sources", torch.zeros(num_classes, width))  # running mean over the images of each class
        self.register_buffer("source_counts", torch.zeros(num_classes))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """L_d and L_u count after the warm-up."""
        self.adapted = epoch >= self.warmup * epochs

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """The three terms, (B, 3, H, W) -> scalars, and "kept", the share of images with enough samples."""
        features = self.head.features(self.backbone(images))  # (B, K, h, w)
        logits = self.head.classify(features).float()
        classification = F.cross_entropy(logits, targets.labels)
        nothing = dict.fromkeys(TERMS, logits.new_zeros(()))
        terms = self.after_clustering(features, targets.labels) if self.adapted else nothing
        total = classification + sum(weight * terms[name] for name, weight in self.weights.items())
        named = {"total": total, "classification": classification, **terms}
        return named | {"top1": top1(logits, targets.labels)}

    def after_clustering(self, features: Tensor, labels: Tensor) -> Losses:
        """Cluster the cells, remember the centres, and find the terms; (B, K, h, w), (B,) -> scalars."""
        cells = features.float().flatten(2).transpose(1, 2)  # (B, N, K)
        pooled = cells.mean(dim=1)  # z, (B, K)
        member, centres = clusters(cells.detach(), self.starts(pooled.detach(), labels))
        self.remember(centres, pooled.detach(), labels)
        return self.adaptation(cells, pooled, member)

    def adaptation(self, cells: Tensor, pooled: Tensor, member: Tensor) -> Losses:
        """L_d, L_u, and the share of images with enough samples; (B, N, K), (B, K), (B, N) -> scalars."""
        source, enough_source = sampled(cells, member == SOURCE, _uniform(member), self.samples - 1)
        target, enough_target = sampled(cells, member == TARGET, _uniform(member), self.samples)
        kept = enough_source & enough_target  # (B,)
        source = torch.cat([pooled[:, None], source], dim=1)[:, : target.shape[1]]
        apart = torch.where(kept, discrepancy(source, target), 0).sum() / kept.sum().clamp(min=1)
        nothing = (member == UNIVERSUM)[..., None]  # (B, N, 1)
        magnitude = (cells.abs() * nothing).sum() / (nothing.sum() * cells.shape[2]).clamp(min=1)
        return dict(zip(TERMS, (apart, magnitude, kept.float().mean()), strict=True))

    def starts(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Centres to start from, (B, K), (B,) -> (B, 3, K); a class that was never seen starts from z."""
        seen = self.source_counts[labels][:, None] > 0
        class_centres = torch.where(seen, self.sources[labels], pooled)
        return torch.stack([self.universum.expand_as(pooled), pooled, class_centres], dim=1)

    @torch.no_grad()
    def remember(self, centres: Tensor, pooled: Tensor, labels: Tensor) -> None:
        """Add a batch to the running means; z counts once as the first source of a class."""
        one = F.one_hot(labels, self.num_classes).to(centres.dtype)  # (B, C)
        new = (self.source_counts == 0) & (one.sum(dim=0) > 0)  # (C,)
        firsts = one.argmax(dim=0)  # of each class, the first image of the batch
        self.sources.copy_(torch.where(new[:, None], pooled[firsts], self.sources))
        self.source_counts += new
        counts = self.source_counts + one.sum(dim=0)
        added = one.T @ centres[:, SOURCE] - one.sum(dim=0)[:, None] * self.sources
        self.sources += added / counts.clamp(min=1)[:, None]
        self.source_counts.copy_(counts)
        self.universum_count += len(labels)
        self.universum += (centres[:, UNIVERSUM] - self.universum).sum(dim=0) / self.universum_count


def _uniform(like: Tensor) -> Tensor:
    return torch.rand(like.shape, device=like.device)
