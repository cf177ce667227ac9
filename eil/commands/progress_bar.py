"""A bar below Snakemake's output: steps done, time left, failures."""

import re
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

_STEPS = re.compile(r"(\d+) of (\d+) steps \(")
_FAILURE = re.compile(r"Error in (?:rule|group) ")


def follow(lines: Iterable[str], terminal: TextIO) -> None:
    """Print Snakemake's lines as they come with a bar below them.

    Args:
        lines: of Snakemake's output, each with its line break.
        terminal: where lines and bar go.
    """
    failed = 0
    # By the mean over all steps, as a training and a table differ; drawn at once, as steps are rare.
    with tqdm(unit="step", smoothing=0, mininterval=0, leave=False, file=terminal, dynamic_ncols=True) as bar:
        for line in lines:
            bar.write(line, file=terminal, end="")
            if found := _STEPS.match(line):
                bar.total = int(found[2])
                bar.update(int(found[1]) - bar.n)
            if _FAILURE.match(line):
                failed += 1
                bar.set_postfix_str(f"{failed} failed")
