"""eil: a benchmark and ablation harness for weakly supervised object localization (WSOL)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pandas: half a second
    import pandas as pd

__version__ = "0.1.0"


def snakefile() -> str:
    """Path of the workflow's Snakefile, for ``include:`` or a ``module`` of another Snakefile.

    Examples:
        >>> import eil
        >>> eil.snakefile().endswith("Snakefile")
        True
    """
    from eil.core import project_files

    return str(project_files.folder() / "Snakefile")


def results(folder: str | Path) -> "pd.DataFrame":
    """Every score of a study, a row each.

    Examples:
        >>> import eil
        >>> scores = eil.results("tests/data/results")

        Mean and standard deviation of GT-known Loc over the seeds:

        >>> scores = scores[(scores["split"] == "test") & (scores["protocol"] == "val-threshold")]
        >>> main = scores.query("threshold_from == 'val' and subset == ''")
        >>> loc = main[main["metric"] == "gt_known_loc"]
        >>> loc.groupby(["backbone", "method", "settings"])["value"].agg(["mean", "std"])
                                     mean       std
        backbone  method settings
        vgg_small cam                36.0  2.828427
                  eil    gamma=0.7   44.5  0.707107

        The same maps under each choice of the threshold:

        >>> loc = scores.query("metric == 'gt_known_loc' and subset == ''")
        >>> loc.pivot_table(values="value", index="method", columns="threshold_from")
        threshold_from  fixed  oracle   val
        method
        cam              30.0    40.0  36.0
        eil              41.0    46.0  44.5

        GT-known Loc by the share of the image that the object covers:

        >>> sizes = scores[(scores["metric"] == "gt_known_loc") & scores["subset"].str.startswith("object size")]
        >>> sizes.pivot_table(values="value", index="subset", columns="method")
        method                 cam   eil
        subset
        object size 4-9 %     30.0  40.5
        object size 9-16 %    42.0  48.5

    Args:
        folder: of the study's results, with ``records.parquet`` (`eil aggregate` makes it), or ``runs/*/record.json``.

    Returns:
        Columns ``run``, ``backbone``, ``pretrained``, ``method``, ``control``, ``extractor``, ``settings``,
        ``setting.{name}`` for each setting, ``repetition``, ``status``, ``error``, ``seconds`` (of training),
        ``split``, ``protocol``, ``threshold_from``, ``metric`` (see :mod:`eil.core.metric_definitions`), ``subset``,
        ``value``.

    Raises:
        InputError: there are no results, or another version of eil made them.
    """
    from eil.report import results as tidy

    return tidy.results(folder)
