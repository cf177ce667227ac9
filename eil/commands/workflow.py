"""Commands that start a study outside a clone: write its files, and run it by the workflow that comes with eil."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

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


def run(study: Path, /, *snakemake: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run a study by Snakemake with the workflow that comes with eil: everything, or the targets that are given.

    Example: eil run my_study.yaml --cores all

    Args:
        study: The study's YAML file.
        snakemake: Snakemake's targets and options, such as `partial`, --cores 4, -n.
    """
    from eil import snakefile
    from eil.core.files import InputError

    if not study.is_file():
        raise InputError(f"{study}: no such file, expected a study; `eil init NAME` writes one")
    # -P: a file of the working directory, yaml.py say, is not imported in place of a library. The targets stand before
    # --configfile, which takes every word after it.
    command = [sys.executable, "-P", "-m", "snakemake", *snakemake, "--snakefile", snakefile()]
    if code := _run([*command, "--configfile", str(study)]):
        raise SystemExit(code)


def _run(command: list[str]) -> int:
    """The exit code of Snakemake, which handles Ctrl-C itself: the terminal sends it there as well."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        with subprocess.Popen(command) as process, _deaf_to_interrupts():
            return process.wait()
    from eil.commands import progress_bar

    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
        ) as process,
        _deaf_to_interrupts(),
    ):
        assert process.stdout is not None
        progress_bar.follow(process.stdout, sys.stderr)
        return process.wait()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C. Entered after a process is started, as that would inherit it."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
