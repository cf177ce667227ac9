"""Where the time of a finished study's jobs went, from each job's ``*.benchmark.tsv``.

``python tests/benchmarks/where_time_goes.py results/demo [--out FILE.md]``. These are seconds of the clock, added over
jobs, of which several may run at once. Steps of runs count from the start of ``eil``, without the shell before it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def jobs_of(results: Path) -> pd.DataFrame:
    """A row for each job of a study whose folder is ``results``: step, seconds, folder.

    Runs whose training was resumed are left out with all their jobs: their last start alone was measured.
    """
    found = [
        (path.name.removesuffix(".benchmark.tsv"), float(pd.read_csv(path, sep="\t")["s"].iloc[0]), path.parent)
        for path in sorted(results.rglob("*.benchmark.tsv"))
    ]
    if not found:
        raise SystemExit(f"{results}: no job has left a .benchmark.tsv; it must be a study that Snakemake has run")
    jobs = pd.DataFrame(found, columns=["step", "seconds", "folder"])
    trained = jobs[jobs["step"] == "train"]
    resumed = [row.folder for row in trained.itertuples() if sum(seconds_of_training(row.folder)) > row.seconds]
    return jobs[~jobs["folder"].isin(resumed)]


def seconds_of_training(folder: Path) -> tuple[float, float]:
    """Seconds of a run's training steps (forward, backward, update), and of the passes over val after each epoch."""
    history = pd.read_csv(folder / "history.csv")
    return float(history["seconds"].sum()), float(history["val_seconds"].sum())


def seconds_of_localizing(folder: Path) -> float:
    """Seconds of a run's forward passes over val and test while it is localized, at the rate of those over val."""
    seconds = pd.read_csv(folder / "history.csv")["val_seconds"]
    with np.load(folder / "maps.npz") as arrays:
        return float(seconds.median()) * (1 + len(arrays["test_logits"]) / len(arrays["val_logits"]))


def table(results: Path) -> str:
    """The table as Markdown."""
    jobs = jobs_of(results)
    whole = float(jobs["seconds"].sum())
    lines = [["step", "jobs", "seconds", "share"], ["---"] * 4]
    steps = jobs.groupby("step")["seconds"].agg(["count", "sum"]).sort_values("sum", ascending=False)
    for step, (count, seconds) in [*steps.iterrows(), ("all", (len(jobs), whole))]:
        lines.append([str(step), f"{count:.0f}", f"{seconds:.0f}", f"{100 * seconds / whole:.1f} %"])
    trained = list(jobs[jobs["step"] == "train"]["folder"])
    in_training = np.array([seconds_of_training(folder) for folder in trained]).reshape(-1, 2).sum(axis=0)
    parts = {
        "training steps": float(in_training[0]),
        "forward passes over val after each epoch": float(in_training[1]),
        "forward passes of localizing, at their rate": sum(map(seconds_of_localizing, trained)),
    }
    for name, seconds in (parts | {"all three": sum(parts.values())}).items():
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
