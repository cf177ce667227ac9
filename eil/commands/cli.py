"""The ``eil`` program: find the command, run it, turn errors into messages and exit codes.

A step of a run does the same on the command line, in a test and under Snakemake.
"""

import io
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Group
from rich.console import Console

from eil import __version__
from eil.commands import backbones, data, importing, runs, score, study, timing, workflow
from eil.core import user_cache

_USAGE_ERROR = 2
_STUDY, _RUN, _OTHER = (
    Group.create_ordered(f"Commands {what}") for what in ("of a study", "of a run", "without a study")
)
_CLOSED_PIPE = 128 + getattr(signal, "SIGPIPE", 13)  # the exit code of a program that a closed pipe ended


class _Console(Console):
    """Prints the help; a closed pipe is left to :func:`main`."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError again, where rich would exit with 1."""
        raise  # noqa: PLE0704 rich calls this while it handles the error


def make_app() -> App:
    """All commands by their names."""
    app = App(
        name="eil",
        help="Benchmark weakly supervised object localization.",
        version=__version__,
        version_flags="--version",
        help_format="plaintext",
        console=_Console(),
    )
    of_study = (
        workflow.init,
        workflow.run,
        study.check,
        study.plan,
        study.prepare,
        study.sheet,
        study.status,
        study.aggregate,
        study.figures,
    )
    of_run = (runs.train, runs.localize, runs.evaluate, runs.show, runs.boxes, runs.verify)
    for command in (*of_study, study.clean, timing.profile):
        app.command(command, group=_STUDY)
    app.command(timing.time_study, name="time", group=_STUDY)
    for step in of_run:
        app.command(step, group=_RUN)
    app.command(score.score, group=_OTHER)
    app.command(score.compare, group=_OTHER)
    app.command(score.leaderboard, group=_OTHER)
    app.command(importing.import_checkpoint, name="import", group=_OTHER)
    app.command(backbones.list_backbones, name="backbones", group=_OTHER)
    datasets = App(name="data", help="Check a data set: `eil data check`.", group=_OTHER)
    datasets.command(data.check)
    app.command(datasets)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: of the command line, without the program's name (default: the process's).

    Returns:
        The exit code: 0; 1 for an error; 2 for a wrong command line; 75 if a signal ended the step, which the same
        command continues; 141, without a message, if nobody reads the output.
    """
    user_cache.ensure_user_name()
    _never_fail_to_encode()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            command = _parse(tokens)
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            command()
        finally:
            _flush()  # here a full disk or a closed pipe can still be reported
    except CycloptsError as error:
        print(f"eil: {' '.join(str(error).split())}\nTry `{_help_of(tokens)}`.", file=sys.stderr)
        return _USAGE_ERROR
    except BaseException as error:
        return _exit_code(error)
    return 0


def _parse(tokens: list[str]) -> Callable[[], object]:
    """The command with its arguments.

    Raises:
        CycloptsError: the command line is wrong.
    """
    command, bound, _ = make_app().parse_args(tokens, exit_on_error=False, print_error=False)
    if getattr(command, "__name__", "") == App.help_print.__name__ and not {"--help", "-h"} & set(tokens):
        raise CycloptsError(msg="a command is missing")
    return lambda: command(*bound.args, **bound.kwargs)


def _help_of(tokens: list[str]) -> str:
    """The command line that shows the help of the command that was meant."""
    names, _, _ = make_app().parse_commands(tokens)
    return " ".join(["eil", *names, "--help"])


def _exit_code(error: BaseException) -> int:
    """Print the message of an error that a user can act on and return its exit code.

    Raises:
        BaseException: any other error, a fault of the program.
    """
    # Imported here because pydantic and numpy are slow to import and a command that succeeds may not need them.
    from eil.core.files import InputError
    from eil.core.settings import SettingError
    from eil.execution import signals

    if isinstance(error, signals.Interrupted):
        print(f"eil: ended by {error}; the same command continues it", file=sys.stderr)
        return signals.EXIT_CODE
    if not isinstance(error, InputError | ArithmeticError | SettingError | OSError | signals.OutOfTime):
        raise error
    closed = isinstance(error, BrokenPipeError) and _output_is_closed()
    _drop_output()
    if closed:
        return _CLOSED_PIPE
    print(f"eil: {error}", file=sys.stderr)
    return 1


def _never_fail_to_encode() -> None:
    """Print a sign that the output's encoding lacks as an escape; on Windows a pipe has no γ, only code page 1252."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush() -> None:
    if sys.stdout is not None:  # None if the output was closed before the start
        sys.stdout.flush()


def _output_is_closed() -> bool:
    """Whether the output is a pipe that nobody reads; a pipe inside the program may break as well."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), select.POLLERR)
    except (AttributeError, OSError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Discard output that cannot be written; otherwise the interpreter would try again when it exits."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
