"""Which configurations a figure shows if there are more than can be read, and what its caption says of the rest."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from matplotlib.figure import Figure

from eil.core.metric_definitions import SELECTION
from eil.report.configurations import Configuration, by_backbone
from eil.report.figure_style import caption

MOST_METHODS = 12  # of a backbone: lines and colours that an eye tells apart
MOST_BACKBONES = 8  # panels side by side and below one another
MOST_FIGURES = 8  # of one kind: grids over gamma and sigma, say
MOST_MAPS = 20  # rows of extractors
_NAMED = 6  # of what is left out


def methods_shown(best: Sequence[Configuration]) -> tuple[list[Configuration], str]:
    """The first method, against which the others are compared, and the best of the others on val, on all backbones.

    Args:
        best: one configuration a method and backbone, in the order of the study.

    Returns:
        Those to show, in the same order, and what to say of the others; "" if there are none.
    """
    backbones, ranks = [name for name, _ in by_backbone(best)], dict[str, list[float]]()
    for each in best:
        ranks.setdefault(each.method, []).append(rank(each))
    first, *others = ranks
    kept = [first, *sorted(others, key=lambda name: mean(ranks[name]), reverse=True)[: MOST_METHODS - 1]]
    left, notes = [name for name in ranks if name not in kept], list[str]()
    if left:
        what = f"the first method and the best {MOST_METHODS - 1} others (GT-known Loc on val, mean of the backbones)"
        notes.append(f"{what}; left out, in the main table: {named(left)}")
    if more := backbones[MOST_BACKBONES:]:
        notes.append(f"the first {MOST_BACKBONES} of {len(backbones)} backbones; left out: {named(more)}")
    return [each for each in best if each.method in kept and each.backbone not in more], "; ".join(notes)


def kinds_shown(groups: Sequence[Sequence[Configuration]]) -> tuple[list[list[Configuration]], str]:
    """Of methods with extractors their own maps and the extractors that are best on val for any of them."""
    kinds: dict[str, float] = {}
    for each in (each for group in groups for each in group[1:]):
        kinds[str(each.extractor)] = max(rank(each), kinds.get(str(each.extractor), -1.0))
    kept = set(sorted(kinds, key=lambda kind: kinds[kind], reverse=True)[:MOST_MAPS])
    shown = [[group[0], *(each for each in group[1:] if str(each.extractor) in kept)] for group in groups]
    left = [kind for kind in kinds if kind not in kept]
    note = f"the best {MOST_MAPS} of {len(kinds)} extractors (GT-known Loc on val); left out: {named(left)}"
    return shown, note if left else ""


def grids_shown(
    grids: Mapping[str, Sequence[Configuration]], kind: str
) -> tuple[dict[str, Sequence[Configuration]], str]:
    """The grids with the best configurations on val, and what to say of the others.

    Args:
        grids: by name.
        kind: what they are called in the note.
    """
    best = sorted(grids, key=lambda name: max(map(rank, grids[name])), reverse=True)[:MOST_FIGURES]
    left = [name for name in grids if name not in best]
    note = f"the {MOST_FIGURES} of {len(grids)} {kind} with the best scores on val are drawn; left out: {named(left)}"
    return {name: grid for name, grid in grids.items() if name in best}, note if left else ""


def with_note(draw: Callable[[], Figure], note: str) -> Figure:
    """A figure with a note at the end of its caption."""
    figure = draw()
    if note:
        caption(figure, f"{' '.join(figure.get_supxlabel().split())}; {note}")
    return figure


def rank(configuration: Configuration) -> float:
    """GT-known Loc on val; -1 where there is none."""
    return configuration.mean(SELECTION) if configuration.has(SELECTION) else -1.0


def named(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
