"""Conventions of boxes, without numba, which takes 0.3 s to import: a start of the workflow only names them."""

from typing import NamedTuple

N_THRESHOLDS = 255


class BoxConvention(NamedTuple):
    """How pixels become a box, and boxes an IoU. The defaults are the wsolevaluation benchmark's.

    Attributes:
        beyond: 1 if a box ends at x + w, one pixel beyond its last pixel; 0 if it ends at x + w - 1.
        clipped: whether boxes are then clipped to the image.
        inclusive: 1 if a corner is a pixel, whose area counts; 0 if it is a point.
        empty: the predicted box if no pixel is above the threshold.
    """

    beyond: int = 1
    clipped: bool = True
    inclusive: int = 1
    empty: tuple[int, int, int, int] = (0, 0, 0, 0)
