"""What a run says of itself is so: images a second, and why it was killed."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil.commands import cli
from eil.core.files import write_json
from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.execution import collect, out_of_memory, run_lock, signals
from eil.profiling import timing
from eil.report import status
from eil.study.study import parse
from eil.training import train_step

NAME = "vgg_small-cam-seed0"


@pytest.mark.parametrize(
    ("batch", "images"),
    [(4, 16), (6, 12), (16, 16), (40, 16)],
    ids=["all", "but the last, not full", "one", "one, not full"],
)
def test_images_per_s_counts_the_photos_that_were_trained_on(
    tmp_path: Path, content: dict[str, Any], batch: int, images: int
) -> None:
    content["recipe"] |= {"batch_size": batch}  # of 16 photos
    history = trained(tmp_path, content)
    assert [row["images_per_s"] * row["seconds"] for row in history] == pytest.approx([images] * 2)


def test_images_per_s_of_an_epoch_that_was_interrupted(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content["recipe"] |= {"batch_size": 5}  # three steps of 5 of the 16 photos
    real, count = train_step.train_step, [0]

    def told(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            signals._arrive(signals.Interrupted("SIGTERM"))
        return real(*arguments)

    monkeypatch.setattr(train_step, "train_step", told)
    assert command(tmp_path, content) == signals.EXIT_CODE
    monkeypatch.setattr(train_step, "train_step", real)
    history = trained(tmp_path, content)
    assert [row["images_per_s"] * row["seconds"] for row in history] == pytest.approx([15] * 2)


def command(folder: Path, content: dict[str, Any]) -> int:
    content["methods"] = ["cam"]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    places = ["--results", str(folder / "results"), "--data", str(folder / "data")]
    assert cli.main(["prepare", str(path), *places]) == 0
    return cli.main(["train", str(path), NAME, *places])


def trained(folder: Path, content: dict[str, Any]) -> list[dict[str, float]]:
    assert command(folder, content) == 0
    return json.loads((folder / "results" / "runs" / NAME / "train.json").read_text())["history"]


def test_timing_counts_the_photos_of_a_batch_that_is_not_full(tmp_path: Path, content: dict[str, Any]) -> None:
    content["recipe"] |= {"batch_size": 40}
    study = parse(content, "s")
    cache.build(birds.read(**study.dataset.settings), tmp_path, Frame(36, 32))
    run = study.runs()[0]
    found = timing.measure(run, run, tmp_path, iterations=2, warmup=0)
    assert found.batch_size == 16
    assert found.images_per_second == 16 / found.seconds["total"][1]


def killed(run: Run, folder: Path, **trace: Any) -> str:
    """What a study's status says of a run whose process left this."""
    content = {"step": "train", "key": run.key, "host": platform.node(), "process": 7, "started": "then"} | trace
    write_json(folder / run.name / "running.json", content)
    (record,) = collect.collect([run], folder)
    (line,) = [line for line in status.status([run], folder, {}) if line.startswith("failed")]
    assert line == f"failed in train: {run.name}: {record.error}"
    return str(record.error)


def test_out_of_memory_is_said_only_with_evidence(runs: dict[str, Run], tmp_path: Path) -> None:
    run, events = runs[NAME], tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    unknown = (
        f"killed in train on {platform.node()}, process 7, without a message; "
        "if the machine was out of memory, its system log says so"
    )
    assert killed(run, tmp_path) == unknown
    assert killed(run, tmp_path, oom_file=str(events), oom_kills=2) == unknown
    assert killed(run, tmp_path, oom_file=str(events), oom_kills=5) == unknown  # before a restart
    assert killed(run, tmp_path, oom_file=str(tmp_path / "gone"), oom_kills=0) == unknown
    assert killed(run, tmp_path, oom_file=str(events), oom_kills=1) == (
        f"killed in train on {platform.node()}, process 7, probably out of memory: since it started, the system killed "
        "a process here for lack of memory"
    )
    assert "the system killed 2 processes here" in killed(run, tmp_path, oom_file=str(events), oom_kills=0)
    elsewhere = killed(run, tmp_path, oom_file=str(events), oom_kills=0, host="elsewhere")
    assert "out of memory:" not in elsewhere


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/user.slice/job", "user.slice/job/memory.events", "oom 9\noom_kill 4\n"),
        ("0::/docker/abc", "memory.events", "oom_kill 4\n"),
        ("5:devices:/\n4:cpu,memory:/job\n0::/", "memory/job/memory.oom_control", "under_oom 0\noom_kill 4\n"),
        ("4:memory:/docker/abc", "memory/memory.oom_control", "oom_kill 4"),
    ],
)
def test_the_counter_is_found_in_either_version_of_control_groups(
    tmp_path: Path, groups: str, file: str, text: str
) -> None:
    (tmp_path / "cgroup").write_text(groups)
    path = tmp_path / "mount" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert out_of_memory.counter(tmp_path / "cgroup", tmp_path / "mount") == {"oom_file": str(path), "oom_kills": 4}


def test_without_control_groups_there_is_no_counter(tmp_path: Path) -> None:
    assert out_of_memory.counter(tmp_path / "none", tmp_path) == {}
    (tmp_path / "cgroup").write_text("0::/\n")
    assert out_of_memory.counter(tmp_path / "cgroup", tmp_path) == {}
    assert out_of_memory.since({}) == out_of_memory.since({"oom_file": 3, "oom_kills": "x"}) == 0


def test_a_running_step_keeps_the_counter(runs: dict[str, Run], tmp_path: Path) -> None:
    with run_lock.run_step(runs[NAME], tmp_path, "train"):
        trace = json.loads((tmp_path / "running.json").read_text())
    assert {key: value for key, value in trace.items() if key.startswith("oom")} == out_of_memory.counter()
