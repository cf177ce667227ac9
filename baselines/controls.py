"""Controls: maps that learn nothing, in the place of a trained network's own.

What a method is worth shows only beside them. Each takes the network of a study's first method (CAM, as a
rule), whose classification it keeps, so that its Top-1 Loc is what its maps would give with that classifier. A
control is a function of that network, a batch and the true boxes, named in the group ``eil.controls``.

The centre baseline is that of Evaluating Weakly Supervised Object Localization Methods Right, Choe et al.,
CVPR 2020, https://arxiv.org/abs/2001.07437.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from eil.core.files import InputError
from eil.data import Boxes
from eil.data.augment import Batch, uniform
from eil.methods.base import Method


def centred_box(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """Squares around the centre, one inside the other: the threshold, chosen on val, chooses the size.

    Args:
        model: not used.
        batch: of B images of S x S pixels.
        boxes: not used.

    Returns:
        (B, S, S) in [0, 1]: falls from the centre to the border by rings, one pixel wide.
    """
    rows, columns = _from_centre(batch.images)
    return (1 - torch.maximum(rows.abs(), columns.abs())).expand(len(batch.images), -1, -1)


def gaussian(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """An isotropic Gaussian around the centre, its deviation a quarter of the side: (B, S, S) in [0, 1].

    On boxes any deviation comes to the same, and nearly to :func:`centred_box`; masks tell the two apart.
    """
    rows, columns = _from_centre(batch.images)
    return (-(rows**2 + columns**2) / (2 * 0.5**2)).exp().expand(len(batch.images), -1, -1)


def full_image(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The whole image, at every threshold: (B, S, S) in [0, 1]."""
    side = batch.images.shape[2]
    return _with_a_background(torch.ones(len(batch.images), side, side))


def oracle_box(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The first true box, at every threshold: what the protocol's pixels let a perfect map score.

    Args:
        model: not used.
        batch: of B images of S x S pixels.
        boxes: true boxes of each, (K, 4) with inclusive corners.

    Returns:
        (B, S, S) in [0, 1].
    """
    side = batch.images.shape[2]
    maps = torch.zeros(len(boxes), side, side)
    if not all(map(len, boxes)):
        raise InputError("an image without a box: the oracle has nothing to show")
    for score_map, (x0, y0, x1, y1) in zip(maps, (own[0].round().astype(int) for own in boxes), strict=True):
        score_map[y0 : y1 + 1, x0 : x1 + 1] = 1
    return _with_a_background(maps)


def random_class(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The network's map of another class than the true one, drawn for each image: (B, h, w).

    Whatever it scores, the network's maps owe to objects in general, not to the class.
    """
    logits, _ = model.maps(batch.images, batch.labels)
    count = logits.shape[1]
    draws = uniform(0, 0, int(batch.index.max()) + 1, "other_class").to(batch.index.device)[batch.index]  # (B,)
    step = (draws * (count - 1)).long() + 1  # 1 .. C - 1
    return model.maps(batch.images, (batch.labels + step) % count)[1]


def _from_centre(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (S, 1) and columns (1, S) as distances from the centre, -1 to 1 at the outermost pixels."""
    side = torch.linspace(-1, 1, images.shape[2])
    return side[:, None], side[None, :]


def _with_a_background(maps: Tensor) -> Tensor:
    """A map that is 1 everywhere has no contrast: leave its last pixel out, and its box is the whole image still."""
    maps[:, -1, -1] = torch.where(maps.flatten(1).all(dim=1), 0.0, maps[:, -1, -1])
    return maps
