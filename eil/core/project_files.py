"""Find the project's files outside its packages: the Snakefile, the rules, the studies, the published scores."""

from pathlib import Path


def folder() -> Path:
    """The folder of Snakefile, workflow/, profiles/ and results/: ``eil/project`` in a wheel, in a clone its top."""
    packaged = Path(__file__).parents[1] / "project"
    return packaged if packaged.exists() else Path(__file__).parents[2]
