"""The commands that look at what there is: status, show, compare, boxes; and losses for TensorBoard and others."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from lightning_fabric.loggers import Logger as FabricLogger
from PIL import Image as PILImage

from eil.commands import cli
from eil.core import records
from eil.core.files import InputError, read_arrays, read_json, write_arrays, write_json
from eil.core.metric_definitions import COLUMNS, GT_KNOWN_LOC, MAIN, MAIN_ORACLE, ScoreKey
from eil.execution import run_lock
from eil.report import compare, main_table, results, status
from eil.study.study import load, parse
from eil.training.tensorboard import Logger

NAME = "vgg_small-eil-gamma0.6-sigma1-seed0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which one run is done, one has failed, and the rest has not begun."""
    from conftest import SMOKE

    folder = tmp_path_factory.mktemp("tools")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SMOKE))
    assert eil(folder, "prepare") == 0
    assert [eil(folder, command, NAME) for command in ("train", "localize", "evaluate")] == [0, 0, 0]
    other = load(folder / "tiny.yaml").find_run("vgg_small-cam-seed1")
    with pytest.raises(ZeroDivisionError), run_lock.run_step(other, folder / "results/runs" / other.name, "train"):
        raise ZeroDivisionError("by zero")
    return folder


def eil(folder: Path, command: str, *arguments: str) -> int:
    where = ["--results", str(folder / "results"), "--data", str(folder / "data")]
    return cli.main([command, str(folder / "tiny.yaml"), *arguments, *where])


