"""The bar below Snakemake's output."""

import os
import struct
import subprocess
import sys

import pytest

LINES = [
    "Execute 3 jobs...",
    "1 of 4 steps (25%) done",
    "Error in rule train:",
    "    jobid: 3",
    "2 of 4 steps (50%) done",
]
SNAKEMAKE = f"print(*{LINES}, sep='\\n'); raise SystemExit(1)"
RUN = f"""
import sys
from eil.commands import workflow
print("exit", workflow._run([sys.executable, "-c", {SNAKEMAKE!r}]))
"""


def at_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of 100 by 40 characters."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # Linux: the other end is closed
            pass
    os.close(ours)
    return written.decode()


def test_a_terminal_shows_every_line_and_a_bar_with_steps_time_left_and_failures() -> None:
    lines = at_terminal([sys.executable, "-c", RUN]).replace("\r", "\n").splitlines()
    assert [line for line in lines if line in LINES] == LINES and "exit 1" in lines
    bars = [line for line in lines if "4 [" in line]
    assert any(" 1/4 [" in bar and "<" in bar for bar in bars)
    assert " 2/4 [" in bars[-1] and "1 failed]" in bars[-1]


def test_without_a_terminal_snakemakes_lines_are_handed_on_as_they_are() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == sorted([*LINES, "exit 1"])
    assert done.stderr == ""
