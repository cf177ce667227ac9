"""Commands that start a study outside a clone: write its files, and run it by the workflow that comes with eil."""

import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def init(name: str, /) -> None:
    """Write the files of a new study into this folder: NAME.yaml, a Snakefile and Snakemake's profile.

    Example: eil init my_study

    Args:
        name: The study's name.
    """
    from eil.core import project_files, safe_yaml
    from eil.core.files import InputError, write_text
    from eil.study.study import parse

    template = project_files.folder() / "workflow" / "template"
    study, profile = Path(f"{name}.yaml"), Path("profiles/default/config.yaml")
    text = (template / "my_study.yaml").read_text(encoding="utf-8").replace("my_study", name)
    parse(safe_yaml.read(text), f"eil init {name}")  # before a file is written: the name may be none for a folder
    if study.exists():
        raise InputError(f"{study}: exists already, expected the name of a new study")
    write_text(study, text)
    print(study)
    for path, source in ((Path("Snakefile"), template / "Snakefile"), (profile, project_files.folder() / profile)):
        if path.exists():
            print(f"{path}: kept as it was")
        else:
            write_text(path, source.read_text(encoding="utf-8").replace("my_study", name))
            print(path)
    print(f"next: eil run {study} --cores all")


def run(
    study: Path,
    /,
    *snakemake: Annotated[str, Parameter(allow_leading_hyphen=True)],
    trainings_per_job: int | None = None,
    job: int | None = None,
) -> None:
    """Run a study by Snakemake with the workflow that comes with eil: everything, or the targets that are given.

    Example: eil run my_study.yaml --cores all

    Args:
        study: The study's YAML file.
        snakemake: Snakemake's targets and options, such as `partial`, --cores 4, -n.
        trainings_per_job: Trainings in a job of a cluster, which also makes the controls and extractors that reuse
            their networks.
        job: Run only this job, counted from 1; the next command without it makes tables and figures.
    """
    from eil import snakefile
    from eil.core.files import InputError

    if not study.is_file():
        raise InputError(f"{study}: no such file, expected a study; `eil init NAME` writes one")
    share = []
    if trainings_per_job is not None or job is not None:
        share = ["--nolock", *_targets_of_job(study, trainings_per_job, job)]  # the jobs write no file in common
    # -P: a file of the working directory, yaml.py say, is not imported in place of a library. The targets stand before
    # --configfile, which takes every word after it.
    command = [sys.executable, "-P", "-m", "snakemake", *share, *snakemake, "--snakefile", snakefile()]
    if code := _run([*command, "--configfile", str(study)]):
        raise SystemExit(code)


def _targets_of_job(path: Path, trainings_per_job: int | None, job: int | None) -> list[str]:
    """Files that a job makes: the records of its trainings, and of the controls and extractors on their networks.

    Raises:
        InputError: there is no such job; the message says how many there are.
    """
    from eil.core.files import InputError
    from eil.study.study import load

    if trainings_per_job is None or trainings_per_job < 1:
        raise InputError(f"--trainings-per-job {trainings_per_job}: expected a number of at least 1, with --job {job}")
    study = load(path)
    families: dict[str, list[str]] = {}
    for run in study.expand(str(path))[0]:
        families.setdefault(run.training_run.name, []).append(f"results/{study.name}/runs/{run.name}/record.json")
    jobs = math.ceil(len(families) / trainings_per_job)
    if job is None or not 1 <= job <= jobs:
        raise InputError(f"--job {job}: {len(families)} trainings are {jobs} jobs, expected --job 1 to --job {jobs}")
    share = list(families.values())[(job - 1) * trainings_per_job : job * trainings_per_job]
    return [target for family in share for target in family]


def _run(command: list[str]) -> int:
    """The exit code of Snakemake, which handles Ctrl-C itself: the terminal sends it there as well.

    SIGTERM, by `docker stop` say, reaches this process alone, and is passed on to Snakemake and all its jobs.
    """
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        with subprocess.Popen(command) as process, _signals_left_to(process):
            return process.wait()
    from eil.commands import progress_bar

    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
        ) as piped,
        _signals_left_to(piped),
    ):
        assert piped.stdout is not None
        progress_bar.follow(piped.stdout, sys.stderr)
        return piped.wait()


@contextlib.contextmanager
def _signals_left_to(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Ignore Ctrl-C, and pass SIGTERM on. Entered after the process is started, as that would inherit it."""

    def pass_on(*_: object) -> None:
        import psutil  # type: ignore[import-untyped]  # comes with Snakemake

        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()

    handlers: dict[signal.Signals, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
