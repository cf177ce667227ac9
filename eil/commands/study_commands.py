"""What the ``eil`` program does for a study, a function a command; how it is called stands in :mod:`eil.commands.cli`.

Heavy imports stand inside the commands: ``eil --help`` must not wait for torch.
"""

import argparse
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eil.core.files import InputError, at_home, replacing, write_text
from eil.core.run import Run
from eil.execution import gpu_lease, signals
from eil.study.study import Study, load

if TYPE_CHECKING:  # pandas: half a second
    from eil.core.records import Record
    from eil.data.cache import Fingerprints

_log = logging.getLogger(__name__)


def check(args: argparse.Namespace) -> None:
    """Check a study and list its runs."""
    runs, dropped = _study(args).plan(str(args.study))
    print("\n".join([*(run.name for run in runs), *(f"dropped: {line}" for line in dropped)]))
    print(f"{len(runs)} runs")


def plan(args: argparse.Namespace) -> None:
    """Say what a study will cost: trainings, operations, hours, disk."""
    from eil import data
    from eil.data import class_subset
    from eil.profiling import cost as plans

    study = _study(args)
    runs, _ = study.plan(str(args.study))
    images, classes, whole = args.images, args.classes, None
    if (images is None) != (classes is None):
        raise InputError("--images and --classes belong together")
    if images is None:
        dataset = data.read(study.dataset.name, study.dataset.folder(), study.dataset.settings)
        images = [len(dataset.splits[name].ids) for name in ("train", "val", "test")]
        classes, whole = len(dataset.classes), dataset.whole_classes
    counts = dict(zip(("train", "val", "test"), images, strict=True))
    costs = plans.cost(runs, counts, classes)
    measured = plans.rates(args.rates if args.rates is not None else plans.measured())
    trainings, parts = sum(run.control is None for run in runs), " + ".join(map(str, images))
    size = class_subset.describe_count(classes, whole)
    print(f"{study.name}: {len(runs)} runs, {trainings} of them trainings; {parts} images of {size}")
    print("\n".join(plans.lines(costs, measured, args.tflops, plans.cached_bytes(runs, counts))))


def prepare(args: argparse.Namespace) -> None:
    """Decode and resize a study's photos, and prepare its boxes and masks; what is current stays."""
    from eil.data import annotation_cache, photo_cache
    from eil.execution import data_state

    study = _study(args)
    wanted = {run.cache: run for run in study.runs() if args.cache in (None, run.cache)}
    steps = {"photos": photo_cache.build, "annotations": annotation_cache.build}
    dataset = None
    for name, run in wanted.items():
        if dataset is None:
            dataset = data_state.read(run)
            for remark in dataset.remarks:
                _log.info("%s: %s", dataset.name, remark)
        for what, build in steps.items():
            if args.only in (None, what):
                build(dataset, args.data / name, data_state.frame_of(run))
        print(f"{args.data / name} is ready")


def train(args: argparse.Namespace) -> None:
    """Train one run, or go on with it."""
    from functools import partial

    from eil.report import status
    from eil.training.train import train as step

    study = _study(args)
    _step(args, partial(step, logger=study.logger), gpus=lambda run: run.recipe.devices)
    print(f"{study.name}: {status.progress(_runs(args), args.results / 'runs', own=1)}")


def localize(args: argparse.Namespace) -> None:
    """Compute the score maps of a trained run."""
    from functools import partial

    from eil.training.localize import localize as step

    _step(args, partial(step, protocol=_study(args).protocols[0]), gpus=lambda run: 1)


def evaluate(args: argparse.Namespace) -> None:
    """Score a run's maps and write its record."""
    from functools import partial

    from eil.evaluation.evaluate import evaluate as step

    _step(args, partial(step, names=_study(args).protocols))


def status(args: argparse.Namespace) -> None:
    """Say how far a study is: runs done, running, failed and to do, and the time that is left."""
    from eil.report import status

    runs = _runs(args)
    print("\n".join(status.status(runs, args.results / "runs", _present(args, runs))))


