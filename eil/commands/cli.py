"""The ``eil`` program's commands and options, one command per step, the same by hand, in a test and under Snakemake."""

import argparse
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eil import __version__
from eil.commands import other_commands, study_commands
from eil.core import user_cache
from eil.core.files import InputError
from eil.core.settings import SettingError
from eil.execution import signals

Command = Callable[[argparse.Namespace], None]
_UNREAD = 128 + signal.SIGPIPE  # what a shell says of a program that a closed pipe ended


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code. If nobody reads its output any more it ends in silence."""
    user_cache.name_user()
    try:
        try:
            args = _parser().parse_args(arguments)
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            args.command(args)
        finally:
            _flush()  # here, where a full disk or a closed pipe can be told
    except signals.Interrupted as told:
        print(f"eil: ended by {told}; the same command goes on", file=sys.stderr)
        return signals.EXIT_CODE
    except (InputError, ArithmeticError, SettingError, OSError, signals.OutOfTime) as error:
        unread = isinstance(error, BrokenPipeError) and _is_unread()
        _drop_output()
        if unread:
            return _UNREAD
        print(f"eil: {error}", file=sys.stderr)
        return 1
    return 0


def _flush() -> None:
    if sys.stdout is not None:  # as it is where it was closed from the start
        sys.stdout.flush()


def _is_unread() -> bool:
    """Whether the output is a pipe that nobody reads; a pipe within the program may break too."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLERR)
    except (AttributeError, OSError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Let go of what cannot be written, which the interpreter would try again at its end."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eil", description="Benchmark weakly supervised object localization.")
    parser.add_argument("--version", action="version", version=__version__)
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")
    for command in _PER_STUDY + _PER_RUN:
        name = "time" if command is study_commands.measure else command.__name__  # `time` is a module's name
        sub = _command(steps, name, command)
        sub.add_argument("study", type=Path, help="the study's YAML file")
        if command in _PER_RUN:
            sub.add_argument("run", help="name of the run, as `eil check STUDY` lists it")
        if command in _OPTIONS:
            _OPTIONS[command](sub)
        sub.add_argument("--results", type=Path, help="the study's results (default: results/NAME)")
        images = "decoded images of all studies (default: results/data)"
        sub.add_argument("--data", type=Path, default=Path("results/data"), help=images)
        sub.add_argument("--data-root", type=Path, help="where the data set lies (else dataset.root, or EIL_DATA)")
    _score_options(_command(steps, "score", other_commands.score))
    _compare_options(_command(steps, "compare", other_commands.compare))
    about = steps.add_parser(
        "data", help="`eil data check` decodes a data set and says what is wrong with it."
    ).add_subparsers(required=True)
    _check_options(_command(about, "check", other_commands.data_check))
    return parser


def _command(group: Any, name: str, command: Command) -> argparse.ArgumentParser:
    """A command's own parser, with what it does and an example."""
    example = f"example: eil {_EXAMPLES[command]}"
    sub: argparse.ArgumentParser = group.add_parser(
        name, help=command.__doc__, description=command.__doc__, epilog=example
    )
    sub.set_defaults(command=command)
    return sub


def _plan_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--images", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="if not at hand yet")
    sub.add_argument("--classes", type=int, help="how many there are, if not at hand yet")
    sub.add_argument("--tflops", type=float, nargs="*", default=[], help="a device's rate, assumed, in TFLOP/s")
    sub.add_argument("--rates", type=Path, nargs="*", help="measured (default: results[/reference]/step-*.csv)")


