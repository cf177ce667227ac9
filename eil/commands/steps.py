"""Execute the steps of a run: each alone, or localizing and evaluating ahead, in the process of the training.

What a step needs is imported in its function: a step that finds its results made ahead never loads torch.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eil.commands.options import OpenStudy

if TYPE_CHECKING:
    from eil.core.run import Run
    from eil.execution import ahead

Step = Callable[["Run", Path, Path], object]  # run, decoded images, run's folder
_log = logging.getLogger(__name__)


def train(opened: OpenStudy, run: "Run", go_on: bool) -> None:
    """Train a run; with ``go_on``, localize and evaluate it and what borrows its network, unless it trained long."""
    from eil.execution import ahead
    from eil.training.train import train as step

    folder = opened.folder(run)
    ahead.discard(folder)
    then = partial(_go_on, opened, run) if go_on and run.recipe.devices == 1 else None
    _execute(opened, run, "train", partial(step, logger=opened.study.logger), run.recipe.devices, then)


def localize(opened: OpenStudy, run: "Run") -> None:
    """Compute the maps of a run, or take those that were made ahead."""
    if not _taken(opened, run, "localize"):
        _localize(opened, run, gpus=1)


def evaluate(opened: OpenStudy, run: "Run") -> None:
    """Score the maps of a run, or take the record that was made ahead."""
    if not _taken(opened, run, "evaluate"):
        _evaluate(opened, run)


def _localize(opened: OpenStudy, run: "Run", gpus: int) -> None:
    from eil.training.localize import localize as step

    _execute(opened, run, "localize", partial(step, protocol=opened.study.protocols[0]), gpus)


def _evaluate(opened: OpenStudy, run: "Run") -> None:
    from eil.evaluation.evaluate import evaluate as step

    _execute(opened, run, "evaluate", partial(step, names=opened.study.protocols))


def _go_on(opened: OpenStudy, run: "Run") -> None:
    """Localize and evaluate a trained run, then what borrows its network, and put the results aside.

    An error is left to the step itself, which meets it again: the training has not failed.
    """
    from eil.core.files import read_json
    from eil.execution import ahead

    if read_json(opened.folder(run) / "train.json")["seconds"] > ahead.LONGEST_TRAINING:
        return
    lent = opened.study.borrowers(run)
    made: list[tuple[Run, ahead.Step]] = []
    try:
        for each in (run, *lent):
            ahead.discard(opened.folder(each))
            _localize(opened, each, gpus=0)  # the training's GPU is still held
            made.append((each, "localize"))
            _evaluate(opened, each)
            made.append((each, "evaluate"))
    except Exception as error:
        _log.warning("%s was not localized and evaluated ahead: %s", run.name, error)
    for each, step in reversed(made):  # last of all a run's maps, from which controls took the classification
        ahead.put_aside(step, opened.folder(each), _note(opened, each, step))


def _taken(opened: OpenStudy, run: "Run", step: "ahead.Step") -> bool:
    """Whether the results of a step were made ahead; they are in their place then."""
    from eil.execution import CHECKED_BY_WORKFLOW, ahead, run_lock

    folder = opened.folder(run)
    if not (folder / ahead.FOLDER).is_dir():
        return False
    if not os.environ.get(CHECKED_BY_WORKFLOW):
        from eil.execution import data_state  # pandas: half of the time that was saved

        data_state.require_prepared(run, opened.data)
    with run_lock.exclusive(run, folder):
        taken = ahead.take(step, folder, _note(opened, run, step))
    if taken:
        print(f"{run.name}: {step} was done ahead, in the process of the training")
    return taken


def _note(opened: OpenStudy, run: "Run", step: "ahead.Step") -> dict[str, object]:
    from eil.execution import ahead

    return ahead.made_from(step, run, opened.images(run), opened.folder(run), opened.study.protocols)


def _execute(
    opened: OpenStudy, run: "Run", name: str, step: Step, gpus: int = 0, then: Callable[[], None] | None = None
) -> None:
    """Execute a step of a run on so many GPUs, then ``then`` on the same; a failure is recorded in the run's folder."""
    from eil.execution import data_state, gpu_lease, run_lock, signals

    data_state.require_prepared(run, opened.data)
    folder = opened.folder(run)
    with signals.handle_signals(), contextlib.ExitStack() as leased:
        with run_lock.run_step(run, folder, name):
            if gpus:
                leased.enter_context(gpu_lease.lease(gpus))
            with signals.time_limit(opened.study.time_limit):  # it starts when the GPUs are leased
                step(run, opened.images(run), folder)
        if then is not None:
            then()
