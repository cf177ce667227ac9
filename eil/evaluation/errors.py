"""What kind of error a box is, and how it depends on the object's size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from eil.data import Boxes
from eil.evaluation.boxes import area, intersection, iou
from eil.evaluation.score_rows import Named

KINDS = ("correct", "cls", "multi_instance", "part", "more", "other")
SIZES = (0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100)  # percent of the image; the sides grow evenly
SIZE_SUBSETS = {f"object size {low}-{high} %": f"{low}-{high} %" for low, high in pairwise(SIZES)}  # -> short label
Bools = npt.NDArray[np.bool_]


def kind(box: Boxes, true: Boxes) -> str:
    """What a predicted box is, (4,), (K, 4) (SPA; Pan et al., CVPR 2021, in the order of its authors' code).

    With G the true box of the best IoU: "correct" if that exceeds 0.5; "multi_instance" if the prediction covers
    more than 0.3 of several true boxes; "part" if more than half of it lies in G; "more" if it covers at least
    0.7 of G; "other". As part comes before more, a box with half of it in G that covers 0.8 of G is a part.
    """
    predicted = box[None]
    overlaps = iou(predicted, true)[0]
    shared = intersection(predicted, true)[0]
    of_true, of_box = shared / area(true), shared / area(predicted)
    best = int(overlaps.argmax())
    if overlaps[best] > 0.5:
        return "correct"
    if (of_true > 0.3).sum() > 1:
        return "multi_instance"
    if of_box[best] > 0.5:
        return "part"
    return "more" if of_true[best] >= 0.7 else "other"


def decompose(predicted: Sequence[Boxes], true: Sequence[Boxes], top1: Bools) -> Named:
    """Share of images of each kind, in percent, they add up to 100.

    Args:
        predicted: the box of each image that is scored, (4,) or (1, 4); (0, 4) where a map has no contrast: "other".
        true: true boxes of each image, (K, 4).
        top1: whether the class is right, (N,).

    Returns:
        ``box_kind``, where a wrong class ("cls") comes before all else, as SPA has it, and ``box_kind_gt_known``,
        which ignores the predicted class; each kind is a subset.
    """
    kinds = np.array(
        [kind(own.reshape(4), boxes) if own.size else "other" for own, boxes in zip(predicted, true, strict=True)]
    )
    with_class = np.where(top1, kinds, "cls")
    found: Named = {("box_kind", name): 100 * float((with_class == name).mean()) for name in KINDS}
    return found | {("box_kind_gt_known", name): 100 * float((kinds == name).mean()) for name in KINDS if name != "cls"}


def by_size(located: Bools, true: Sequence[Boxes], side: int) -> Named:
    """GT-known Loc by the share of the image that the first true box covers.

    Returns:
        ``gt_known_loc`` in percent of the images in the bin, and ``images``, how many these are; each bin of
        :data:`SIZE_SUBSETS` is a subset; bins without images are left out.
    """
    shares = np.array([100 * area(boxes[:1])[0] / side**2 for boxes in true])
    bins = np.digitize(shares, SIZES[1:-1], right=True)
    found: Named = {}
    for k, subset in enumerate(SIZE_SUBSETS):
        if (bins == k).any():
            found["gt_known_loc", subset] = 100 * float(located[bins == k].mean())
            found["images", subset] = float((bins == k).sum())
    return found
