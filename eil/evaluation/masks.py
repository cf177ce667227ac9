"""Scores against pixel masks: PxAP, pixel IoU, and how much of each part a map covers."""

import numpy as np
import numpy.typing as npt

from eil.data import IGNORED, Image

BINS = 1000
_EDGES = np.concatenate([np.arange(BINS) / BINS, [2.0]])
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def histogram(score_map: Floats, mask: Image) -> Counts:
    """How many pixels have each score, (S, S) in [0, 1], (S, S) -> (2, 1000): on the object and off it.

    Args:
        score_map: normalised to [0, 1].
        mask: 0 off the object, :data:`IGNORED` where it is ignored, else on the object.
    """
    counted = mask != IGNORED
    inside = score_map[counted & (mask > 0)]
    outside = score_map[counted & (mask == 0)]
    return np.stack([np.bincount(_bins(values), minlength=BINS) for values in (inside, outside)])


def _bins(values: Floats) -> Counts:
    """The bin k of each value: k/1000 <= value < (k + 1)/1000, and 999 for 1; equals numpy.histogram, but faster."""
    found = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    found -= values < _EDGES[found]  # the product may round up or down to the next integer
    found += values >= _EDGES[found + 1]
    return np.asarray(found)


class PixelHistogram:
    """Accumulates scores of pixels on and off objects over all images of a split.

    Pixels of a map without contrast are above no threshold, so those on the object are missed at every threshold. (In
    the reference code they tie at 0, which gives constant maps the objects' share of all pixels.)

    Attributes:
        counts: sum of :func:`histogram` over maps with contrast, (2, 1000).
        missed: object pixels of maps without contrast.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros((2, BINS), np.int64)
        self.missed = 0

    def add(self, score_map: Floats, mask: Image) -> None:
        """Add an image: its map by :func:`eil.evaluation.maps.prepared` and its mask, (S, S) both."""
        if score_map.any():
            self.counts += histogram(score_map, mask)
        else:
            self.missed += int(((mask > 0) & (mask != IGNORED)).sum())

    @property
    def objects(self) -> int:
        """Object pixels of all images."""
        return int(self.counts[0].sum()) + self.missed

    def average_precision(self) -> float:
        """:func:`pixel_average_precision` of all images."""
        return pixel_average_precision(self.counts, self.missed)

    def iou(self) -> Floats:
        """:func:`pixel_iou` of all images."""
        return pixel_iou(self.counts, self.missed)


def pixel_average_precision(counts: Counts, missed: int = 0) -> float:
    """PxAP of pixels pooled over all images, in percent: ``sum_k P_k (R_k - R_(k-1))`` (Choe et al., CVPR 2020).

    Args:
        counts: the sum of all images' :func:`histogram`, (2, 1000).
        missed: further object pixels, which are above no threshold.
    """
    true_positive, false_positive = counts[:, ::-1].cumsum(axis=1)
    positive = np.maximum(true_positive + false_positive, 1)
    gained = np.diff(true_positive, prepend=0) / max(int(counts[0].sum()) + missed, 1)
    return 100 * float((true_positive / positive * gained).sum())


def pixel_iou(counts: Counts, missed: int = 0) -> Floats:
    """IoU of pooled pixels with a score of at least k/1000, in percent, (2, 1000) -> (1000,); ``missed`` as above."""
    true_positive, false_positive = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.asarray(100 * true_positive / np.maximum(counts[0].sum() + missed + false_positive, 1))


def part_coverage(image: Image, parts: Image, threshold: int, count: int) -> Floats:
    """Share of each part's pixels that are above the threshold.

    Args:
        image: 8-bit map, (S, S).
        parts: part mask, (S, S), k for part k - 1, 0 where there is no object.
        threshold: the threshold.
        count: number of parts.

    Returns:
        (count,), NaN for a part that is not visible.
    """
    area = np.bincount(parts.ravel(), minlength=count + 1)[1 : count + 1].astype(float)
    covered = np.bincount(parts[image > threshold], minlength=count + 1)[1 : count + 1]
    return np.divide(covered, area, out=np.full(count, np.nan), where=area > 0)
