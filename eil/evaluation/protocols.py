"""Protocols: how maps become boxes and boxes a score, as data (protocols.yaml)."""

import functools
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, TypeAdapter, model_validator

from eil.core.run import StrictModel
from eil.core.settings import SettingError
from eil.evaluation.union_find import LEVELS, Rules

FILE = Path(__file__).with_name("protocols.yaml")
Contours = Literal["all", "largest", "union"]
Policy = Literal["oracle", "val", "fixed", "otsu"]
Share = Annotated[float, Field(ge=0, lt=1)]


class Protocol(StrictModel):
    """One way to score. Boxes by default are the wsolevaluation benchmark's; true ones are in whole pixels always.

    Attributes:
        source: where it comes from.
        geometry: of the images that the network sees: resized directly to the input's size, or to 256 with the
            central 224 cut out. The cache holds "direct"; maps made on it follow any protocol's other rules.
        interpolation: of the map on its way to the image's size.
        order: what comes first, resizing or normalising.
        normaliser: see :mod:`eil.evaluation.maps`.
        percentile: of the normalisers that have one, in [0, 1].
        contours: which box counts for GT-known and Top-k Loc: the best of "all" contours, that of the
            "largest", or the "union" of all pixels above the threshold.
        contours_v2: likewise for MaxBoxAccV2; None if it is not part of the protocol.
        box_end: where a box ends.
        iou: whether a corner is a pixel with an area or a point.
        hit: whether the IoU must reach 0.5 or exceed it.
        empty: the box where nothing is above the threshold.
        threshold: where the threshold comes from: the scored images themselves ("oracle"), val, a fixed share
            of the 8-bit range, or Otsu's method for each image.
        fixed: that share.
        levels: shares of the 8-bit range among which a threshold is chosen; None for all 255 levels.
    """

    source: str
    geometry: Literal["direct", "center-crop"] = "direct"
    interpolation: Literal["cubic", "linear"] = "cubic"
    order: Literal["resize-normalise", "normalise-resize"] = "resize-normalise"
    normaliser: Literal["min-max", "max", "pas", "ivr"] = "min-max"
    percentile: Share | None = None
    contours: Contours = "largest"
    contours_v2: Contours | None = None
    box_end: Literal["x+w, clipped", "x+w", "x+w-1"] = "x+w, clipped"
    iou: Literal["inclusive", "continuous"] = "inclusive"
    hit: Literal[">=", ">"] = ">="
    empty: tuple[int, int, int, int] = (0, 0, 0, 0)
    threshold: Policy = "val"
    fixed: Share = 0.2
    levels: tuple[Share, ...] | None = None

    @model_validator(mode="after")
    def _has_its_percentile(self) -> "Protocol":
        if (self.percentile is not None) != (self.normaliser in ("pas", "ivr")):
            raise ValueError(f"normaliser = {self.normaliser}: pas and ivr need a percentile, the others have none")
        return self

    @property
    def rules(self) -> Rules:
        """What the compiled passes need to know."""
        beyond, clipped = {"x+w, clipped": (1, True), "x+w": (1, False), "x+w-1": (0, False)}[self.box_end]
        return Rules(beyond, clipped, int(self.iou == "inclusive"), self.empty)

    @property
    def allowed(self) -> npt.NDArray[np.int64]:
        """Levels among which a threshold is chosen, ``int(share * 255)``."""
        if self.levels is None:
            return np.arange(LEVELS)
        return np.array(sorted({int(share * LEVELS) for share in self.levels}))

    def hits(self, curves: npt.NDArray[np.floating], iou: float) -> npt.NDArray[np.bool_]:
        """Which IoUs count as found; an IoU is a ratio of whole numbers, so that float32 decides as float64 would."""
        least = curves.dtype.type(iou)
        return curves > least if self.hit == ">" else curves >= least


@functools.cache
def read() -> dict[str, Protocol]:
    """Every protocol by its name."""
    return TypeAdapter(dict[str, Protocol]).validate_python(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def find(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        SettingError: there is none; the message lists those that there are.
    """
    if name not in read():
        raise SettingError("protocols", name, f"must be one of {', '.join(read())}")
    return read()[name]
