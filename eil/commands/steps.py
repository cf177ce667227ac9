"""Execute the steps of a run, and steps ahead in the same process.

The process of a training goes on to localize and evaluate. That of an extractor makes the maps of the network's other
extractors too.
What a step needs is imported in its function: a step that finds its results made ahead never loads torch.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
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
    """Compute the maps of a run; an extractor makes those of the network's other extractors in the same pass.

    So it does on a cluster too: the job has its GPU for maps, while a training that goes on would keep one for scores.
    """
    from eil.execution import APART, run_lock

    # The time limit is the run's own, and others must not use it up. Through a storage, what is made ahead does not
    # travel. A run that failed is tried alone: another's maps may have killed the process, which no exception tells.
    alone = opened.study.time_limit or os.environ.get(APART) or run_lock.failed_before(opened.folder(run))
    _execute(opened, run, "localize", partial(_make_maps, opened, share=bool(run.extractor and not alone)), gpus)


def _make_maps(opened: OpenStudy, run: "Run", data: Path, folder: Path, share: bool) -> None:
    """Localize a run, or take the maps that another process made while this one waited for the run's lock.

    Args:
        opened: the study.
        run: one of its runs, whose lock is held.
        data: folder of the decoded images.
        folder: the run's folder.
        share: whether to make the maps of other extractors too.
    """
    from eil.execution import ahead
    from eil.training.localize import localize_extractors

    if (folder / ahead.FOLDER).is_dir() and ahead.restore("localize", folder, _note(opened, run, "localize")):
        return
    ahead.discard(folder)
    with _without_maps(opened, run, share) as others:
        folders = {each.name: opened.folder(each) / ahead.FOLDER for each in others} | {run.name: folder}
        protocol = opened.study.protocols[0]
        errors = localize_extractors([run, *others], data, opened.folder(run.training_run), folders, protocol)
        for each in others:
            if each.name in errors:
                _log.warning("%s was not localized ahead: %s", each.name, errors[each.name])
            else:
                ahead.mark_ready("localize", opened.folder(each), _note(opened, each, "localize"))
    if run.name in errors:
        raise errors[run.name]


@contextlib.contextmanager
def _without_maps(opened: OpenStudy, run: "Run", share: bool) -> "Iterator[list[Run]]":
    """The other extractors of a run's network that have no current maps and did not fail, with their locks held.

    No lock is waited for, so that no two processes wait for each other: another process that holds it makes the maps.
    """
    from eil.execution import ahead, run_lock

    dependents = opened.study.dependents(run.training_run) if share else []
    found = []
    with contextlib.ExitStack() as held:
        for each in (each for each in dependents if each.extractor and each.name != run.name):
            with contextlib.ExitStack() as lock:
                free = lock.enter_context(run_lock.exclusive_if_free(opened.folder(each)))
                if free and not run_lock.failed_before(opened.folder(each)) and not _has_maps(opened, each):
                    held.enter_context(lock.pop_all())
                    found.append(each)
        for each in found:
            ahead.discard(opened.folder(each))
        yield found


def _has_maps(opened: OpenStudy, run: "Run") -> bool:
    """Whether the current maps of an extractor are in their place, or wait."""
    from eil.execution import ahead
    from eil.training.localize import has_current_maps

    folder = opened.folder(run)
    if has_current_maps(run, opened.images(run), folder):
        return True
    return (folder / ahead.FOLDER).is_dir() and ahead.is_ready("localize", folder, _note(opened, run, "localize"))


def _evaluate(opened: OpenStudy, run: "Run") -> None:
    from eil.evaluation.evaluate import evaluate as step

    _execute(opened, run, "evaluate", partial(step, names=opened.study.protocols))


def _go_on(opened: OpenStudy, run: "Run") -> None:
    """Localize and evaluate a trained run, then what borrows its network, and put the results aside.

    An error is left to the step itself, which meets it again: the training has not failed. An error of the run itself
    would be one of all that borrow its network.
    """
    from eil.core.files import read_json
    from eil.execution import ahead

    if read_json(opened.folder(run) / "train.json")["seconds"] > ahead.LONGEST_TRAINING:
        return
    dependents = opened.study.dependents(run)
    made: list[tuple[Run, ahead.Step]] = []
    for each in dependents:  # of an earlier training, which may have ended in the same weights
        ahead.discard(opened.folder(each))
        (opened.folder(each) / "maps.npz").unlink(missing_ok=True)
    for each in (run, *dependents):
        try:
            _localize(opened, each, gpus=0)  # the training's GPU is still held
            made.append((each, "localize"))
            _evaluate(opened, each)
            made.append((each, "evaluate"))
        except Exception as error:
            _log.warning("%s was not localized and evaluated ahead: %s", each.name, error)
            if each == run:
                break
    for each, step in reversed(made):  # last of all a run's maps, from which controls took the classification
        ahead.store(step, opened.folder(each), _note(opened, each, step))


def _taken(opened: OpenStudy, run: "Run", step: "ahead.Step") -> bool:
    """Whether the results of a step were made ahead; they are in their place then."""
    from eil.execution import CHECKED_BY_WORKFLOW, ahead, run_lock

    folder = opened.folder(run)
    if not ((folder / ahead.FOLDER).is_dir() or run_lock.is_busy(folder)):  # who is busy may leave something
        return False
    if not os.environ.get(CHECKED_BY_WORKFLOW):
        from eil.execution import data_state  # pandas: half of the time that was saved

        data_state.require_prepared(run, opened.data)
    with run_lock.exclusive(run, folder):
        taken = ahead.restore(step, folder, _note(opened, run, step))
    if taken:
        print(f"{run.name}: {step} was done ahead, in the process of another step")
    return taken


def _note(opened: OpenStudy, run: "Run", step: "ahead.Step") -> dict[str, object]:
    from eil.execution import ahead

    return ahead.inputs_of(step, run, opened.images(run), opened.folder(run), opened.study.protocols)


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
