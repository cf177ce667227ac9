"""Whether a training had converged: over the last fifth of its epochs, loss and val accuracy had stopped improving.

"While training is not convergent" is the loop of EIL's Algorithm 1, which leaves the rule open. Ours reads the slopes
of straight lines through the last epochs, so that one good or bad epoch decides nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

MARK: Final = "†"
FEWEST_EPOCHS: Final = 5  # of fewer epochs nothing is judged: they count as not converged
MOST_FALL: Final = 2.0  # percent of the loss's whole fall
MOST_RISE: Final = 2.0  # points of val accuracy
RULE: Final = (
    f"{MARK} not converged: over the last fifth of the epochs (at least 3) the training loss still fell by more than "
    f"{MOST_FALL:g} % of its whole fall, or val accuracy rose by more than {MOST_RISE:g} points (slopes of straight "
    f"lines, mean over seeds), or there were fewer than {FEWEST_EPOCHS} epochs or no record of val accuracy"
)

History = Mapping[str, Sequence[float]]  # name of a part of the loss or of an accuracy -> its value in each epoch


@dataclass(frozen=True)
class Trend:
    """How much a training still improved over the last fifth of its epochs.

    Attributes:
        fall: of the mean loss, in percent of its fall from the first epoch to the lowest.
        rise: of val accuracy, in points.
    """

    fall: float
    rise: float


def trend(history: History) -> Trend | None:
    """The trend of one training; None for fewer than :data:`FEWEST_EPOCHS`, or a record without val accuracy."""
    loss, accuracy = history.get("total", ()), history.get("val_top1", ())
    if len(loss) < FEWEST_EPOCHS or len(accuracy) != len(loss):
        return None
    count = max(3, math.ceil(len(loss) / 5))
    whole = loss[0] - min(loss)
    fallen = -_change(loss[-count:])
    return Trend(100 * fallen / whole if whole > 0 else math.inf, 100 * _change(accuracy[-count:]))


def converged(histories: Sequence[History]) -> bool:
    """Whether the trainings of one configuration, a history a seed, had converged on average."""
    trends = [trend(each) for each in histories]
    found = [each for each in trends if each is not None]
    if len(found) < len(trends) or not found:
        return False
    fall, rise = (float(np.mean([getattr(each, name) for each in found])) for name in ("fall", "rise"))
    return fall <= MOST_FALL and rise <= MOST_RISE


def _change(values: Sequence[float]) -> float:
    """From the first to the last of these epochs, by the straight line of least squares."""
    slope = np.polyfit(np.arange(len(values)), np.asarray(values, dtype=np.float64), 1)[0]
    return float(slope * (len(values) - 1))
