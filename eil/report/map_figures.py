"""The figure "same run, other maps": GT-known Loc of each extractor's maps beside the method's own."""

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.report.configurations import Configuration, interval
from eil.report.figure_style import COLUMN, about, caption, colors_of, error_bars, legend

_ROW, _SHIFT = 0.22, 0.7  # inches a row of maps; share of a row over which methods are spread


def other_maps_figure(groups: Sequence[Sequence[Configuration]]) -> Figure:
    """A panel a backbone, a row a kind of map, a point a method; a dotted line at each method's own maps.

    Args:
        groups: of each method its own maps, then each extractor's (:func:`~eil.report.configurations.other_maps`).
    """
    backbones = list(dict.fromkeys(group[0].backbone for group in groups))
    kinds = list(dict.fromkeys(each.extractor for group in groups for each in group))
    colors = colors_of([group[0] for group in groups])
    figure, panels = plt.subplots(
        1,
        len(backbones),
        figsize=(COLUMN * len(backbones), 1.4 + _ROW * len(kinds)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axes, backbone in zip(panels[0], backbones, strict=True):
        here = [group for group in groups if group[0].backbone == backbone]
        for k, group in enumerate(here):
            means, halves = np.array([interval(each, GT_KNOWN_LOC) for each in group]).T
            rows = np.array([kinds.index(each.extractor) for each in group])
            y = rows + (k - (len(here) - 1) / 2) * _SHIFT / len(here)
            style = {"color": colors[group[0].method], "label": group[0].method}
            axes.errorbar(means, y, xerr=error_bars(means, halves), fmt="o", ms=3, lw=0.8, **style)
            axes.axvline(means[0], color=colors[group[0].method], lw=0.6, ls=":", zorder=0)
        low, high = axes.get_xlim()
        axes.set(title=backbone, xlabel=f"{GT_KNOWN_LOC.label} (%)", xlim=(max(low, 0), min(high, 100)))
        axes.set(yticks=range(len(kinds)), yticklabels=[each or "own map" for each in kinds])
    panels[0][0].invert_yaxis()
    legend(figure)
    configurations = [each for group in groups for each in group]
    what = (
        "maps of the same trained networks; mean ± half-width of the 95 % interval (images and seeds); dotted: own maps"
    )
    caption(figure, about(configurations, what))
    return figure
