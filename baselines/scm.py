"""SCM: in training the class token's attention spreads to neighbours that look alike, and comes back into the scores.

Weakly Supervised Object Localization via Transformer with Implicit Spatial Calibration, Bai et al., ECCV 2022,
https://arxiv.org/abs/2207.10447. On top of TS-CAM, whose semantic maps are S and whose attention is a, training passes
4 layers, each with two learned numbers, lambda and theta. With x = S and q = mm(a) at first, mm the min-max scaling,
E the cosines between the cells' class vectors x(u), Lap the Laplacian of the grid of 4 neighbours:

    D  = inverse of Lap * (lambda E - 1),  by a few steps of Newton and Schulz's iteration
    q' = mm(tanhshrink(D q / (theta max q)))            tanhshrink(z) = z - tanh(z)
    x <- x + x * q',   q <- q + q'
    L  = CE(mean of the last x over the cells, y)       its gradient reaches the attention of all blocks

In testing the layers are gone: s = mean of S, and M_y = mm(a) * S_y. So the scores of training and of testing are not
one function, and ``top1`` of the log is that of training. With lambda = 1, where it starts, the matrix has a diagonal
of zeros. It is symmetric, so that their transposition of D does nothing. Here the grid can have any size (14x14 in
their code), and a constant q or D q counts as 0 everywhere, where theirs divides by 0.

The authors' recipe is AdamW at 5e-5 on CUB and 1e-6 on ILSVRC (``preset: paper``, for DeiT-S on CUB). By default their
code keeps the checkpoint that is best on the test set, and reports the best of 100 thresholds on it, so that their 96.6
GT-known Loc on CUB cannot be compared with TS-CAM's 87.7 at a fixed threshold. A user of their code reports 2 to 4
points less. Here the threshold comes from val. Uncertain: another copy of their repository has 4 steps of the iteration
in all layers, and takes the semantics after two layers for the map.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.tscam import TSCAM
from eil.backbones import Backbone
from eil.methods.base import Losses, Targets, top1
from eil.methods.head import min_max, of_class
from eil.methods.precision import without_autocast

START = 0.002  # of the transposed matrix, where Newton and Schulz's iteration begins
Steps = Annotated[int, Field(ge=1)]


def laplacian(height: int, width: int) -> Tensor:
    """Number of neighbours on the diagonal, -1 between neighbours above, below, left and right: (H W, H W)."""
    cells = torch.arange(height * width)
    rows, columns = cells // width, cells % width
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    adjacent = (distance == 1).float()
    return adjacent.sum(dim=1).diag() - adjacent


def approximate_inverse(matrix: Tensor, steps: int) -> Tensor:
    """Newton and Schulz's iteration V <- V (2 I - M V), from a small multiple of the transposed matrix.

    Args:
        matrix: M, (B, N, N).
        steps: how many; the fewer, the nearer the result stays to a multiple of the transposed matrix. Where it begins
            no gradient passes, as in the authors' code.

    Returns:
        (B, N, N).
    """
    inverse = START * matrix.detach().mT
    for _ in range(steps):
        inverse = 2 * inverse - inverse @ matrix @ inverse
    return inverse


def scaled(values: Tensor) -> Tensor:
    """Each row from 0 to 1, (B, N) -> (B, N); a constant row becomes 0, without a gradient."""
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    varies = high > low
    return torch.where(varies, (values - low) / (high - low).where(varies, 1), 0)


def diffuse(semantics: Tensor, attention: Tensor, rate: Tensor, threshold: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """One layer: attention spreads, and raises the semantics where it went.

    Args:
        semantics: x, (B, C, H, W) float32.
        attention: q, (B, H W) float32.
        rate: lambda, a scalar.
        threshold: theta, a scalar.
        steps: of :func:`approximate_inverse`.

    Returns:
        The new x and q.
    """
    height, width = semantics.shape[2:]
    directions = F.normalize(semantics.flatten(2), dim=1, eps=1e-6)  # (B, C, N)
    cosines = directions.mT @ directions  # E, (B, N, N)
    edges = laplacian(height, width).to(semantics.device) * (rate * cosines - 1)
    spread = (approximate_inverse(edges, steps) @ attention[..., None])[..., 0]  # D q, (B, N)
    highest = attention.amax(dim=1, keepdim=True).clamp(min=1e-6)
    gained = scaled(F.tanhshrink(spread / (threshold * highest)))  # q'
    return semantics * (1 + gained.view(-1, 1, height, width)), attention + gained


class SCM(TSCAM):
    """Spatial calibration of TS-CAM in training.

    Args:
        backbone: as for :class:`~baselines.tscam.TSCAM`.
        num_classes: C.
        layers: how many.
        first_steps: of the iteration in the first layer.
        steps: in the other layers.

    Raises:
        IncompatibleSetting: as TS-CAM.
        SettingError: as TS-CAM.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, layers: Steps = 4, first_steps: Steps = 16, steps: Steps = 4
    ) -> None:
        super().__init__(backbone, num_classes)
        self.steps = (first_steps, *[steps] * (layers - 1))
        self.rates = nn.Parameter(torch.ones(layers))  # lambda
        self.thresholds = nn.Parameter(torch.full((layers,), 0.5))  # theta

    def loss(self, images: Tensor, targets: Targets) -> Losses:
        """Cross-entropy of the calibrated scores, (B, 3, H, W) -> {"total": (), "top1": ()}."""
        semantics, attention = self.semantics_and_attention(images)
        with without_autocast(images.device):  # the iteration is not for bf16
            q = scaled(attention.flatten(1))
            for rate, threshold, steps in zip(self.rates, self.thresholds, self.steps, strict=True):
                semantics, q = diffuse(semantics, q, rate, threshold, steps)
        scores = semantics.mean(dim=(2, 3))  # (B, C)
        return {"total": F.cross_entropy(scores, targets.labels), "top1": top1(scores, targets.labels)}

    def maps(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) without the layers, and maps mm(a) * S_y (B, h, w)."""
        semantics, attention = self.semantics_and_attention(images)
        return semantics.mean(dim=(2, 3)), min_max(attention) * of_class(semantics, classes)
