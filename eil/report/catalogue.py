"""Every table and figure that a study can have, each with a sentence: what docs/results.md and the gallery list."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Kind:
    """A table or figure, or a family of them.

    Attributes:
        name: of its files; "…" stands for a backbone, a method, or both.
        shows: what it says, for a reader who has not seen it.
        condition: when a study has it; empty if always.
    """

    name: str
    shows: str
    condition: str = ""

    def matches(self, name: str) -> bool:
        """Whether a file of this name, without its suffix, is of this kind."""
        return re.fullmatch(re.escape(self.name).replace("…", ".+"), name) is not None


TABLES: Final = (
    Kind("main", "methods and controls on each backbone; of a grid the setting that is best on val"),
    Kind("grid", "every setting, and its difference from the first method"),
    Kind("gamma_sigma_…", "EIL over γ and σ", "a grid over both"),
    Kind("marginal_…", "the effect of each setting over the rest of the grid", "a grid"),
    Kind(
        "maps",
        "same run, other maps: each extractor's scores, and their difference from the method's own map",
        "`maps`",
    ),
    Kind(
        "comparisons",
        "difference from the first method, probability of being better, corrected p, smallest detectable difference",
        "several methods",
    ),
    Kind(
        "threshold_sources",
        "the threshold from val, fixed, Otsu, oracle; images missed at every threshold, and by this one alone",
    ),
    Kind("errors", "what is wrong with the boxes"),
    Kind("sizes", "GT-known Loc by the object's share of the image"),
    Kind("protocols", "the same maps by every protocol of the study", "several `protocols`"),
    Kind("masks", "PxAP, pixel IoU, share of each part that is covered", "masks"),
    Kind("failures", "what failed, in which step, and why", "a failed run"),
    Kind("settings", "every setting in effect"),
    Kind("provenance", "commits, machines and versions that trained, and what that took"),
)

FIGURES: Final = (
    Kind("thresholds", "GT-known Loc over thresholds, with the chosen (●) and the oracle's (★)"),
    Kind("errors", "kinds of error of each method's boxes"),
    Kind("sizes", "GT-known Loc by the object's share of the image"),
    Kind("part_coverage", "share of each part that the maps cover", "masks of parts"),
    Kind("protocols", "GT-known Loc of the same maps by each protocol", "several `protocols`"),
    Kind("training", "losses of the unerased and the erased stream over the epochs"),
    Kind("val_accuracy", "Top-1 Cls on val after each epoch"),
    Kind("improvement", "probability that each method is better than each other", "several methods"),
    Kind("gamma_sigma_…", "GT-known Loc over γ and σ", "a grid over both"),
    Kind("ablation_…", "GT-known Loc by each setting, and its effect over the rest of the grid", "a grid"),
    Kind("examples_…", "maps and boxes of each method on test images, evenly drawn, with what EIL would erase"),
    Kind("examples_…_best", "the same, of images on which the methods do best", "several methods, kept maps"),
    Kind("examples_…_worst", "the same, of images on which they do worst", "several methods, kept maps"),
    Kind(
        "examples_…_against_…",
        "the same, of images on which the first two methods disagree most",
        "several methods, kept maps",
    ),
    Kind("extra_maps_…", "what is inside a method: maps of the erased stream and masks", "a method that has any"),
    Kind("maps", "GT-known Loc of the extractors' maps beside the method's own", "`maps`"),
    Kind("maps_…", "the extractors' maps on test images", "`maps`"),
)


def kind_of(name: str, kinds: Iterable[Kind]) -> Kind | None:
    """The kind of a file by its name without suffix; of several that match the most special one, None without any."""
    return max((kind for kind in kinds if kind.matches(name)), key=lambda kind: len(kind.name), default=None)


def documented(kinds: Iterable[Kind], heading: str) -> list[str]:
    """Kinds as lines of a Markdown table, for docs/results.md."""
    rows = [f"| `{each.name}` | {each.shows} | {each.condition or '–'} |" for each in kinds]
    return [f"| {heading} | what it shows | needs |", "|---|---|---|", *rows]
