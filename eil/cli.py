"""The ``eil`` program: one command per step, the same by hand, in a test and under Snakemake.

Heavy imports stand inside the commands: ``eil --help`` must not wait for torch.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from eil import __version__
from eil.files import InputError, replacing, write_json, write_text
from eil.run import DatasetChoice, Run
from eil.settings import SettingError
from eil.study import Study, load

Command = Callable[[argparse.Namespace], None]


def check(args: argparse.Namespace) -> None:
    """Check a study and list its runs."""
    runs, dropped = _study(args).plan(str(args.study))
    print("\n".join([*(run.name for run in runs), *(f"dropped: {line}" for line in dropped)]))
    print(f"{len(runs)} runs")


def plan(args: argparse.Namespace) -> None:
    """Say what a study will cost: trainings, operations, hours, disk."""
    from eil import data
    from eil import plan as plans

    study = _study(args)
    runs, _ = study.plan(str(args.study))
    images, classes = args.images, args.classes
    if (images is None) != (classes is None):
        raise InputError("--images and --classes belong together")
    if images is None:
        dataset = data.read(study.dataset.name, study.dataset.folder(), study.dataset.settings)
        images, classes = [len(dataset.splits[name].ids) for name in ("train", "val", "test")], len(dataset.classes)
    counts = dict(zip(("train", "val", "test"), images, strict=True))
    costs = plans.cost(runs, counts, classes)
    measured = plans.rates(args.rates if args.rates is not None else plans.measured())
    trainings = sum(run.control is None for run in runs)
    print(f"{study.name}: {len(runs)} runs, {trainings} of them trainings, on {counts} images of {classes} classes")
    print("\n".join(plans.lines(costs, measured, args.tflops, plans.cached_bytes(runs, counts))))


def prepare(args: argparse.Namespace) -> None:
    """Decode and resize a study's images, once."""
    from eil import data
    from eil.data import cache
    from eil.data.geometry import Frame

    study = _study(args)
    wanted = {run.cache: run for run in study.runs() if args.cache in (None, run.cache)}
    for name, run in wanted.items():
        folder, recipe = args.data / name, run.recipe
        dataset = data.read(run.dataset.name, run.dataset.folder(), run.dataset.settings)
        frame = Frame(recipe.resize, recipe.crop, recipe.geometry, recipe.crops)
        if (folder / "dataset.json").exists():
            cache.require_same(dataset, folder, frame)
        else:
            cache.build(dataset, folder, frame)
        print(f"{folder} is ready")


def train(args: argparse.Namespace) -> None:
    """Train one run, or go on with it."""
    from eil.train import train as step

    _step(args, step)


def localize(args: argparse.Namespace) -> None:
    """Compute the score maps of a trained run."""
    from eil.localize import localize as step

    _step(args, step)


def evaluate(args: argparse.Namespace) -> None:
    """Score a run's maps and write its record."""
    from functools import partial

    from eil.evaluation.evaluate import evaluate as step

    _step(args, partial(step, names=_study(args).protocols))


def aggregate(args: argparse.Namespace) -> None:
    """Gather the records of a study into records.parquet and tables."""
    from eil import records
    from eil.report import analysis

    study = _study(args)
    runs, dropped = study.plan(str(args.study))
    found = records.collect(runs, args.results / "runs")
    with replacing(args.results / "records.parquet") as beside:
        records.table(found).to_parquet(beside)
    for name, text in analysis.write(study, found, len(runs), dropped).items():
        write_text(args.results / "tables" / name, text)
    failed = sum(record.status == "failed" for record in found)
    print(f"{len(found) - failed} of {len(runs)} runs done, {failed} failed; tables in {args.results / 'tables'}")


def figures(args: argparse.Namespace) -> None:
    """Draw a study's figures from its records."""
    from eil import records
    from eil.report import figures

    study = _study(args)
    found = records.collect(study.runs(), args.results / "runs")
    figures.write([record for record in found if record.status == "done"], args.results)
    print(f"figures in {args.results / 'figures'}")


