"""Rows of a record from what the metrics give: values by metric and subset, protocol, split and threshold."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from eil.core.metric_definitions import METRICS, Split, ThresholdFrom
from eil.core.records import Replicates, Score

Named = dict[str | tuple[str, str], float]  # metric, or metric and subset -> value


def rows(
    found: Mapping[str, float] | Named, protocol: str, threshold_from: ThresholdFrom, split: Split = "test"
) -> list[Score]:
    """A row for each value.

    Args:
        found: metric, or metric and subset -> value.
        protocol: by which it was scored.
        threshold_from: where the threshold comes from, for metrics that have one.
        split: that was scored.
    """
    pairs = {key if isinstance(key, tuple) else (key, ""): value for key, value in found.items()}
    return [
        Score(
            split=split,
            protocol=protocol,
            threshold_from=_threshold_of(metric, threshold_from),
            metric=metric,
            subset=subset,
            value=value,
        )
        for (metric, subset), value in pairs.items()
    ]


def replicate_rows(
    found: Mapping[str, npt.NDArray[np.float64]], protocol: str, threshold_from: ThresholdFrom
) -> list[Replicates]:
    """A row for the replicates, (R,), of each metric on test; rounded, as they fill most of a record."""
    return [
        Replicates(
            split="test",
            protocol=protocol,
            threshold_from=_threshold_of(metric, threshold_from),
            metric=metric,
            values=values.round(3).tolist(),
        )
        for metric, values in found.items()
    ]


def _threshold_of(metric: str, threshold_from: ThresholdFrom) -> ThresholdFrom:
    fixed = METRICS[metric].threshold_from
    return threshold_from if fixed is None else fixed
