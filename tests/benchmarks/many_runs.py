"""What a study of many runs costs beside its trainings: seconds and memory of each step at several sizes.

``PYTHONPATH=tests python tests/benchmarks/many_runs.py --sizes 100 1000 10000 --out results``. Nothing is trained,
records are made up. Linear means that CPU seconds per run do not grow with the size; the clock's seconds depend on
what else runs. Snakemake is measured on this workflow and on one of the same jobs that reads nothing else (``bare``):
the second is Snakemake's own share. ``eil train`` is one command with a training that does nothing: what each adds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from made_records import whole_record
from saving import save

from eil.core.files import write_arrays, write_json
from eil.study.study import Study, parse

ROOT = Path(__file__).parents[2]
AXES = {100: (3, 3), 1000: (11, 9), 10_000: (27, 37), 20_000: (27, 74)}  # values of gamma and sigma, by runs
OF_A_RUN = ("weights.safetensors", "history.csv", "maps.npz")
TRAIN = (
    "import sys; from eil.training import train, localize; train.train = lambda *a, **k: None\n"
    "def stop(*a, **k): raise RuntimeError('nothing was trained')\n"
    "localize.localize_extractors = stop\n"
    "from eil.commands.cli import main; sys.exit(main(sys.argv[1:]))"
)
TOUCH = (  # Snakemake waits a tenth of a second for each job that it touches
    "import sys; from snakemake.executors import touch; touch.Executor.SLEEPING_TIME = 0\n"
    "from snakemake.cli import main; sys.exit(main(sys.argv[1:]))"
)
TOUCHED = ("-c", TOUCH, "--touch", "--forceall", "--max-jobs-per-timespan", "100000/1s")
BARE = """
RUNS = open("runs.txt").read().split()
rule all:
    input: "tables.txt", "figures.txt"
rule tables:
    input: expand("bare/{run}/record.json", run=RUNS)
    output: "tables.txt"
    shell: "touch {output}"
rule figures:
    input: expand("bare/{run}/record.json", run=RUNS), expand("bare/{run}/examples.npz", run=RUNS)
    output: "figures.txt"
    shell: "touch {output}"
rule train:
    output: "bare/{run}/weights.safetensors", "bare/{run}/history.csv", "bare/{run}/train.json"
    resources: gpu=1
    shell: "touch {output}"
rule localize:
    input: "bare/{run}/weights.safetensors"
    output: "bare/{run}/maps.npz"
    resources: gpu=1
    shell: "touch {output}"
rule evaluate:
    input: "bare/{run}/maps.npz", "bare/{run}/train.json"
    output: "bare/{run}/record.json", "bare/{run}/examples.npz"
    shell: "touch {output}"
