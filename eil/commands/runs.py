"""Commands about one run of a study: its steps, its results, their verification."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

from eil.commands import steps
from eil.commands.options import DEFAULT_FOLDERS, FLAG, Folders, open_study


def train(
    study: Path, run: str, /, *, ahead: Annotated[bool, FLAG] = False, folders: Folders = DEFAULT_FOLDERS
) -> None:
    """Train a run, or continue its training.

    Example: eil train workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        ahead: After a training of at most ten minutes, localize and evaluate too, so that `eil localize` and
            `eil evaluate` find their results made.
        folders: Where the study's files are.
    """
    from eil.execution import APART, benchmark
    from eil.report import status
    from eil.study import grid

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    steps.train(opened, found, ahead)
    if not os.environ.get(APART) and status.tells_progress(found, grid.count(opened.study)):
        print(f"{opened.study.name}: {status.progress(opened.runs(), opened.runs_folder, extra_running=1)}")
    else:
        print(f"{run}: trained")
    benchmark.write(opened.folder(found) / "train.benchmark.tsv")


def localize(study: Path, run: str, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Compute the score maps of a trained run.

    Example: eil localize workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        folders: Where the study's files are.
    """
    from eil.execution import benchmark

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    steps.localize(opened, found)
    benchmark.write(opened.folder(found) / "localize.benchmark.tsv")


def evaluate(study: Path, run: str, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Score the maps of a run and write its record.

    Example: eil evaluate workflow/config/demo.yaml vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run: Name of the run, as `eil check STUDY` lists it.
        folders: Where the study's files are.
    """
    from eil.execution import benchmark

    opened = open_study(study, folders)
    found = opened.study.find_run(run)
    steps.evaluate(opened, found)
    benchmark.write(opened.folder(found) / "evaluate.benchmark.tsv")


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
