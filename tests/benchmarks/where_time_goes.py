"""Where the time of a finished study's jobs went, from what Snakemake measured of each job.

``python tests/benchmarks/where_time_goes.py results/demo [--out FILE.md]``. These are seconds of the clock, added over
jobs, of which several may run at once. Snakemake's ``cpu_time`` misses what comes after its last sample.
"""

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def seconds_by_step(results: Path) -> dict[str, tuple[int, float]]:
    """Jobs and seconds of each step of a study; ``results`` is its folder."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for path in sorted(results.rglob("*.benchmark.tsv")):
        found[path.name.removesuffix(".benchmark.tsv")].append(float(pd.read_csv(path, sep="\t")["s"].iloc[0]))
    return {step: (len(seconds), sum(seconds)) for step, seconds in found.items()}


def seconds_of_training(results: Path) -> dict[str, float]:
    """Seconds of all training steps (forward, backward, update), and of the passes over val after each epoch."""
    histories = [pd.read_csv(path) for path in sorted(results.glob("runs/*/history.csv"))]
    columns = {"training steps": "seconds", "forward passes over val": "val_seconds"}
    return {name: sum(float(each[column].sum()) for each in histories) for name, column in columns.items()}


def table(results: Path) -> str:
    """The table as Markdown."""
    steps = seconds_by_step(results)
    whole = sum(seconds for _, seconds in steps.values())
    lines = [["step", "jobs", "seconds", "share"], ["---"] * 4]
    for step, (jobs, seconds) in sorted(steps.items(), key=lambda item: -item[1][1]):
        lines.append([step, str(jobs), f"{seconds:.0f}", f"{100 * seconds / whole:.1f} %"])
    lines.append(["all", str(sum(jobs for jobs, _ in steps.values())), f"{whole:.0f}", "100 %"])
    for name, seconds in seconds_of_training(results).items():
        lines.append([f"of it {name}", "", f"{seconds:.0f}", f"{100 * seconds / whole:.1f} %"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a study, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    text = table(given.results)
    if given.out:
        given.out.write_text(f"**Seconds of {given.results.name}'s jobs by step**\n\n{text}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