def _time_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--batches", type=int, nargs="*", default=[], help="batch sizes (default: the recipe's)")
    sub.add_argument("--precisions", nargs="*", choices=("fp32", "tf32", "bf16"), default=[], help="likewise")
    sub.add_argument("--iterations", type=int, default=30, help="to time of each (default: 30)")
    sub.add_argument("--warmup", type=int, default=5, help="to let pass before (default: 5)")


def _profile_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", dest="profiled", help="name of the run (default: the study's first)")
    sub.add_argument("--iterations", type=int, default=10, help="to profile (default: 10)")


def _prepare_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cache", help="only this folder of decoded images")
    sub.add_argument("--only", choices=("photos", "annotations"), help="prepare only these (default: both)")


def _verify_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--retrain", action="store_true", help="train from scratch, instead of scoring the kept maps")


def _show_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--image", help="id of a test image, whose map and boxes are drawn")
    sub.add_argument("--out", type=Path, help="where to draw it (default: RESULTS/shown/RUN-IMAGE.png)")


def _boxes_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, help="file (default: boxes.json in the run's folder)")
    frames = "in whose pixels: of the photo, or of the square that the network sees (default: photo)"
    sub.add_argument("--frame", choices=("photo", "network"), default="photo", help=frames)


def _compare_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("first", type=Path, help="a study's folder of results")
    sub.add_argument("second", type=Path, help="another's, or the same study's at another commit")
    sub.add_argument("--out", type=Path, help="folder for compare.md, .csv and .tex (default: print it)")


def _clean_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--maps", action="store_true", help="maps of finished runs too (localizing makes them again)")
    sub.add_argument("--weights", action="store_true", help="weights too (only training makes them again)")
    sub.add_argument("--dry-run", action="store_true", help="list them and remove nothing")


def _check_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dataset", help="its layout, as dataset.name in a study")
    sub.add_argument("--root", type=Path, help="where it lies (else EIL_DATA)")
    sub.add_argument("--set", metavar="KEY=VALUE", nargs="*", default=[], help="further settings, as under dataset")
    sub.add_argument("--out", type=Path, help="for check.json and sheet.png (default: results/check/DATASET)")


def _score_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--maps", type=Path, required=True, help="folder of the maps, of any resolution and float type")
    sub.add_argument("--metadata", type=Path, required=True, help="folder of the lists, metadata/CUB/test")
    sub.add_argument("--protocol", default="wsoleval-v2", help="a name in protocols.yaml (default: wsoleval-v2)")
    sub.add_argument("--val-maps", type=Path, help="maps on which a protocol chooses its threshold if not on these")
    sub.add_argument("--val-metadata", type=Path, help="lists of those")
    sub.add_argument("--masks", type=Path, help="where masks lie that the lists name (OpenImages)")
    sub.add_argument("--side", type=int, default=224, help="of the frame (default: 224)")
    sub.add_argument("--allow-missing", action="store_true", help="count an image without a map as a miss")
    sub.add_argument("--json", action="store_true", help="print JSON")


_PER_STUDY: tuple[Command, ...] = (
    study_commands.check,
    study_commands.plan,
    study_commands.prepare,
    study_commands.sheet,
    study_commands.measure,
    study_commands.profile,
    study_commands.status,
    study_commands.aggregate,
    study_commands.clean,
    study_commands.figures,
)
_PER_RUN: tuple[Command, ...] = (
    study_commands.train,
    study_commands.localize,
    study_commands.evaluate,
    study_commands.show,
    study_commands.boxes,
    study_commands.verify,
)
_STUDY, _RUN = "workflow/config/demo.yaml", "vgg_small-cam-seed0"
_EXAMPLES: dict[Command, str] = {
    study_commands.check: f"check {_STUDY}",
    study_commands.plan: f"plan {_STUDY} --tflops 40",
    study_commands.prepare: f"prepare {_STUDY}",
    study_commands.sheet: f"sheet {_STUDY}",
    study_commands.measure: f"time {_STUDY} --precisions fp32 bf16 --batches 32 64",
    study_commands.profile: f"profile {_STUDY} --run {_RUN}",
    study_commands.status: f"status {_STUDY}",
    study_commands.aggregate: f"aggregate {_STUDY}",
    study_commands.clean: f"clean {_STUDY} --maps --dry-run",
    study_commands.figures: f"figures {_STUDY}",
    study_commands.train: f"train {_STUDY} {_RUN}",
    study_commands.localize: f"localize {_STUDY} {_RUN}",
    study_commands.evaluate: f"evaluate {_STUDY} {_RUN}",
    study_commands.show: f"show {_STUDY} {_RUN} --image test/00/0001",
    study_commands.boxes: f"boxes {_STUDY} {_RUN} --out boxes.json",
    study_commands.verify: f"verify {_STUDY} {_RUN} --retrain",
    other_commands.score: "score --maps my_maps --metadata metadata/CUB/test --protocol wsoleval-v2",
    other_commands.compare: "compare results/demo old/results/demo",
    other_commands.data_check: "data check cub --root /path/to/CUB_200_2011",
}
_OPTIONS: dict[Command, Callable[[argparse.ArgumentParser], None]] = {
    study_commands.plan: _plan_options,
    study_commands.prepare: _prepare_options,
    study_commands.measure: _time_options,
    study_commands.show: _show_options,
    study_commands.boxes: _boxes_options,
    study_commands.verify: _verify_options,
    study_commands.clean: _clean_options,
    study_commands.profile: _profile_options,
}
