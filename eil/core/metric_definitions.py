"""Every metric, declared once; tables, columns of a study, terminal, published values, figures and docs read this file.

To add a metric: declare it in :data:`METRICS` and compute it in :mod:`eil.evaluation.metrics`. Nothing else changes.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

ThresholdSource = Literal["val", "fixed", "otsu", "oracle"]
ThresholdFrom = ThresholdSource | Literal[""]  # "" for a score without a threshold
Split = Literal["val", "test"]
THRESHOLD_SOURCES: Final[tuple[ThresholdSource, ...]] = get_args(ThresholdSource)


@dataclass(frozen=True)
class Metric:
    """What a score measures.

    Attributes:
        name: in records.
        label: in tables, figures and a study's ``columns``.
        description: one sentence for the docs.
        better: which direction is good; "" if neither is.
        unit: of the value.
        needs: the annotations that it needs, beside classes.
        threshold_from: where its threshold always comes from, "" if it has none; None for the protocol's.
        replicated: whether it has bootstrap replicates, and so an interval over images and seeds.
        column: whether a study's main table may show it.
        main: whether the main table shows it by default.
        main_oracle: whether the main table shows it under the oracle threshold, too.
    """

    name: str
    label: str
    description: str
    better: Literal["higher", "lower", ""] = "higher"
    unit: str = "%"
    needs: Literal["", "boxes", "masks", "parts"] = "boxes"
    threshold_from: ThresholdFrom | None = None
    replicated: bool = False
    column: bool = False
    main: bool = False
    main_oracle: bool = False

    @property
    def arrow(self) -> str:
        """`` ↑`` or `` ↓``, for a table's header."""
        return {"higher": " ↑", "lower": " ↓", "": ""}[self.better]


@dataclass(frozen=True)
class ScoreKey:
    """Which score of a record; by default of all test images, under the record's own protocol and its threshold.

    Attributes:
        metric: a name in :data:`METRICS`.
        subset: of the images or pixels; "" for all.
        split: that is scored.
        threshold_from: None for the protocol's own.
        protocol: None for the record's own.
    """

    metric: str
    subset: str = ""
    split: Split = "test"
    threshold_from: ThresholdFrom | None = None
    protocol: str | None = None

    @property
    def heading(self) -> str:
        """A table's header: the metric's label, the threshold if it is the oracle's, and an arrow."""
        return f"{self.label}{METRICS[self.metric].arrow}"

    @property
    def label(self) -> str:
        """The metric's label, and "(oracle)" if the threshold is chosen on test."""
        oracle = " (oracle)" if self.threshold_from == "oracle" else ""
        return f"{METRICS[self.metric].label}{oracle}"


_DECLARED: Final = (
    Metric(
        "top1_loc", "Top-1 Loc",
        "GT-known Loc, and the true class is predicted first, at the same threshold",
        column=True, replicated=True, main=True,
    ),
    Metric(
        "top5_loc", "Top-5 Loc", "GT-known Loc, and the true class is among the first five predicted", column=True,
    ),
    Metric(
        "gt_known_loc", "GT-known Loc",
        "share of images whose box, from the true class's map, has IoU of at least 0.5 with a true box; "
        "with the oracle threshold and the largest contour this is MaxBoxAcc",
        column=True, replicated=True, main=True, main_oracle=True,
    ),
    Metric(
        "max_box_acc_v2", "MaxBoxAccV2",
        "mean of the shares of images found at IoU 0.3, 0.5 and 0.7, each at its own threshold",
        column=True, replicated=True, main=True, main_oracle=True,
    ),
    Metric("max_box_acc_v2_30", "MaxBoxAccV2 at IoU 0.3", "the share at IoU 0.3 alone"),
    Metric("max_box_acc_v2_50", "MaxBoxAccV2 at IoU 0.5", "the share at IoU 0.5 alone"),
    Metric("max_box_acc_v2_70", "MaxBoxAccV2 at IoU 0.7", "the share at IoU 0.7 alone"),
    Metric(
        "top1_cls", "Top-1 Cls", "share of images whose true class is predicted first", needs="", threshold_from="",
        column=True, replicated=True, main=True,
    ),
    Metric(
        "top5_cls", "Top-5 Cls", "share of images whose true class is among the first five predicted", needs="",
        threshold_from="", column=True,
    ),
    Metric(
        "px_ap", "PxAP", "area under the precision-recall curve of pixels, over all thresholds", needs="masks",
        threshold_from="", column=True,
    ),
    Metric(
        "pixel_iou", "pixel IoU", "IoU of foreground pixels, pooled over images, at the threshold that is best on val",
        needs="masks", threshold_from="val", column=True,
    ),
    Metric("part_coverage", "part coverage", "share of a part's pixels that the map covers; subset: the part",
           needs="parts", better=""),
    Metric("map_loss", "missed at every threshold",
           "share of images for which no threshold makes the map's box good enough", better="lower", threshold_from=""),
    Metric("threshold_loss", "missed by this threshold",
           "share of images for which some threshold makes a good box, but not the one that is used", better="lower"),
    Metric("box_kind", "kind of box",
           "share of images whose scored box is correct or has the kind of error that subset names; a "
           "wrong class comes before all other kinds", better=""),
    Metric("box_kind_gt_known", "kind of box (GT-known)", "the same without regard to the predicted class", better=""),
    Metric("images", "images", "how many images the subset has", better="", unit="images", threshold_from=""),
    Metric("threshold", "threshold", "level of the 8-bit map above which pixels are foreground (mean over images)",
           better="", unit="level of 255"),
)  # fmt: skip
METRICS: Final = {metric.name: metric for metric in _DECLARED}

_OWN: Final = [ScoreKey(metric.name) for metric in _DECLARED if metric.column]
_ORACLE: Final = [
    ScoreKey(metric.name, threshold_from="oracle")
    for metric in _DECLARED
    if metric.column and metric.threshold_from is None
]
COLUMNS: Final = {key.label: key for key in (*_OWN, *_ORACLE)}  # what a study's ``columns`` may name
MAIN: Final = tuple(key for key in _OWN if METRICS[key.metric].main)
MAIN_ORACLE: Final = tuple(key for key in _ORACLE if METRICS[key.metric].main_oracle)
GT_KNOWN_LOC: Final = ScoreKey("gt_known_loc")
TOP1_CLS: Final = ScoreKey("top1_cls")
SELECTION: Final = ScoreKey("gt_known_loc", split="val", threshold_from="val")  # chooses settings; test is never asked


def _require_column(label: str) -> str:
    return _require(label, tuple(COLUMNS))


def _require_label(label: str) -> str:
    return _require(label, tuple(metric.label for metric in _DECLARED if metric.column))


def _require(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise PydanticCustomError("column", "Input should be {known}", {"known": ", ".join(map(repr, known))})
    return value


ColumnLabel = Annotated[str, AfterValidator(_require_column)]
MetricLabel = Annotated[str, AfterValidator(_require_label)]


def documented() -> list[str]:
    """The list of metrics as lines of a Markdown table, for docs/results.md."""
    lines = ["| `metric` | label | better | unit | needs | what it is |", "|---|---|---|---|---|---|"]
    for each in _DECLARED:
        cells = (f"`{each.name}`", each.label, each.better or "–", each.unit, each.needs or "–", each.description)
        lines.append(f"| {' | '.join(cells)} |")
    return lines
