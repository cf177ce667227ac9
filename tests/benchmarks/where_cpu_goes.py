"""Where the CPU time of a finished study went, from what Snakemake measured of each job.

``python tests/benchmarks/where_cpu_goes.py results/demo [--out FILE.md]``. Of training steps it is the wall time
times the share of the core that they got (``cpu_share`` in history.csv, with one thread a job).
"""

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def seconds_by_step(results: Path) -> dict[str, tuple[int, float]]:
    """Jobs and CPU seconds of each step of a study; ``results`` is its folder."""
    found: dict[str, list[float]] = collections.defaultdict(list)
    for path in sorted(results.rglob("*.benchmark.tsv")):
        measured = pd.read_csv(path, sep="\t")
        found[path.name.removesuffix(".benchmark.tsv")].append(float(measured["cpu_time"].iloc[0]))
    return {step: (len(seconds), sum(seconds)) for step, seconds in found.items()}


def training_steps(results: Path) -> float:
    """CPU seconds of all training steps: forward, backward, update."""
    histories = (pd.read_csv(path) for path in sorted(results.glob("runs/*/history.csv")))
    return sum(float((each["seconds"] * each["cpu_share"]).sum()) for each in histories)


def table(results: Path) -> str:
    """The table as Markdown."""
    steps = seconds_by_step(results)
    whole, inside = sum(seconds for _, seconds in steps.values()), training_steps(results)
    lines = [["step", "jobs", "CPU seconds", "share"], ["---"] * 4]
    for step, (jobs, seconds) in sorted(steps.items(), key=lambda item: -item[1][1]):
        lines.append([step, str(jobs), f"{seconds:.0f}", f"{100 * seconds / whole:.1f} %"])
    lines.append(["all", str(sum(jobs for jobs, _ in steps.values())), f"{whole:.0f}", "100 %"])
    lines.append(["of it training steps", "", f"{inside:.0f}", f"{100 * inside / whole:.1f} %"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a study, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    text = table(given.results)
    if given.out:
        given.out.write_text(f"**CPU seconds of {given.results.name} by step**\n\n{text}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