"""


@dataclass(frozen=True)
class Cost:
    """Of a process and those that it started: seconds of the clock, of processors, and the largest memory in MiB."""

    wall: float
    cpu: float
    memory: float


def content(runs: int) -> dict[str, object]:
    """A study of so many runs: two backbones, CAM and a grid of EIL, five seeds."""
    gammas, sigmas = AXES[runs]
    return {
        "name": "many",
        "dataset": {"name": "birds", "classes": 5, "train_per_class": 20, "val_per_class": 5, "test_per_class": 5},
        "backbones": ["vgg_small", "resnet_small"],
        "methods": {
            "cam": {},
            "eil": {
                "gamma": [round(0.1 + 0.8 * k / gammas, 4) for k in range(gammas)],
                "sigma": [round(0.1 + k / sigmas, 4) for k in range(sigmas)],
            },
        },
        "seeds": 5,
        "controls": [],
        "recipe": {"epochs": 7, "batch_size": 8, "resize": 40, "crop": 32},
    }


def cost(command: Sequence[str | Path], folder: Path) -> Cost:
    """Execute a command in a folder and measure it.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    log, began = folder / "out.txt", time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=out, stderr=out, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command}: {log.read_text()[-2000:]}")
    return Cost(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def make_results(study: Study, folder: Path) -> None:
    """Write all files of the study's runs as if they were done; the large ones are empty."""
    rng = np.random.default_rng(0)
    resamples, box = rng.normal(0, 2, 1000), np.tile([4.0, 4, 20, 20], (6, 1))
    images = rng.integers(0, 255, (6, 32, 32, 3), np.uint8)
    arrays = {"ids": np.array(list("abcdef")), "images": images, "maps": images[..., 0], "true": box, "predicted": box}
    write_arrays(folder / "examples.npz", arrays)
    for run in study.runs():
        own = folder / "results" / study.name / "runs" / run.name
        own.mkdir(parents=True)
        for name in OF_A_RUN:
            (own / name).touch()
        record = whole_record(run, resamples, rng)
        write_json(own / "train.json", record.training)
        (own / "record.json").write_text(record.model_dump_json(indent=1))
        os.link(folder / "examples.npz", own / "examples.npz")


def make_data(study: Study, folder: Path) -> None:
    """Write empty files in the place of the decoded images; commands that read them fail then, Snakemake does not."""
    for cache in {run.cache for run in study.runs()}:
        for name in ("dataset.json", "annotations/annotations.json"):
            (folder / "results" / "data" / cache / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "results" / "data" / cache / name).touch()


def steps(study: Study, folder: Path) -> Iterator[tuple[str, Callable[[], Cost]]]:
    """Each step by name, in the order in which they can be measured."""
    engine = ["--directory", folder, "--cores", "2", "--quiet", "all"]
    ours = [*engine, "-s", ROOT / "Snakefile", "--configfile", folder / "study.yaml"]
    bare = [*engine, "-s", folder / "bare.smk", "--scheduler", "greedy", "--scheduler-subsample", "1000"]
    snakemake = ["-m", "snakemake"]
    (folder / "bare.smk").write_text(BARE)
    (folder / "runs.txt").write_text("\n".join(run.name for run in study.runs()))
    eil = lambda *words: lambda: cost(["-m", "eil", *words, "study.yaml"], folder)  # noqa: E731

    def with_results() -> Cost:
        make_results(study, folder)
        name = study.runs()[-1].name
        return cost(["-c", TRAIN, "train", "study.yaml", name, "--ahead"], folder)

    def with_data(*command: str | Path) -> Cost:
        make_data(study, folder)
        return cost(command, folder)

    def touched_bare() -> Cost:
        shutil.copytree(folder / "results/many/runs", folder / "bare", copy_function=os.link)
        for name in ("tables.txt", "figures.txt"):
            (folder / name).touch()
        return cost([*TOUCHED, *bare], folder)

    yield "eil check", eil("check")
    yield "snakemake -n, nothing done", lambda: cost([*snakemake, *ours, "-n"], folder)
    yield "bare snakemake -n, nothing done", lambda: cost([*snakemake, *bare, "-n"], folder)
    yield "eil train without its training, one command", with_results
    yield "eil status", eil("status")
    yield "eil aggregate", eil("aggregate")
    yield "eil figures", eil("figures")
    yield "snakemake --touch (every job is scheduled)", lambda: with_data(*TOUCHED, *ours)
    yield "bare snakemake --touch", touched_bare
    yield "snakemake -n, all done", lambda: cost([*snakemake, *ours, "-n"], folder)
    yield "bare snakemake -n, all done", lambda: cost([*snakemake, *bare, "-n"], folder)
    yield "snakemake --report", lambda: with_data(*snakemake, *ours, "--report", folder / "report.html")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], choices=AXES)
    parser.add_argument("--only", nargs="+", help="parts of the names of steps that are wanted")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    rows = []
    for runs in given.sizes:
        with tempfile.TemporaryDirectory(prefix="many_runs-") as name:
            folder = Path(name)
            (folder / "study.yaml").write_text(yaml.safe_dump(content(runs)))
            study = parse(content(runs), "study.yaml")
            for step, measure in steps(study, folder):
                if given.only and not any(part in step for part in given.only):
                    continue
                found = measure()
                times = f"{found.wall:.1f}", f"{found.cpu:.1f}", f"{1000 * found.cpu / runs:.2f}"
                rows.append([step, str(runs), *times, f"{found.memory:.0f}"])
                print(" | ".join(rows[-1]), flush=True)
    header = ["step", "runs", "seconds", "CPU seconds", "CPU ms a run", "memory (MiB)"]
    order = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    if given.out:
        note = "made-up records, no training; memory: the largest process"
        command = f"PYTHONPATH=tests python tests/benchmarks/many_runs.py --sizes {' '.join(map(str, given.sizes))}"
        print(save("many_runs", "Many runs", header, rows, note, command=command, folder=given.out))


if __name__ == "__main__":
    main()
