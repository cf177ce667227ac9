"""Commands about one run of a study: its steps, its results, their verification."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from eil.commands.options import DEFAULT_FOLDERS, FLAG, Folders, OpenStudy, open_study

if TYPE_CHECKING:
    from eil.core.run import Run

Step = Callable[["Run", Path, Path], object]  # run, decoded images, run's folder


def train(study: Path, run: str, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Train a run, or continue its training.

    Example: eil train workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        folders: Where the study's files are.
    """
    from functools import partial

    from eil.report import status
    from eil.training.train import train as step

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    _execute(opened, found, "train", partial(step, logger=opened.study.logger), gpus=found.recipe.devices)
    print(f"{opened.study.name}: {status.progress(opened.runs(), opened.runs_folder, own=1)}")


def localize(study: Path, run: str, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Compute the score maps of a trained run.

    Example: eil localize workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        folders: Where the study's files are.
    """
    from functools import partial

    from eil.training.localize import localize as step

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    _execute(opened, found, "localize", partial(step, protocol=opened.study.protocols[0]), gpus=1)


def evaluate(study: Path, run: str, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Score the maps of a run and write its record.

    Example: eil evaluate workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        folders: Where the study's files are.
    """
    from functools import partial

    from eil.evaluation.evaluate import evaluate as step

    opened = open_study(study, folders)
    _execute(opened, opened.study.find_run(run), "evaluate", partial(step, names=opened.study.protocols))


def show(
    study: Path,
    run: str,
    /,
    *,
    image: str | None = None,
    out: Path | None = None,
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Print the record of a run; with --image, draw a map and its boxes.

    Example: eil show workflow/config/demo.yaml vgg_small-cam-seed0 --image test/00/0001

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        image: Id of the test image to draw.
        out: Where to draw it; default: RESULTS/shown/RUN-IMAGE.png.
        folders: Where the study's files are.
    """
    from eil.core.files import InputError
    from eil.execution import collect
    from eil.report import example_figures, status

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    records = opened.require_current(found, collect.collect([found], opened.runs_folder))
    if not records:
        raise InputError(f"{run}: has no record yet; `eil status {study}` shows its progress")
    print("\n".join(status.shown(records[0])))
    if image:
        path = out or opened.results / "shown" / f"{run}-{image.replace('/', '_')}.png"
        print(example_figures.draw_one(records[0], image, opened.images(found), opened.folder(found), path))


def boxes(
    study: Path,
    run: str,
    /,
    *,
    out: Path | None = None,
    frame: Literal["photo", "network"] = "photo",
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Write the predicted boxes of a run as COCO results (JSON).

    Example: eil boxes workflow/config/demo.yaml vgg_small-cam-seed0 --out boxes.json

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        out: The file; default: boxes.json in the run's folder.
        frame: Pixels of the photo, or of the square that the network sees.
        folders: Where the study's files are.
    """
    import json

    from eil.core.files import InputError, write_text
    from eil.execution import collect
    from eil.report import coco

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    done = [record for record in collect.collect([found], opened.runs_folder) if record.status == "done"]
    records = opened.require_current(found, done)
    if not records:
        raise InputError(f"{run}: has no scores yet; `eil evaluate` computes them")
    path = out or opened.folder(found) / "boxes.json"
    rows = coco.coco(records[0], opened.images(found), opened.folder(found), frame)
    write_text(path, json.dumps(rows) + "\n")
    print(path)


def verify(
    study: Path, run: str, /, *, retrain: Annotated[bool, FLAG] = False, folders: Folders = DEFAULT_FOLDERS
) -> None:
    """Compute the metrics of a finished run again and compare them with its record.

    Example: eil verify workflow/config/demo.yaml vgg_small-cam-seed0 --retrain

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        retrain: Train from scratch instead of scoring the run's maps.
        folders: Where the study's files are.
    """
    from eil.core.files import InputError
    from eil.execution import collect, gpu_lease
    from eil.execution import verify as verification

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    opened.require_current(found, collect.collect([found], opened.runs_folder))
    with gpu_lease.lease() if retrain else contextlib.nullcontext():
        differing = verification.verify(
            found, opened.images(found), opened.folder(found), opened.study.protocols, retrain
        )
    if differing:
        raise InputError("\n".join([f"{run}: {len(differing)} numbers differ", *differing]))
    print(f"{run}: every metric {'of a new training ' if retrain else ''}equals the recorded one")


def _execute(opened: OpenStudy, run: "Run", name: str, step: Step, gpus: int = 0) -> None:
    """Execute a step of a run on so many GPUs; a failure is recorded in the run's folder."""
    from eil.execution import data_state, gpu_lease, run_lock, signals

    data_state.require_prepared(run, opened.data)
    folder = opened.folder(run)
    devices = gpu_lease.lease(gpus) if gpus else contextlib.nullcontext()
    limit = signals.time_limit(opened.study.time_limit)  # starts when the GPUs are leased
    with signals.handle_signals(), run_lock.run_step(run, folder, name), devices, limit:
        step(run, opened.images(run), folder)