def show(args: argparse.Namespace) -> None:
    """Print a run's record readably; with --image, draw its map and boxes."""
    from eil.execution import run_lock
    from eil.report import example_figures, status

    run = _study(args).run(args.run)
    found = _current(args, [run], run_lock.collect([run], args.results / "runs"))
    if not found:
        raise InputError(f"{run.name}: has no record yet; `eil status {args.study}` says how far it is")
    print("\n".join(status.shown(found[0])))
    if args.image:
        path = args.out or args.results / "shown" / f"{run.name}-{args.image.replace('/', '_')}.png"
        print(
            example_figures.draw_one(
                found[0], args.image, args.data / run.cache, args.results / "runs" / run.name, path
            )
        )


def boxes(args: argparse.Namespace) -> None:
    """Write a run's predicted boxes as COCO results (JSON)."""
    import json

    from eil.execution import run_lock
    from eil.report import coco

    run = _study(args).run(args.run)
    folder = args.results / "runs" / run.name
    found = [each for each in run_lock.collect([run], args.results / "runs") if each.status == "done"]
    found = _current(args, [run], found)
    if not found:
        raise InputError(f"{run.name}: has no scores yet; `eil evaluate` makes them")
    path = args.out or folder / "boxes.json"
    write_text(path, json.dumps(coco.coco(found[0], args.data / run.cache, folder, args.frame)) + "\n")
    print(path)


def verify(args: argparse.Namespace) -> None:
    """Compute a finished run's metrics again, from its maps or from scratch, and say whether they match."""
    from eil.execution import run_lock
    from eil.execution import verify as verifies

    study = _study(args)
    run = study.run(args.run)
    folder = args.results / "runs" / run.name
    _current(args, [run], run_lock.collect([run], args.results / "runs"))
    with gpu_lease.held() if args.retrain else contextlib.nullcontext():
        found = verifies.verify(run, args.data / run.cache, folder, study.protocols, args.retrain)
    if found:
        raise InputError("\n".join([f"{run.name}: {len(found)} numbers differ", *found]))
    print(f"{run.name}: every metric {'of a new training ' if args.retrain else ''}is the recorded one")


def clean(args: argparse.Namespace) -> None:
    """Remove what can be made again: leavings of killed processes, checkpoints of finished runs; never records."""
    from eil.execution import clean as cleans

    found = cleans.removable(_runs(args), args.results / "runs", args.maps, args.weights)
    would = [*map(str, found), f"{len(found)} files could go"]
    print("\n".join(would) if args.dry_run else f"{len(found)} files removed, {cleans.clean(found) / 2**20:.1f} MiB")


def aggregate(args: argparse.Namespace) -> None:
    """Gather the records of a study into records.parquet and tables."""
    from eil.execution import run_lock
    from eil.report import results, tables

    study = _study(args)
    runs, dropped = study.plan(str(args.study))
    found, others = _apart(args, runs, run_lock.collect(runs, args.results / "runs"))
    with replacing(args.results / results.FILE) as beside:
        results.table(found).to_parquet(beside)
    left_out = [f"left out: {line}" for line in dropped]
    left_out += run_lock.outdated(runs, [*found, *others], args.results / "runs") + run_lock.of_other_data(others)
    with replacing(args.results / "tables") as beside:  # whole, so that no earlier table stays
        beside.mkdir()
        for name, text in tables.write(study, found, len(runs), left_out).items():
            write_text(beside / name, text)
    failed = sum(record.status == "failed" for record in found)
    print(f"{len(found) - failed} of {len(runs)} runs done, {failed} failed; tables in {args.results / 'tables'}")
    print("\n".join(run_lock.of_other_data(others)), end="\n" if others else "")


def figures(args: argparse.Namespace) -> None:
    """Draw a study's figures from its records."""
    from eil.execution import run_lock
    from eil.report import figures as drawn

    runs = _runs(args)
    found, others = _apart(args, runs, run_lock.collect(runs, args.results / "runs"))
    done = [record for record in found if record.status == "done"]
    drawn.write(done, args.results, args.data)
    left_out = run_lock.outdated(runs, [*found, *others], args.results / "runs") + run_lock.of_other_data(others)
    print("\n".join([f"figures of {len(done)} runs in {args.results / 'figures'}", *left_out]))


