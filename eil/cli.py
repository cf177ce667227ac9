"""The ``eil`` program: one command per step, the same by hand, in a test and under Snakemake.

Heavy imports stand inside the commands: ``eil --help`` must not wait for torch.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from eil import __version__
from eil.files import InputError, replacing, write_text
from eil.run import Run
from eil.settings import SettingError
from eil.study import Study, load

Command = Callable[[argparse.Namespace], None]


def check(args: argparse.Namespace) -> None:
    """Check a study and list its runs."""
    runs, dropped = _study(args).plan(str(args.study))
    print("\n".join([*(run.name for run in runs), *(f"dropped: {line}" for line in dropped)]))
    print(f"{len(runs)} runs")


def prepare(args: argparse.Namespace) -> None:
    """Decode and resize a study's images, once."""
    from eil import data
    from eil.data import cache

    study = _study(args)
    wanted = {run.cache: run for run in study.runs() if args.cache in (None, run.cache)}
    for name, run in wanted.items():
        folder = args.data / name
        if not (folder / "dataset.json").exists():
            dataset = data.read(run.dataset.name, run.dataset.folder(), run.dataset.settings)
            cache.build(dataset, folder, run.recipe.resize, run.recipe.crop)
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


def sheet(args: argparse.Namespace) -> None:
    """Draw a contact sheet of a study's test images with their boxes and parts."""
    from eil import data
    from eil.report import contact_sheet

    chosen = _study(args).dataset
    dataset = data.read(chosen.name, chosen.folder(), chosen.settings)
    contact_sheet.write(dataset, args.results / "sheet.png")
    print(args.results / "sheet.png")


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
    if args.command is not score:
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
    per_study: tuple[Command, ...] = (check, prepare, sheet, aggregate, figures)
    for command in (*per_study, *per_run):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("study", type=Path, help="the study's YAML file")
        if command in per_run:
            sub.add_argument("run", help="name of the run, as `eil check STUDY` lists it")
        if command is prepare:
            sub.add_argument("--cache", help="only this folder of decoded images")
        sub.add_argument("--results", type=Path, help="the study's results (default: results/NAME OF THE FILE)")
        sub.add_argument("--data", type=Path, help="decoded images of all studies (default: results/data)")
        sub.add_argument("--data-root", type=Path, help="where the data set lies (else dataset.root, or EIL_DATA)")
    _score_options(commands.add_parser("score", help=score.__doc__, description=score.__doc__))
    return parser


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
