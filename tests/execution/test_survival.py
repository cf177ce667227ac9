"""What is told to end, fails, is killed or comes upon a damaged file goes on and ends the same."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from eil import backbones
from eil.commands import cli
from eil.core import records, source_hash
from eil.core.files import InputError, atomic_write, locked, write_json, write_text
from eil.core.run import Run
from eil.execution import collect, gpu_lease, run_lock, signals, verify
from eil.study.study import load
from eil.training import train, train_step

NAME = "vgg_small-eil-gamma0.6-sigma1-seed0"


@pytest.fixture
def place(content: dict[str, Any], images: Path, tmp_path: Path) -> Path:
    """A folder with a study and its decoded images."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    run = load(tmp_path / "tiny.yaml").find_run(NAME)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / run.cache).symlink_to(images)
    return tmp_path


def eil(place: Path, command: str, results: str = "results", run: str = NAME) -> int:
    where = ["--results", str(place / results), "--data", str(place / "data")]
    return cli.main([command, str(place / "tiny.yaml"), run, *where])


def folder(place: Path, results: str = "results") -> Path:
    return place / results / "runs" / NAME


def same_weights(one: Path, other: Path) -> bool:
    weights, others = (load_file(path / "weights.safetensors") for path in (one, other))
    return all(torch.equal(weights[name], others[name]) for name in weights)


def told_at(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
    """Send this process a signal in its step ``at``."""
    take, count = train_step.train_step, iter(range(1, 10_000))

    def told(*given: Any) -> Any:
        if next(count) == at:
            os.kill(os.getpid(), number)
        return take(*given)

    monkeypatch.setattr(train_step, "train_step", told)


@pytest.mark.parametrize(
    ("number", "at"), [(signal.SIGTERM, 2), (signal.SIGINT, 2), (signal.SIGTERM, 4), (signal.SIGTERM, 8)]
)
def test_a_training_told_to_end_saves_at_once_and_ends_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, at: int
) -> None:
    assert eil(place, "train", "whole") == 0
    with monkeypatch.context() as patch:
        told_at(patch, at, number)  # of two epochs of four steps each
        assert eil(place, "train") == signals.EXIT_CODE
    assert "the same command continues it" in capsys.readouterr().err
    left = {path.name for path in folder(place).iterdir()}
    assert "last.ckpt" in left
    assert not {"weights.safetensors", "failure.json", "running.json"} & left
    assert eil(place, "train") == 0
    assert f"resumed after epoch {(at - 1) // 4}, step {(at - 1) % 4 + 1}" in (folder(place) / "train.log").read_text()
    assert same_weights(folder(place), folder(place, "whole"))
    rows = [json.loads((folder(place, name) / "train.json").read_text())["history"] for name in ("results", "whole")]
    for one, other in zip(*rows, strict=True):
        clock = {"seconds", "images_per_s", "cpu_share", "val_seconds"}
        assert {k: v for k, v in one.items() if k not in clock} == {k: v for k, v in other.items() if k not in clock}


def test_a_damaged_checkpoint_falls_back_to_the_one_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert eil(place, "train", "whole") == 0
    with monkeypatch.context() as patch:
        told_at(patch, 6, signal.SIGTERM)  # in the second epoch of four steps
        assert eil(place, "train") == signals.EXIT_CODE
    last = folder(place) / "last.ckpt"
    assert (folder(place) / "previous.ckpt").exists()
    last.write_bytes(last.read_bytes()[:-1000])
    assert eil(place, "train") == 0
    log = (folder(place) / "train.log").read_text()
    assert "last.ckpt cannot be read" in log
    assert "resumed after epoch 1, step 0" in log
    assert same_weights(folder(place), folder(place, "whole"))
    assert not list(folder(place).glob("*.ckpt"))


def test_a_step_past_its_time_limit_is_a_failure_with_its_log(place: Path, content: dict[str, Any]) -> None:
    content |= {"time_limit": 0.01}
    content["recipe"] |= {"epochs": 10_000}
    (place / "tiny.yaml").write_text(yaml.safe_dump(content))
    assert eil(place, "train") == 1
    record = records.read(folder(place) / "failure.json")
    assert record.error == "OutOfTime: longer than the time limit of 0.01 minutes"
    assert record.step == "train"
    assert record.log[-1].startswith("epoch ")
    # It may have been ended while the last checkpoint was renamed and the next one not yet named.
    assert any((folder(place) / name).exists() for name in ("last.ckpt", "previous.ckpt"))
    assert collect.collect([record.run], place / "results" / "runs") == [record]


def test_out_of_memory_is_a_failure_that_says_what_to_change(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train_step, "train_step", full)
    assert eil(place, "train") == 1
    assert "out of memory with batch_size = 4" in capsys.readouterr().err
    assert "out of memory" in str(records.read(folder(place) / "failure.json").error)


