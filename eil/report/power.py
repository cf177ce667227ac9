"""How many seeds and test images would show a difference, by the variance that a study's own records have."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from eil.core.metric_definitions import GT_KNOWN_LOC
from eil.core.records import Record
from eil.evaluation import statistics
from eil.evaluation.seed_variance import SeedVariance
from eil.evaluation.statistics import Estimate
from eil.report.configurations import by_backbone, chosen, group
from eil.report.differences import compared

_MOST_FACTOR = 1000  # times as many images as there are


def lines(records: Sequence[Record], points: Sequence[float], seeds: int) -> list[str]:
    """For each backbone and difference a line: the seeds that would detect it, and the images with the study's seeds.

    "Detect" is significant at 5 % with a power of 80 %. The median pair of a method and the first one stands for all.

    Args:
        records: done, of one study.
        points: true differences in GT-known Loc.
        seeds: how many the study has.
    """
    found = []
    for backbone, (base, *others) in by_backbone([each for each in chosen(group(records)) if not each.reuses_network]):
        pairs = [each for other in others if (each := compared(other, base, GT_KNOWN_LOC)) is not None]
        model, images = base.pooled_variance(GT_KNOWN_LOC), base.records[0].provenance.get("images")
        if not pairs or model is None or not model.residual_df or not images:
            continue
        pair = replace(
            pairs[0],
            se_images=median(p.se_images for p in pairs),
            se_images_shared=median(p.se_images_shared for p in pairs),
        )
        start = f"{backbone}, by {len(base.records)} seeds and {images} test images of {len(others) + 1} methods: "
        found += [start + _needed(model, pair, each, seeds, int(images)) for each in points]
    return found


def images_needed(model: SeedVariance, pair: Estimate, points: float, seeds: int, images: int) -> int | None:
    """How many test images would detect a difference with so many seeds; None if more images alone do not.

    The error over images falls with the square root of their number. The variance between seeds stays, though a part
    of it is the images': the number is rather too large.
    """
    others = max(1, model.configurations - 1)
    of_seeds = (2 * model.residual / seeds) ** 0.5
    df = others * (seeds - 1)

    def detects(factor: float) -> bool:
        scaled = Estimate(0, pair.se_images / factor**0.5, pair.se_images_shared / factor**0.5, of_seeds, df)
        return scaled.minimum_detectable_effect() <= points

    low, high = 0.0, float(_MOST_FACTOR)
    if seeds < 2 or not detects(high):
        return None
    while (high - low) * images > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if detects(middle) else (middle, high)
    return round(high * images)


def _needed(model: SeedVariance, pair: Estimate, points: float, seeds: int, images: int) -> str:
    count = statistics.seeds_needed(model, pair.se_images_shared, points)
    more = images_needed(model, pair, points, seeds, images)
    by_seeds = f"{count} seeds with these images" if count else "more than 1,000 seeds with these images"
    by_images = f"{more:,} images with {seeds} seeds" if more else f"no number of images with {seeds} seeds"
    return f"a difference of {points:g} points in GT-known Loc needs {by_seeds}, or {by_images}"
