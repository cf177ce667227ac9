"""Output that nobody reads, and output that finds no room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMOKE = "workflow/config/smoke.yaml"


def unread(*arguments: str, unbuffered: str = "") -> tuple[int, str]:
    """Exit code and errors of a command whose output goes to a pipe that is closed before it begins."""
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    code = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
    code += "from eil.commands.cli import main; raise SystemExit(main())"
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "check", "--help"]], ids=" ".join)
def test_a_closed_pipe_ends_every_command_in_silence(arguments: list[str]) -> None:
    assert unread(*arguments) == (141, "")


FORKS = """
import contextlib, io, json, os, sys
from eil.commands.cli import main
commands = json.loads(sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()):
    main(["check", *commands["check"]])  # loads torch and the rest once for all
for command, arguments in commands.items():
    if not (child := os.fork()):
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
        os.dup2(os.open(command, os.O_WRONLY | os.O_CREAT), 2)
        raise SystemExit(main([command, *arguments]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_closed_pipe_ends_every_command_on_a_study_in_silence(tmp_path: Path) -> None:
    study = str(ROOT / SMOKE)
    commands = {"check": [study], "plan": [study], "status": [study], "clean": [study, "--dry-run"]}
    command = [sys.executable, "-c", FORKS, json.dumps(commands)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False, timeout=120)
    assert process.stdout.split() == ["141"] * len(commands), process.stderr
    assert {name: (tmp_path / name).read_text() for name in commands} == dict.fromkeys(commands, "")


def test_likewise_if_every_line_is_written_at_once() -> None:
    assert unread("--help", unbuffered="1") == (141, "")
    assert unread("check", SMOKE, unbuffered="1") == (141, "")


def test_the_first_line_of_much_output_is_read_alone(tmp_path: Path) -> None:
    text = (ROOT / SMOKE).read_text().replace("[0.6, 0.8]", str([k / 1000 for k in range(1, 1000)]))
    (tmp_path / "many.yaml").write_text(text)  # more than the 64 KiB that a pipe holds
    command = f"'{sys.executable}' -m eil check '{tmp_path / 'many.yaml'}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    assert process.stdout == "vgg_small-cam-seed0\n141\n"
    assert process.stderr == ""


def test_an_error_is_told_whether_or_not_the_output_is_read() -> None:
    assert unread("check", "none.yaml") == (1, "eil: none.yaml: No such file or directory\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "eil", "check", SMOKE]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (process.returncode, process.stderr) == (1, "eil: [Errno 28] No space left on device\n")


def test_output_that_was_closed_from_the_start() -> None:
    command = f"'{sys.executable}' -m eil check {SMOKE} >&-"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (process.returncode, process.stderr) == (0, "")


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from eil.commands import cli, study

    def broken(*_: object) -> None:
        raise BrokenPipeError("a worker is gone")

    monkeypatch.setattr(study, "open_study", broken)
    assert cli.main(["check", SMOKE]) == 1
    assert capfd.readouterr().err == "eil: a worker is gone\n"
