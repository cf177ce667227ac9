"""Records with chosen scores, for tests of tables and figures."""

from typing import Any

from eil.core import metrics
from eil.core.metrics import ScoreKey
from eil.core.records import Record, Score
from eil.core.run import Run


def score_rows(values: dict[ScoreKey, float]) -> list[Score]:
    """A row for each value; protocol "val-threshold" and its threshold, val, where a key leaves them open."""
    rows = []
    for key, value in values.items():
        fixed = metrics.METRICS[key.metric].threshold_from
        chosen = key.threshold_from or ("val" if fixed is None else fixed)
        rows.append(
            Score(
                split=key.split,
                protocol=key.protocol or "val-threshold",
                threshold_from=chosen,
                metric=key.metric,
                subset=key.subset,
                value=value,
            )
        )
    return rows


def made_record(run: Run, rows: list[Score], **more: Any) -> Record:
    """A record that is done, by protocol "val-threshold"."""
    fields: dict[str, Any] = {"protocol": "val-threshold", "threshold_from": {"val-threshold": "val"}}
    return Record(run=run, key=run.key, status="done", scores=rows, **fields | more)
