"""Which trainings count as converged, by histories whose slopes are known."""

import numpy as np
import pytest

from eil.report import convergence
from eil.report.convergence import MOST_FALL, MOST_RISE, converged, trend


def history(loss: list[float], accuracy: list[float] | None = None) -> dict[str, list[float]]:
    return {"total": loss} | ({"val_top1": accuracy} if accuracy is not None else {})


def test_slopes_are_those_of_the_last_fifth() -> None:
    loss = [3.0, *np.linspace(2.0, 1.5, 15), *np.linspace(1.5, 1.0, 4)]  # 20 epochs: the last 4
    accuracy = [0.5] * 16 + [0.50, 0.52, 0.54, 0.56]
    found = trend(history(loss, accuracy))
    assert found is not None
    assert found.fall == pytest.approx(100 * 0.5 / 2.0)
    assert found.rise == pytest.approx(6.0)


def test_one_good_last_epoch_is_no_trend_and_rising_loss_is_no_fall() -> None:
    flat = [2.0, 1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert converged([history(flat, [0.8] * 10)])
    assert converged([history([*flat[:-1], 0.15], [0.8] * 10)])
    assert converged([history(flat, [0.8] * 8 + [0.81, 0.80])])


@pytest.mark.parametrize(
    ("loss", "accuracy"),
    [
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.0], [0.5] * 6),  # the loss falls on
        ([2.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),  # val accuracy rises on
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.2] * 6),  # nothing was learnt
        ([2.0, 1.0, 1.0, 1.0], [0.5] * 4),  # too few epochs
        ([2.0, 1.0, 1.0, 1.0, 1.0, 1.0], None),  # an older record
        ([], []),
    ],
)
def test_these_had_not_converged(loss: list[float], accuracy: list[float] | None) -> None:
    assert not converged([history(loss, accuracy)])


def test_the_mean_over_seeds_decides() -> None:
    loss = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    up, down = ([0.5] * 3 + [0.5 + sign * step / 200 for step in (0, 4, 8)] for sign in (1, -1))
    assert trend(history(loss, up)) != trend(history(loss, down))
    assert not converged([history(loss, up)])
    assert converged([history(loss, up), history(loss, down)])


def test_the_rule_names_its_numbers() -> None:
    assert f"{MOST_FALL:g} %" in convergence.RULE
    assert f"{MOST_RISE:g} points" in convergence.RULE