def test_status_counts_and_says_what_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eil(place, "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 6 runs done, 0 running, 1 failed, 4 to do"
    assert lines[1] == "failed in train: vgg_small-cam-seed1: ZeroDivisionError: by zero"
    assert lines[2].startswith("1 of 6 trainings done, 0 running, about 0 minutes left for the others")
    assert lines[3] == "to try the failed ones again, repeat the command that started the study"


def test_status_tells_what_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load(place / "tiny.yaml").find_run("vgg_small-cam-seed0")
    with run_lock.run_step(run, place / "results/runs" / run.name, "train"):
        (place / "results/runs" / run.name / "train.log").write_text("epoch 1/2: so far\n")
        assert eil(place, "status") == 0
    out = capsys.readouterr().out
    assert "1 of 6 runs done, 1 running, 1 failed, 3 to do" in out
    assert "running: vgg_small-cam-seed0: train since 20" in out
    assert ", epoch 1/2: so far" in out


def test_progress_shares_what_is_left_among_those_at_work(place: Path, tmp_path: Path) -> None:
    runs = load(place / "tiny.yaml").runs()
    assert status.progress(runs, tmp_path) == "0 of 6 trainings done, 0 running"
    for run, seconds in zip(runs[:2], (3600, 7200), strict=True):
        write_json(tmp_path / run.name / "train.json", {"seconds": seconds})
    (tmp_path / runs[2].name).mkdir()
    (tmp_path / runs[2].name / "train.json").write_text("{")  # broken, so it will be made anew
    (tmp_path / runs[4].name).mkdir()
    write_json(tmp_path / runs[4].name / "train.json", {"seconds": 1, "key": "of other settings"})
    found = "2 of 6 trainings done, 0 running, about 6.0 hours left for the others"
    assert status.progress(runs, tmp_path) == status.progress(runs, tmp_path, extra_running=1) == found
    with run_lock.run_step(runs[3], tmp_path / runs[3].name, "train"):
        assert ", 1 running, about 3.0 hours left" in status.progress(runs, tmp_path, extra_running=1)
    for run in runs:
        write_json(tmp_path / run.name / "train.json", {"seconds": 60})
    assert status.progress(runs, tmp_path) == "6 of 6 trainings done, 0 running"


def test_show_prints_a_record_and_draws_an_image(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eil(place, "show", NAME, "--image", "test/01/0002", "--out", str(place / "one.png")) == 0
    out = capsys.readouterr().out
    record = records.read(place / "results/runs" / NAME / "record.json")
    assert f"{NAME}: done" in out
    assert f"GT-known Loc           {record.value(GT_KNOWN_LOC):6.1f} %" in out
    assert PILImage.open(place / "one.png").size[0] > 200
    assert eil(place, "show", "vgg_small-cam-seed1") == 0
    assert "failed in train: ZeroDivisionError: by zero" in capsys.readouterr().out
    assert eil(place, "show", NAME, "--image", "none") == 1
    assert "--image none: not among the 8 test images" in capsys.readouterr().err
    assert eil(place, "show", "vgg_small-eil-gamma0.8-sigma1-seed1") == 1
    assert "has no record yet; `eil status" in capsys.readouterr().err


def test_boxes_are_cocos(place: Path) -> None:
    assert eil(place, "boxes", NAME, "--frame", "network", "--out", str(place / "boxes.json")) == 0
    found = json.loads((place / "boxes.json").read_text())
    examples = read_arrays(place / "results/runs" / NAME / "examples.npz")
    logits = read_arrays(place / "results/runs" / NAME / "maps.npz")["test_logits"]
    assert len(found) == len(logits) == 8
    shown = dict(zip(examples["ids"].tolist(), examples["predicted"].tolist(), strict=True))
    for row, scores in zip(found, logits, strict=True):
        x, y, width, height = row["bbox"]
        assert [x, y, x + width - 1, y + height - 1] == shown[row["image_id"]]
        assert row["score"] == pytest.approx(np.exp(scores)[row["category_id"]] / np.exp(scores).sum(), abs=1e-5)
        assert (row["image_width"], row["image_height"]) == (32, 32)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("test_maps", np.full((8, 8, 8), np.nan, np.float32), "the map of test/00/0000 holds NaN or infinity; delete"),
        ("made_from_photos", np.array("0"), "was made from other photos than there are now; localize the run again"),
    ],
)
def test_spoilt_maps_give_no_boxes(
    place: Path, tmp_path: Path, key: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "results/runs" / NAME / "maps.npz"
    write_arrays(path, read_arrays(path) | {key: value})
    assert eil(tmp_path, "boxes", NAME, "--out", str(tmp_path / "none.json")) == 1
    assert f"{path}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_compare_pairs_what_two_studies_share(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_json(place / "results/runs" / NAME / "record.json")
    for row in content["scores"]:
        row["value"] += 5 * (row["metric"] == "top1_cls")
    content["provenance"]["commit"] = "abc"
    other = tmp_path / "other" / "runs" / NAME
    other.mkdir(parents=True)
    write_json(other / "record.json", content)
    assert cli.main(["compare", str(place / "results"), str(tmp_path / "other"), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "| Top-1 Cls" in line)
    assert row.split("|")[6].strip() == "5.0 ± 0.0"
    assert f"{tmp_path / 'other'}: commit abc" in out
    assert (tmp_path / "compare.tex").exists()
    # Other images: no pairs, so no interval.
    content["provenance"]["data_sha256"] = "other"
    write_json(other / "record.json", content)
    ours, theirs = results.records_in(place / "results"), results.records_in(tmp_path / "other")
    assert {row[5] for row in compare.compare(ours, theirs, ("a", "b")).rows} == {"–"}
    assert cli.main(["compare", str(place / "results"), str(tmp_path)]) == 1
    assert "no runs/*/record.json" in capsys.readouterr().err
    content["run"]["backbone"] = "resnet_small"
    write_json(other / "record.json", content)
    with pytest.raises(InputError, match="nothing|no backbone and method"):
        compare.compare(ours, results.records_in(tmp_path / "other"), ("a", "b"))


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_losses_go_to_a_logger_if_asked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Logger(None, tmp_path).write({"epoch": 1, "total": 0.5})
    assert not list(tmp_path.iterdir())
    written: list[tuple[dict[str, float], int | None]] = []

    class Fake(FabricLogger):
        name = version = None

        def __init__(self, *given: object, **settings: object) -> None:
            assert tmp_path in given
            assert settings.get("offline", True)

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            written.append((metrics, step))

        def log_hyperparams(self, *_: object) -> None: ...

    loggers = SimpleNamespace(TensorBoardLogger=Fake, WandbLogger=Fake)
    with monkeypatch.context() as patch:
        for module in ("lightning_fabric.loggers.tensorboard", "pytorch_lightning.loggers"):
            patch.setitem(sys.modules, module, loggers)
        patch.setitem(sys.modules, "pytorch_lightning", SimpleNamespace(loggers=loggers))
        Logger(kind, tmp_path).write({"epoch": 3, "total": 0.5, "lr": 0.1})
    assert written == [({"total": 0.5, "lr": 0.1}, 3)]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_logger_writes_or_says_what_to_install(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    needed = {"tensorboard": ["tensorboard"], "wandb": ["wandb", "pytorch_lightning"]}[kind]
    if all(map(find_spec, needed)):
        Logger(kind, tmp_path).write({"epoch": 3, "total": 0.5, "lr": 0.1})
        assert [path for path in (tmp_path / kind).rglob("*") if path.is_file()]
    else:
        with pytest.raises(InputError, match=rf"logger = {kind}: is not installed \(pip install {needed[0]}"):
            Logger(kind, tmp_path)


def test_the_main_tables_columns_are_the_studys(content: dict[str, Any]) -> None:
    study = parse(content | {"columns": ["Top-5 Loc", "Top-1 Cls"]}, "s")
    found = main_table.columns_of(study)
    assert found == {"Top-5 Loc ↑": ScoreKey("top5_loc"), "Top-1 Cls ↑": ScoreKey("top1_cls")}
    assert tuple(main_table.columns_of(parse(content, "s")).values()) == (*MAIN, *MAIN_ORACLE)
    with pytest.raises(InputError, match=r"s: columns\[1\] = .Top-2 Loc.: Input should be .Top-1 Loc"):
        parse(content | {"columns": ["Top-5 Loc", "Top-2 Loc"]}, "s")
    assert len(main_table.columns_of(parse(content | {"columns": list(COLUMNS)}, "s"))) == 12