def measure(args: argparse.Namespace) -> None:
    """Time a training iteration and inference of every method of a study, alone on this machine."""
    from eil import records, timing
    from eil.report import cells
    from eil.report import timing as report

    study = _study(args)
    runs, _ = study.plan(str(args.study))
    found = timing.timings(runs, args.data, args.batches, args.precisions, args.iterations, args.warmup)
    done = [each for each in records.collect(runs, args.results / "runs") if each.status == "done"]
    best = cells.chosen([cell for cell in cells.group(done) if not cell.control]) if done else []
    accuracy = {(cell.backbone, cell.method): cell.mean(cells.OWN + "gt_known_loc") for cell in best}
    print(report.write(found, args.results / "timing", accuracy))


def profile(args: argparse.Namespace) -> None:
    """Profile training iterations of a run, alone on this machine: a trace, operations, memory, a verdict."""
    from eil import profile as profiles

    study = _study(args)
    run = study.run(args.profiled) if args.profiled else study.runs()[0]
    folder = args.results / "profile" / run.name
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


def data_check(args: argparse.Namespace) -> None:
    """Decode every image of a data set and say what is missing, broken or shared between splits."""
    import yaml

    from eil import data
    from eil.data import audit
    from eil.report import contact_sheet

    try:
        settings = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    except yaml.YAMLError as error:
        raise InputError(f"--set {' '.join(args.set)}: not KEY=VALUE in YAML: {error}") from None
    chosen = DatasetChoice(name=args.dataset, root=args.root, **settings)
    dataset = data.read(args.dataset, chosen.folder(), settings)
    found = audit.audit(dataset)
    out = args.out or Path("results/check") / chosen.subject
    write_json(out / "check.json", found)
    print("\n".join(audit.lines(found)))
    try:
        contact_sheet.write(dataset, out / "sheet.png")
        print(f"{out / 'sheet.png'} shows test images with their boxes")
    except InputError as error:
        print(f"no contact sheet: {error}")
    if found["problems"]:
        raise InputError(f"{len(found['problems'])} problems, all of them in {out / 'check.json'}")


