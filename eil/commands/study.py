"""Commands about a whole study: check it, prepare its data, collect its results."""

from pathlib import Path
from typing import Annotated, Literal

from eil.commands.options import DEFAULT_FOLDERS, FLAG, MANY, Folders, open_study


def check(study: Path, /, *, resolved: Annotated[bool, FLAG] = False, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Check a study and list its runs.

    Example: eil check workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        resolved: List every configuration's effective values and where each comes from.
        folders: Where the study's files are.
    """
    from eil.study.warnings import warnings

    opened = open_study(study, folders)
    runs, dropped = opened.study.expand(str(study))
    if resolved:
        from eil.study import resolved as printing

        print("\n".join(printing.lines(opened.study, runs)))
        return
    print("\n".join([*(run.name for run in runs), *(f"left out: {line}" for line in dropped)]))
    print(f"{len(runs)} runs")
    for line in warnings(opened.study, runs):
        print(f"warning: {line}")


def plan(
    study: Path,
    /,
    *,
    images: Annotated[tuple[int, int, int] | None, FLAG] = None,
    classes: int | None = None,
    tflops: Annotated[tuple[float, ...], MANY] = (),
    rates: Annotated[tuple[Path, ...] | None, MANY] = None,
    detect: Annotated[tuple[float, ...], MANY] = (2.0, 5.0),
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Estimate what a study costs: trainings, operations, hours, disk space; with records, what it can detect.

    Example: eil plan workflow/config/demo.yaml --tflops 40

    Args:
        study: The study's YAML file.
        images: Number of images in train, val and test, if the data set is not here yet.
        classes: Number of classes, if the data set is not here yet.
        tflops: Assumed speeds of a device in TFLOP/s.
        rates: Tables of measured speeds; default: results[/reference]/step-*.csv.
        detect: Differences in GT-known Loc, in points, for which the needed seeds and images are told.
        folders: Where the study's files are.
    """
    from eil import data
    from eil.core.files import InputError
    from eil.data import class_subset
    from eil.execution import collect
    from eil.profiling import cost
    from eil.report import power

    place = open_study(study, folders)
    opened = place.study
    runs, _ = opened.expand(str(study))
    if (images is None) != (classes is None):
        raise InputError("--images and --classes need each other")
    whole = None
    if images is None or classes is None:
        dataset = data.read(opened.dataset.name, opened.dataset.folder(), opened.dataset.settings)
        train, val, test = (len(dataset.splits[name].ids) for name in ("train", "val", "test"))
        images, classes, whole = (train, val, test), len(dataset.classes), dataset.whole_classes
    counts = dict(zip(("train", "val", "test"), images, strict=True))
    costs = cost.cost(runs, counts, classes)
    measured = cost.rates(rates if rates is not None else cost.measured())
    trainings, parts = (
        sum(not run.reuses_network and run.checkpoint is None for run in runs),
        " + ".join(map(str, images)),
    )
    words = class_subset.describe_count(classes, whole)
    print(f"{opened.name}: {len(runs)} runs, {trainings} of them trainings; {parts} images of {words}")
    print("\n".join(cost.lines(costs, measured, tflops, cost.cached_bytes(runs, counts))))
    done = [record for record in collect.collect(runs, place.runs_folder) if record.status == "done"]
    print("".join(f"{line}\n" for line in power.lines(done, detect, len(opened.seeds))), end="")


def prepare(
    study: Path,
    /,
    *,
    cache: str | None = None,
    only: Literal["photos", "annotations"] | None = None,
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Decode and resize a study's photos, and prepare its boxes and masks; skip what is current.

    Example: eil prepare workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        cache: Prepare only this folder of decoded images.
        only: Prepare only the photos or only the annotations; default: both.
        folders: Where the study's files are.
    """
    import logging

    from eil.data import annotation_cache, photo_cache
    from eil.execution import data_state

    log = logging.getLogger(__name__)
    opened = open_study(study, folders)
    wanted = {run.cache: run for run in opened.study.runs() if cache in (None, run.cache)}
    steps = {"photos": photo_cache.build, "annotations": annotation_cache.build}
    dataset = None
    for name, run in wanted.items():
        if dataset is None:
            dataset = data_state.read_dataset(run)
            for remark in dataset.remarks:
                log.info("%s: %s", dataset.name, remark)
        for what, build in steps.items():
            if only in (None, what):
                build(dataset, opened.data / name, data_state.frame_of(run))
        print(f"{opened.data / name} is ready")


def sheet(study: Path, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Draw a contact sheet: test images with their boxes and parts.

    Example: eil sheet workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        folders: Where the study's files are.
    """
    from eil import data
    from eil.report import contact_sheet

    opened = open_study(study, folders)
    chosen = opened.study.dataset
    dataset = data.read(chosen.name, chosen.folder(), chosen.settings)
    contact_sheet.write(dataset, opened.results / "sheet.png")
    print(opened.results / "sheet.png")


def status(study: Path, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Show the progress of a study: runs done, running, failed and left, and the remaining time.

    Example: eil status workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        folders: Where the study's files are.
    """
    from eil.execution import data_state
    from eil.report import status as report

    opened = open_study(study, folders)
    runs = opened.runs()
    present = data_state.current_fingerprints(runs, opened.data)
    print("\n".join(report.status(runs, opened.runs_folder, present)))


def aggregate(study: Path, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Collect the records of a study into records.parquet and tables.

    Example: eil aggregate workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        folders: Where the study's files are.
    """
    from eil.core.files import atomic_write, write_text
    from eil.execution import collect
    from eil.report import results, tables

    opened = open_study(study, folders)
    runs, dropped = opened.study.expand(str(study))
    found, outdated = opened.split_by_data(runs, collect.collect(runs, opened.runs_folder))
    with atomic_write(opened.results / results.FILE) as beside:
        results.table(found).to_parquet(beside)
    notes = [f"left out: {line}" for line in dropped]
    notes += collect.outdated(runs, [*found, *outdated], opened.runs_folder) + collect.changed_data(outdated)
    with atomic_write(opened.results / "tables") as beside:  # the whole folder, so that no older table stays in it
        beside.mkdir()
        for name, text in tables.write(opened.study, found, len(runs), notes).items():
            write_text(beside / name, text)
    failed = sum(record.status == "failed" for record in found)
    done = len(found) - failed
    print(f"{done} of {len(runs)} runs done, {failed} failed; tables in {opened.results / 'tables'}")
    print("\n".join(collect.changed_data(outdated)), end="\n" if outdated else "")


def figures(study: Path, /, *, folders: Folders = DEFAULT_FOLDERS) -> None:
    """Draw the figures of a study from its records.

    Example: eil figures workflow/config/demo.yaml

    Args:
        study: The study's YAML file.
        folders: Where the study's files are.
    """
    from eil.execution import collect
    from eil.report import figures as drawn

    opened = open_study(study, folders)
    runs = opened.runs()
    found, outdated = opened.split_by_data(runs, collect.collect(runs, opened.runs_folder))
    done = [record for record in found if record.status == "done"]
    drawn.write(done, opened.results, opened.data)
    notes = collect.outdated(runs, [*found, *outdated], opened.runs_folder) + collect.changed_data(outdated)
    print("\n".join([f"figures of {len(done)} runs in {opened.results / 'figures'}", *notes]))


def clean(
    study: Path,
    /,
    *,
    maps: Annotated[bool, FLAG] = False,
    weights: Annotated[bool, FLAG] = False,
    dry_run: Annotated[bool, FLAG] = False,
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Remove files that can be made again: leftovers of killed processes, checkpoints of finished runs. Keep records.

    Example: eil clean workflow/config/demo.yaml --maps --dry-run

    Args:
        study: The study's YAML file.
        maps: Remove maps of finished runs too; `eil localize` makes them again.
        weights: Remove weights of finished runs too; only training makes them again.
        dry_run: List the files and remove nothing.
        folders: Where the study's files are.
    """
    from eil.execution import clean as cleaning

    opened = open_study(study, folders)
    found = cleaning.removable(opened.runs(), opened.runs_folder, maps, weights)
    if dry_run:
        print("\n".join([*map(str, found), f"{len(found)} files could go"]))
    else:
        print(f"{len(found)} files removed, {cleaning.clean(found) / 2**20:.1f} MiB")
