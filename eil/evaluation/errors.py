"""Error types of predicted boxes, and localization accuracy by object size."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from eil.data import Boxes
from eil.evaluation.boxes import area, intersection, iou
from eil.evaluation.score_rows import Named

KIND_LABELS = {
    "correct": "correct",
    "cls": "wrong class",
    "multi_instance": "several objects",
    "part": "part of the object",
    "more": "larger than the object",
    "other": "other",
}
KINDS = tuple(KIND_LABELS)
SIZES = (0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100)  # percent of the image; squares of 0, 10, 20, ... % of its side
SIZE_SUBSETS = {f"object size {low}-{high} %": f"{low}-{high} %" for low, high in pairwise(SIZES)}  # -> short label
Bools = npt.NDArray[np.bool_]


def kind(box: Boxes, true: Boxes) -> str:
    """Error type of a predicted box, (4,), (K, 4) (SPA; Pan et al., CVPR 2021, in the order of its authors' code).

    Let G be the true box with the best IoU. The first of these that holds: "correct" if that IoU exceeds 0.5;
    "multi_instance" if the prediction covers more than 0.3 of several true boxes; "part" if more than half of the
    prediction lies in G; "more" if it covers at least 0.7 of G; else "other".
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
    """Share of images of each error type, in percent; they add up to 100.

    Args:
        predicted: the scored box of each image, (4,) or (1, 4); (0, 4) if its map has no contrast, which is "other".
        true: true boxes of each image, (K, 4).
        top1: whether the class is right, (N,).

    Returns:
        ``box_kind``, in which a wrong class ("cls") is checked first, as SPA does, and ``box_kind_gt_known``, which
        ignores the predicted class; each type is a subset.
    """
    kinds = np.array(
        [kind(box.reshape(4), boxes) if box.size else "other" for box, boxes in zip(predicted, true, strict=True)]
    )
    with_class = np.where(top1, kinds, "cls")
    found: Named = {("box_kind", name): 100 * float((with_class == name).mean()) for name in KINDS}
    return found | {("box_kind_gt_known", name): 100 * float((kinds == name).mean()) for name in KINDS if name != "cls"}


def by_size(located: Bools, true: Sequence[Boxes], side: int) -> Named:
    """GT-known Loc by object size: the share of the image that the first true box covers.

    Returns:
        ``gt_known_loc`` in percent of the images in the bin, and ``images``, their number; each bin of
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