def score(args: argparse.Namespace) -> None:
    """Score a folder of maps, {image id}.npy, against lists in the wsolevaluation benchmark's layout."""
    import json

    from eil.evaluation.score import score as step

    if (args.val_maps is None) != (args.val_metadata is None):
        raise InputError("--val-maps and --val-metadata belong together")
    val = (args.val_maps, args.val_metadata) if args.val_maps else None
    found = step(args.maps, args.metadata, args.protocol, val, args.masks, args.side, args.allow_missing)
    missing = found.pop("missing")
    if missing:
        print(f"{len(missing)} images have no map and count as missed, {missing[0]} for one", file=sys.stderr)
    if args.json:
        print(json.dumps(found | {"missing": len(missing)}))
    else:
        print(
            "\n".join(
                f"{key}: {value if isinstance(value, str | int) else f'{value:.2f}'}" for key, value in found.items()
            )
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if "study" in args:
        _complete(args)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if getattr(args, "run", None):
        folder = args.results / "runs" / args.run
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / f"{args.command.__name__}.log"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    try:
        args.command(args)
    except (InputError, ArithmeticError, SettingError) as error:
        print(f"eil: {error}", file=sys.stderr)
        return 1
    return 0


def _step(args: argparse.Namespace, step: Callable[[Run, Path, Path], object]) -> None:
    """Do one step of a run; a failure is recorded beside what the run already has."""
    from eil import records

    run = _study(args).run(args.run)
    folder = args.results / "runs" / run.name
    with records.failure_kept(run, folder):
        step(run, args.data / run.cache, folder)


def _study(args: argparse.Namespace) -> Study:
    study = load(args.study)
    if args.data_root is not None:
        study = study.model_copy(update={"dataset": study.dataset.model_copy(update={"root": args.data_root})})
    return study


def _complete(args: argparse.Namespace) -> None:
    """Where results and decoded images go, unless told: results/{study} and results/data."""
    args.data = args.data or Path("results/data")
    args.results = args.results or Path("results") / args.study.stem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eil", description="Benchmark weakly supervised object localization.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="steps", required=True, metavar="STEP")
    per_run: tuple[Command, ...] = (train, localize, evaluate)
    per_study: tuple[Command, ...] = (check, plan, prepare, sheet, measure, profile, aggregate, figures)
    for command in (*per_study, *per_run):
        name = "time" if command is measure else command.__name__  # `time` is a module's name
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("study", type=Path, help="the study's YAML file")
        if command in per_run:
            sub.add_argument("run", help="name of the run, as `eil check STUDY` lists it")
        if command is plan:
            sub.add_argument("--images", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="if not at hand yet")
            sub.add_argument("--classes", type=int, help="how many there are, if not at hand yet")
            sub.add_argument("--tflops", type=float, nargs="*", default=[], help="a device's rate, assumed, in TFLOP/s")
            sub.add_argument("--rates", type=Path, nargs="*", help="measured (default: results[/reference]/step-*.csv)")
        if command is measure:
            sub.add_argument("--batches", type=int, nargs="*", default=[], help="batch sizes (default: the recipe's)")
            sub.add_argument("--precisions", nargs="*", choices=("fp32", "tf32", "bf16"), default=[], help="likewise")
            sub.add_argument("--iterations", type=int, default=30, help="to time of each (default: 30)")
            sub.add_argument("--warmup", type=int, default=5, help="to let pass before (default: 5)")
        if command is profile:
            sub.add_argument("--run", dest="profiled", help="name of the run (default: the study's first)")
            sub.add_argument("--iterations", type=int, default=10, help="to profile (default: 10)")
        if command is prepare:
            sub.add_argument("--cache", help="only this folder of decoded images")
        sub.add_argument("--results", type=Path, help="the study's results (default: results/NAME OF THE FILE)")
        sub.add_argument("--data", type=Path, help="decoded images of all studies (default: results/data)")
        sub.add_argument("--data-root", type=Path, help="where the data set lies (else dataset.root, or EIL_DATA)")
    _score_options(commands.add_parser("score", help=score.__doc__, description=score.__doc__))
    about = commands.add_parser("data", help="What there is to say of a data set.").add_subparsers(required=True)
    _check_options(about.add_parser("check", help=data_check.__doc__, description=data_check.__doc__))
    return parser


def _check_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(command=data_check)
    sub.add_argument("dataset", help="its layout, as dataset.name in a study")
    sub.add_argument("--root", type=Path, help="where it lies (else EIL_DATA)")
    sub.add_argument("--set", metavar="KEY=VALUE", nargs="*", default=[], help="further settings, as under dataset")
    sub.add_argument("--out", type=Path, help="for check.json and sheet.png (default: results/check/DATASET)")


def _score_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(command=score)
    sub.add_argument("--maps", type=Path, required=True, help="folder of the maps, of any resolution and float type")
    sub.add_argument("--metadata", type=Path, required=True, help="folder of the lists, metadata/CUB/test")
    sub.add_argument("--protocol", default="wsoleval-v2", help="a name in protocols.yaml (default: wsoleval-v2)")
    sub.add_argument("--val-maps", type=Path, help="maps on which a protocol chooses its threshold if not on these")
    sub.add_argument("--val-metadata", type=Path, help="lists of those")
    sub.add_argument("--masks", type=Path, help="where masks lie that the lists name (OpenImages)")
    sub.add_argument("--side", type=int, default=224, help="of the frame (default: 224)")
    sub.add_argument("--allow-missing", action="store_true", help="count an image without a map as a miss")
    sub.add_argument("--json", action="store_true", help="print JSON")