def measure(args: argparse.Namespace) -> None:
    """Time a training iteration and inference of every method of a study, alone on this machine."""
    from eil.execution import run_lock
    from eil.profiling import timing
    from eil.report import configurations
    from eil.report import timing as report

    study = _study(args)
    runs, _ = study.plan(str(args.study))
    with gpu_lease.held(alone=True):
        found = timing.timings(runs, args.data, args.batches, args.precisions, args.iterations, args.warmup)
    done = [each for each in run_lock.collect(runs, args.results / "runs") if each.status == "done"]
    print(report.write(found, args.results / "timing", configurations.accuracy(done)))


def profile(args: argparse.Namespace) -> None:
    """Profile training iterations of a run, alone on this machine: a trace, operations, memory, a verdict."""
    from eil.profiling import profile as profiles

    study = _study(args)
    run = study.run(args.profiled) if args.profiled else _runs(args)[0]
    folder = args.results / "profile" / run.name
    with gpu_lease.held(alone=True):
        found = profiles.profile(run, args.data / run.cache, folder / "trace.json.gz", args.iterations)
    print(f"{profiles.write(run, found, folder)}: {found.verdict}")


def sheet(args: argparse.Namespace) -> None:
    """Draw a contact sheet of a study's test images with their boxes and parts."""
    from eil import data
    from eil.report import contact_sheet

    chosen = _study(args).dataset
    dataset = data.read(chosen.name, chosen.folder(), chosen.settings)
    contact_sheet.write(dataset, args.results / "sheet.png")
    print(args.results / "sheet.png")


def _step(
    args: argparse.Namespace, step: Callable[[Run, Path, Path], object], gpus: Callable[[Run], int] | None = None
) -> None:
    """Do one step of a run; a failure is recorded beside what the run already has."""
    from eil.execution import data_state, run_lock

    study = _study(args)
    run = study.run(args.run)
    data_state.require_prepared(run, args.data)
    folder = args.results / "runs" / run.name
    gpu = gpu_lease.held(gpus(run)) if gpus else contextlib.nullcontext()
    work = run_lock.at_work(run, folder, args.command.__name__)
    with signals.heeded(), work, gpu, signals.limited(study.time_limit):  # waiting for a GPU takes none of the time
        step(run, args.data / run.cache, folder)


def _study(args: argparse.Namespace) -> Study:
    study = load(args.study)
    args.results = args.results or Path("results") / study.name  # where the workflow puts them
    if args.data_root is not None:
        root = at_home(args.data_root, "--data-root")
        study = study.model_copy(update={"dataset": study.dataset.model_copy(update={"root": root})})
    return study


def _present(args: argparse.Namespace, runs: Sequence[Run]) -> "dict[str, Fingerprints]":
    """Fingerprints of the runs' data as they are now."""
    from eil.execution import data_state

    return data_state.fingerprints(runs, args.data)


def _apart(
    args: argparse.Namespace, runs: Sequence[Run], records: "Sequence[Record]"
) -> "tuple[list[Record], list[Record]]":
    """Records of the data that there are now, and those of other data."""
    from eil.execution import data_state

    others = data_state.made_from_other(records, _present(args, runs))
    return [record for record in records if record not in others], others


def _current(args: argparse.Namespace, runs: Sequence[Run], records: "Sequence[Record]") -> "list[Record]":
    """Records, all of the data that there are now.

    Raises:
        InputError: one is not.
    """
    found, others = _apart(args, runs, records)
    if others:
        raise InputError(
            f"{others[0].run.name}: was made from other data than there are now; the command that began the study, or "
            "`eil prepare`, `eil localize` and `eil evaluate`, makes it again"
        )
    return found


def _runs(args: argparse.Namespace) -> list[Run]:
    """The study's runs without those that make no sense."""
    return _study(args).plan(str(args.study))[0]
