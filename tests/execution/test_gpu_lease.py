"""GPUs lent to many processes, on a machine that has none: their names are made up, the locks are real."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from eil.core import nvml
from eil.core.files import InputError
from eil.execution import gpu_lease

CONTEXT = multiprocessing.get_context("spawn")
NAMES = ["GPU-a", "GPU-b"]


def hold(folder: Path, log: Path, seconds: float, count: int = 1, places: int = 1) -> None:
    """Hold GPUs for a while, and write which, from when to when."""
    with gpu_lease.lease_from(NAMES, count, places, folder) as names:
        start = time.monotonic()
        log.with_suffix(".held").write_text(" ".join(names))
        time.sleep(seconds)
        log.write_text(json.dumps({"names": names, "start": start, "end": time.monotonic(), "places": places}))


def started(*arguments: Any) -> Any:
    process = CONTEXT.Process(target=hold, args=arguments)
    process.start()
    return process


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def company(logs: list[Path], name: str) -> int:
    """The most holders that a GPU had at a time."""
    held = [each for each in (json.loads(log.read_text()) for log in logs) if name in each["names"]]
    return max(sum(a["start"] <= b["start"] < a["end"] for a in held) for b in held)


@pytest.mark.parametrize("places", [1, 2])
def test_a_gpu_has_no_more_jobs_than_places(tmp_path: Path, places: int) -> None:
    logs = [tmp_path / f"{k}.json" for k in range(6)]
    processes = [started(tmp_path / "locks", log, 0.3, 1, places) for log in logs]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert max(company(logs, name) for name in NAMES) <= places
    assert {name for log in logs for name in json.loads(log.read_text())["names"]} == set(NAMES)


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    first = started(tmp_path / "locks", tmp_path / "first", 600, 2)
    wait_for(tmp_path / "first.held")
    second = started(tmp_path / "locks", tmp_path / "second", 0)
    time.sleep(0.5)
    assert not (tmp_path / "second").exists()
    os.kill(first.pid, signal.SIGKILL)
    second.join(60)
    assert (tmp_path / "second").exists()


def test_who_wants_a_gpu_alone_waits_for_all_who_share_it(tmp_path: Path) -> None:
    logs = [tmp_path / f"{k}.json" for k in range(3)]
    shared = [started(tmp_path / "locks", log, 0.6, 2, 3) for log in logs[:2]]
    for log in logs[:2]:
        wait_for(log.with_suffix(".held"))
    alone = started(tmp_path / "locks", logs[2], 0.1, 2, 1)
    for process in (*shared, alone):
        process.join(60)
    assert company(logs[:2], "GPU-a") == 2
    assert json.loads(logs[2].read_text())["start"] >= max(json.loads(log.read_text())["end"] for log in logs[:2])


def test_a_job_of_two_gpus_does_not_starve(tmp_path: Path) -> None:
    logs = [tmp_path / f"{k}.json" for k in range(4)]
    with gpu_lease.lease_from(NAMES, 1, 1, tmp_path / "locks"):
        large = started(tmp_path / "locks", logs[0], 0.1, 2)
        time.sleep(3)  # it stands in line now, with the one GPU that is free
        small = [started(tmp_path / "locks", log, 0.1) for log in logs[1:]]
        time.sleep(3)
        assert not any(log.exists() for log in logs)
    for process in (large, *small):
        process.join(60)
    starts = [json.loads(log.read_text())["start"] for log in logs]
    assert starts[0] == min(starts)


def test_jobs_are_served_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    folder, logs = tmp_path / "locks", [tmp_path / f"{k}.json" for k in range(4)]
    processes = []
    with gpu_lease.lease_from(NAMES, 2, 1, folder):
        for k, log in enumerate(logs):
            processes.append(started(folder, log, 0.0, 2))
            wait_for(folder / f"ticket-{k + 1:09d}")
    for process in processes:
        process.join(60)
    starts = [json.loads(log.read_text())["start"] for log in logs]
    assert starts == sorted(starts)
    assert not list(folder.glob("ticket-*"))


def test_a_job_that_was_killed_in_line_holds_nobody_up(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with gpu_lease.lease_from(NAMES, 2, 1, folder):
        first, second = (started(folder, tmp_path / name, 0.0, 2) for name in ("first", "second"))
        wait_for(folder / "ticket-000000002")
        os.kill(first.pid, signal.SIGKILL)
        os.kill(second.pid, signal.SIGKILL)
        third = started(folder, tmp_path / "third", 0.0, 2)
        wait_for(folder / "ticket-000000003")
    third.join(60)
    assert (tmp_path / "third").exists()


def test_who_waits_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = started(tmp_path / "locks", tmp_path / "other", 1.0, 2)
    wait_for(tmp_path / "other.held")
    with caplog.at_level(20), gpu_lease.lease_from(NAMES, 1, 1, tmp_path / "locks"):
        pass
    other.join(60)
    assert "waiting for a GPU: GPU-a, GPU-b in use" in caplog.text


def test_more_than_there_are_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(InputError, match="3 GPUs are requested, 2 are visible"),
        gpu_lease.lease_from(NAMES, 3, 1, tmp_path),
    ):
        pass
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("EIL_RUNS_PER_GPU", wrong)
        with pytest.raises(InputError, match=f"EIL_RUNS_PER_GPU .* = {wrong}: must be a positive integer"):
            gpu_lease.runs_per_gpu()


def test_names_are_the_drivers_and_what_is_allotted_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "uuids", lambda: {str(k): f"GPU-{k}a-{k}f" for k in range(4)})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_lease.visible_gpus() == ["GPU-0a-0f", "GPU-1a-1f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-1a-1f")
    assert gpu_lease.visible_gpus() == ["GPU-3a-3f", "GPU-1a-1f"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpu_lease.visible_gpus() == []


def test_a_shared_gpu_gives_each_its_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    capped: list[tuple[float, int]] = []
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda *given: capped.append(given))
    monkeypatch.setattr(gpu_lease, "visible_gpus", lambda: ["GPU-test-of-eil"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("EIL_RUNS_PER_GPU", "4")
    with gpu_lease.lease():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-test-of-eil"
    with gpu_lease.lease(exclusive=True):
        pass
    assert capped == [(0.25, 0)]