def test_a_killed_step_leaves_a_trace_and_a_running_one_none(place: Path, runs: dict[str, Run]) -> None:
    found = runs[NAME]
    code = (
        "import sys, time; from pathlib import Path; from eil.execution import run_lock; from eil.study import study\n"
        f"run = study.load(Path(r'{place / 'tiny.yaml'}')).find_run('{NAME}')\n"
        f"with run_lock.run_step(run, Path(r'{folder(place)}'), 'train'):\n"
        "    print('at work', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        assert run_lock.is_busy(folder(place))
        assert collect.collect([found], folder(place).parent) == []
        process.kill()
        process.wait()
        (record,) = collect.collect([found], folder(place).parent)
        assert record.status == "failed"
        assert str(record.error).startswith(f"killed in train on {os.uname().nodename}, process {process.pid}")
    assert eil(place, "train") == 0
    assert collect.collect([found], folder(place).parent) == []


def test_a_second_process_waits_and_says_so(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = (
        "import sys, time; from pathlib import Path; from eil.core.files import locked\n"
        f"with locked(Path(r'{folder(place)}/.lock')):\n"
        "    print('locked', flush=True); time.sleep(1.5)"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process,
        caplog.at_level(20),
    ):
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        with locked(folder(place) / ".lock", "waiting"):
            assert time.monotonic() - started > 0.5
        assert "waiting" in caplog.text


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    here = os.uname().nodename.replace(".", "_")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    dead, alive, elsewhere = (
        tmp_path / f".a.{who}.part.json" for who in (f"{here}-{gone.pid}", f"{here}-{os.getppid()}", "another-1")
    )
    for path in (dead, alive, elsewhere):
        path.write_text("half")
    write_json(tmp_path / "a.json", {})
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.json", alive, elsewhere])


def test_a_full_disk_leaves_what_was_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(place / "kept.txt", "before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"), atomic_write(place / "kept.txt") as beside:
            beside.write_text("after")
        assert eil(place, "train") == 1
    assert (place / "kept.txt").read_text() == "before"
    assert not list(place.glob(".kept*"))
    assert eil(place, "train") == 0


def test_controls_have_no_training(place: Path, content: dict[str, Any]) -> None:
    (place / "tiny.yaml").write_text(yaml.safe_dump(content | {"controls": ["full_image"]}))
    assert eil(place, "train", run="vgg_small-cam-full_image-seed0") == 1
    with pytest.raises(InputError, match="no run"):
        load(place / "tiny.yaml").find_run("none")


def scored(place: Path) -> Path:
    """A run that is trained, localized and evaluated; its folder."""
    assert [eil(place, command) for command in ("train", "localize", "evaluate")] == [0, 0, 0]
    return folder(place)


def test_verify_finds_the_same_numbers_or_says_which_differ(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = scored(place)
    assert eil(place, "verify") == 0
    where = [str(place / "tiny.yaml"), NAME, "--results", str(place / "results"), "--data", str(place / "data")]
    assert cli.main(["verify", *where, "--retrain"]) == 0
    assert "every metric of a new training equals the recorded one" in capsys.readouterr().out
    content = json.loads((own / "record.json").read_text())
    row = next(row for row in content["scores"] if (row["split"], row["metric"]) == ("test", "top1_cls"))
    row["value"] += 0.001 if row["value"] < 50 else -0.001
    content["training"]["weights_sha256"] = "0" * 64
    write_json(own / "record.json", content)
    assert cli.main(["verify", *where, "--retrain"]) == 1
    error = capsys.readouterr().err
    assert "2 numbers differ" in error
    assert "test, val-threshold, top1_cls: recorded" in error
    assert "weights: recorded 000000" in error
    assert not list(own.glob(".verify*"))
    (own / "train.json").write_text(json.dumps(content["training"] | {"history": [{"epoch": 1}, 2]}))
    for command in ("verify", "evaluate"):
        assert eil(place, command) == 1
        assert f"{own / 'train.json'}: history: expected an object of the same numbers" in capsys.readouterr().err
    (own / "maps.npz").write_bytes(b"PK cut")
    assert eil(place, "verify") == 1
    assert f"{own / 'maps.npz'}: not a readable .npz" in capsys.readouterr().err
    (own / "maps.npz").unlink()
    assert eil(place, "verify") == 1
    assert "maps.npz: is not kept any more; `eil localize` makes it again" in capsys.readouterr().err


def test_clean_takes_what_can_be_made_again_and_never_a_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = scored(place)
    kept = {path.name for path in own.iterdir()}
    for name in ("last.ckpt", ".record.host-1.part.json"):
        (own / name).write_text("left")
    (own / "ahead").mkdir()  # maps that another run's process made, and nobody took
    (own / "ahead" / "maps.npz").write_text("waits")
    other = own.with_name("vgg_small-cam-seed0")
    other.mkdir()
    (other / "last.ckpt").write_text("of a training that is not finished")
    where = [str(place / "tiny.yaml"), "--results", str(place / "results")]
    assert cli.main(["clean", *where, "--dry-run", "--maps"]) == 0
    assert "5 files could go" in capsys.readouterr().out
    assert cli.main(["clean", *where]) == 0
    assert "2 files removed" in capsys.readouterr().out
    assert {path.name for path in own.iterdir()} == kept | {"ahead"}
    assert cli.main(["clean", *where, "--maps", "--weights"]) == 0
    assert kept - {path.name for path in own.iterdir()} == {"maps.npz", "curves.npz", "weights.safetensors"}
    assert (other / "last.ckpt").exists()


def test_clean_keeps_the_checkpoints_of_runs_whose_record_is_of_other_settings(
    place: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    own = scored(place)
    (own / "last.ckpt").write_text("of the training that goes on")
    content["recipe"] |= {"epochs": 80}
    (place / "tiny.yaml").write_text(yaml.safe_dump(content))
    where = [str(place / "tiny.yaml"), "--results", str(place / "results")]
    assert cli.main(["clean", *where, "--maps", "--weights"]) == 0
    assert "0 files removed" in capsys.readouterr().out
    assert (own / "last.ckpt").exists()
    assert (own / "maps.npz").exists()


def test_verify_waits_for_the_run_and_is_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = scored(place)
    evaluate = verify.evaluate
    busy = []

    def watched(*given: Any) -> Any:
        busy.append(run_lock.is_busy(own))  # so that `clean` leaves its folder alone
        return evaluate(*given)

    monkeypatch.setattr(verify, "evaluate", watched)
    assert eil(place, "verify") == 0
    assert busy == [True]


def test_waiting_for_a_gpu_takes_none_of_the_time_limit(
    place: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content |= {"time_limit": 0.05}  # 3 seconds
    (place / "tiny.yaml").write_text(yaml.safe_dump(content))

    @contextlib.contextmanager
    def late(*_: Any) -> Iterator[None]:
        time.sleep(4)
        yield

    monkeypatch.setattr(gpu_lease, "lease", late)
    monkeypatch.setattr(train, "train", lambda *_, **__: None)
    assert eil(place, "train") == 0
    monkeypatch.setattr(train, "train", lambda *_, **__: time.sleep(10))
    assert eil(place, "train") == 1
    assert records.read(folder(place) / "failure.json").error == "OutOfTime: longer than the time limit of 0.05 minutes"


def test_tables_of_yesterday_do_not_stay(place: Path) -> None:
    own = scored(place)
    tables = place / "results" / "tables"
    where = [str(place / "tiny.yaml"), "--results", str(place / "results")]
    assert cli.main(["aggregate", *where]) == 0
    assert (tables / "main.md").exists()
    (own / "record.json").unlink()
    assert cli.main(["aggregate", *where]) == 0
    assert list(tables.iterdir()) == []


def test_results_lie_where_the_workflow_puts_them_whatever_the_file_is_called(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(place)
    (place / "tiny.yaml").rename(place / "mine.yaml")
    (place / "elsewhere" / "results").mkdir(parents=True)
    (place / "results").rename(place / "elsewhere" / "results" / "tiny")  # the study's name
    monkeypatch.chdir(place / "elsewhere")
    assert cli.main(["status", str(place / "mine.yaml")]) == 0
    assert "1 of 6 runs done" in capsys.readouterr().out


def test_a_record_says_by_what_on_what_and_from_what_it_was_made(place: Path) -> None:
    own = scored(place)
    record = records.read(own / "record.json")
    made = record.training["provenance"]
    assert {"versions", "host", "processor", "threads", "gpu", "command", "commit", "time"} <= made.keys()
    assert made["peak_bytes"] > 50 * 2**20
    model = train_step.build(record.run, place / "data" / record.run.cache)
    train.load_weights(own / "weights.safetensors", model, record.run)
    assert record.training["weights_sha256"] == backbones.fingerprint(model)
    assert record.training["not_deterministic"] == []
    assert record.training["sources"] == source_hash.of_step("train", record.run)
    assert record.provenance["data_sha256"]


def test_what_is_not_deterministic_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = train_step.train_step

    def warned(*given: Any) -> Any:
        warnings.warn("some_kernel_cuda does not have a deterministic implementation, but", stacklevel=1)
        return take(*given)

    monkeypatch.setattr(train_step, "train_step", warned)
    with pytest.warns(UserWarning, match="of another kind"):
        monkeypatch.setattr(train, "save_weights", lambda *given: warnings.warn("of another kind", stacklevel=1))
        eil(place, "train")
    monkeypatch.undo()
    monkeypatch.setattr(train_step, "train_step", warned)
    assert eil(place, "train", "other") == 0
    assert json.loads((folder(place, "other") / "train.json").read_text())["not_deterministic"] == ["some_kernel_cuda"]


def test_tables_made_of_stale_trainings_say_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = scored(place)
    content = json.loads((own / "record.json").read_text())
    content["training"]["sources"] = "of yesterday"
    write_json(own / "record.json", content)
    assert cli.main(["aggregate", str(place / "tiny.yaml"), "--results", str(place / "results")]) == 0
    assert (
        f"stale, made with different source code: 1 runs, first {NAME}"
        in (place / "results/tables/main.md").read_text()
    )
