"""Controls: maps that are not learnt, as a reference for the methods' maps.

Each control uses the trained network of a study's first method (usually CAM) for the classification, so that its
Top-1 Loc is that of its maps with this classifier. A control is a function of that network, a batch and the true
boxes, registered in the entry point group ``eil.controls``.

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
    """Nested squares around the centre: the threshold, chosen on val, selects the size.

    Args:
        model: not used.
        batch: of B images of S x S pixels.
        boxes: not used.

    Returns:
        (B, S, S) in [0, 1]: decreases from the centre to the border in steps of one pixel.
    """
    rows, columns = _from_centre(batch.images)
    return (1 - torch.maximum(rows.abs(), columns.abs())).expand(len(batch.images), -1, -1)


def gaussian(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """An isotropic Gaussian around the centre; its standard deviation is a quarter of the side: (B, S, S) in [0, 1].

    With boxes any deviation scores the same, and nearly as :func:`centred_box`; with masks the two differ.
    """
    rows, columns = _from_centre(batch.images)
    return (-(rows**2 + columns**2) / (2 * 0.5**2)).exp().expand(len(batch.images), -1, -1)


def full_image(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The whole image, at every threshold: (B, S, S) in [0, 1]."""
    side = batch.images.shape[2]
    return _with_background(torch.ones(len(batch.images), side, side))


def oracle_box(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The first true box, at every threshold: the score of a perfect map under the protocol.

    Args:
        model: not used.
        batch: of B images of S x S pixels.
        boxes: true boxes of each in the S x S frame, (K, 4) with inclusive corners.

    Returns:
        (B, S, S) in [0, 1].

    Raises:
        InputError: an image has no box.
    """
    side = batch.images.shape[2]
    maps = torch.zeros(len(boxes), side, side)
    if not all(map(len, boxes)):
        raise InputError("oracle_box: an image has no box; expected at least one per image")
    for score_map, (x0, y0, x1, y1) in zip(maps, (each[0].round().astype(int) for each in boxes), strict=True):
        score_map[y0 : y1 + 1, x0 : x1 + 1] = 1
    return _with_background(maps)


def random_class(model: Method, batch: Batch, boxes: Sequence[Boxes]) -> Tensor:
    """The network's map of a wrong class, drawn at random for each image: (B, h, w).

    Its score comes from objects in general, not from the class.
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


def _with_background(maps: Tensor) -> Tensor:
    """Set the last pixel of constant maps to 0: they need contrast, and their box is still the whole image."""
    maps[:, -1, -1] = torch.where(maps.flatten(1).all(dim=1), 0.0, maps[:, -1, -1])
    return maps
