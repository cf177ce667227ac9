"""Evaluation protocols: how score maps become boxes, and boxes a score. They are data (protocols.yaml).

A protocol says where a threshold is chosen; :func:`eil.evaluation.metrics.threshold_of` chooses it.
"""

import functools
import logging
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer, model_validator

from eil.core.metric_definitions import ThresholdSource
from eil.core.run import StrictModel
from eil.core.settings import SettingError
from eil.evaluation.box_conventions import N_THRESHOLDS, BoxConvention

FILE = Path(__file__).with_name("protocols.yaml")
DEFAULT: Final = "val-threshold"
RENAMED: Final = {"honest": "val-threshold"}  # earlier names, accepted for one release
Contours = Literal["all", "largest", "union"]
Share = Annotated[float, Field(ge=0, lt=1)]
_ADDED: Final = {"alignment": "grid"}  # keys added later -> their default
_log = logging.getLogger(__name__)


class Protocol(StrictModel):
    """One way to score. The defaults are the wsolevaluation benchmark's; true boxes are always in whole pixels.

    Attributes:
        source: the paper or code that the protocol follows.
        geometry: of the images that the network sees: resized directly to the input's size, or to 256 with the
            central 224 cut out. The cache holds "direct"; the protocol's other rules also apply to maps made on it.
        interpolation: how the map is resized to the image's size.
        alignment: whether a map's cells are drawn in the middle of equal shares of the image ("grid", as everyone
            does), or where their receptive fields have their centres ("receptive_field"). Beyond the outermost centres
            the outermost cells' values hold, in both cases.
        order: whether the map is resized or normalised first.
        normaliser: see :mod:`eil.evaluation.maps`.
        percentile: of the normalisers that have one, in [0, 1].
        contours: which box counts for GT-known and Top-k Loc: the best box of "all" contours, the box of the
            "largest" contour, or the box around the "union" of all pixels above the threshold.
        contours_v2: the same choice for MaxBoxAccV2; None if the protocol does not report it.
        box_end: the last column and row of a box that starts at x and has width w.
        iou: whether corners are pixels with an area ("inclusive") or points ("continuous").
        hit: whether the IoU must reach 0.5 (">=") or exceed it (">").
        empty: the predicted box if no pixel is above the threshold.
        threshold_from: how the threshold is chosen: for the best score on the scored images ("oracle") or on val
            ("val"), as a fixed share of the 8-bit range ("fixed"), or by Otsu's method for each image ("otsu").
        fixed: the share for "fixed".
        thresholds: candidate thresholds as shares of the 8-bit range; None for all 255.
    """

    source: str
    geometry: Literal["direct", "center-crop"] = "direct"
    interpolation: Literal["cubic", "linear"] = "cubic"
    alignment: Literal["grid", "receptive_field"] = "grid"
    order: Literal["resize-normalise", "normalise-resize"] = "resize-normalise"
    normaliser: Literal["min-max", "max", "pas", "ivr"] = "min-max"
    percentile: Share | None = None
    contours: Contours = "largest"
    contours_v2: Contours | None = None
    box_end: Literal["x+w, clipped", "x+w", "x+w-1"] = "x+w, clipped"
    iou: Literal["inclusive", "continuous"] = "inclusive"
    hit: Literal[">=", ">"] = ">="
    empty: tuple[int, int, int, int] = (0, 0, 0, 0)
    threshold_from: ThresholdSource = "val"
    fixed: Share = 0.2
    thresholds: tuple[Share, ...] | None = None

    @model_validator(mode="after")
    def _has_its_percentile(self) -> "Protocol":
        if (self.percentile is not None) != (self.normaliser in ("pas", "ivr")):
            raise ValueError(f"normaliser = {self.normaliser}: pas and ivr need a percentile, the others have none")
        return self

    @model_serializer(mode="wrap")
    def _without_added(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys added later that have their default: results of older protocols stay current."""
        dumped: dict[str, Any] = dump(self)
        return {key: value for key, value in dumped.items() if _ADDED.get(key, ...) != value}

    @property
    def box_convention(self) -> BoxConvention:
        """The part of the protocol that the compiled functions need."""
        beyond, clipped = {"x+w, clipped": (1, True), "x+w": (1, False), "x+w-1": (0, False)}[self.box_end]
        return BoxConvention(beyond, clipped, int(self.iou == "inclusive"), self.empty)

    @property
    def candidates(self) -> npt.NDArray[np.int64]:
        """Thresholds to choose from, ``int(share * 255)``, ascending."""
        if self.thresholds is None:
            return np.arange(N_THRESHOLDS)
        return np.array(sorted({int(share * N_THRESHOLDS) for share in self.thresholds}))

    def hits(self, curves: npt.NDArray[np.floating], iou: float) -> npt.NDArray[np.bool_]:
        """Which IoUs count as a hit, same shape; an IoU is a ratio of integers, so float32 decides as float64 would."""
        least = curves.dtype.type(iou)
        return curves > least if self.hit == ">" else curves >= least


@functools.cache
def read() -> dict[str, Protocol]:
    """Every protocol by its name."""
    return TypeAdapter(dict[str, Protocol]).validate_python(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def current_name(name: str) -> str:
    """The present name of a protocol; a name of an earlier release is accepted with a note in the log."""
    if name in RENAMED:
        _note_renamed(name)
    return RENAMED.get(name, name)


def find(name: str) -> Protocol:
    """The protocol of that name, or of that name in an earlier release.

    Raises:
        SettingError: there is none; the message lists the known names.
    """
    found = read().get(current_name(name))
    if found is None:
        raise SettingError("protocols", name, f"must be one of {', '.join(read())}")
    return found


@functools.cache
def _note_renamed(name: str) -> None:
    _log.warning("protocol %s is now called %s; the old name will be removed in the next release", name, RENAMED[name])
