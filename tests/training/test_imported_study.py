"""`eil import`, and a study with a checkpoint: read, checked, evaluated and reported."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from miniatures import SMOKE
from reference_checkpoints import CLASSES, method_of, reference_of

from eil.commands import cli
from eil.core import records
from eil.core.files import InputError, read_json
from eil.report import figures
from eil.report.configurations import group
from eil.study.study import parse
from eil.training import imported

HASH = "ab" * 32
RUN = "vgg_small-cam-seed0"


def stored(path: Path, content: Any) -> str:
    torch.save(content, path)
    return f"{path}@sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_the_command_prints_lines_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"module.{name}": value.half() for name, value in reference_of("vgg16", "cam", 8).state().items()}
    checkpoint = stored(tmp_path / "best$1.pth.tar", {"architecture": "vgg16", "epoch": 3, "state_dict": state})
    path = checkpoint.partition("@")[0]
    command = ["import", path, "--backbone", "vgg16", "--method", "cam", "--layout", "wsoleval"]
    assert cli.main([*command, "--output-stride", "8"]) == 0
    output = capsys.readouterr().out
    assert "30 of 30 tensors mapped, 0 missing, 0 unexpected" in output
    assert f"{CLASSES} classes" in output
    lines = yaml.safe_load(output.partition("In a study:")[2])
    study = parse({"name": "x", "dataset": {"name": "birds"}, "seeds": 2, "controls": [], **lines}, "x", tmp_path)
    (run,) = study.runs()
    assert (run.checkpoint, run.layout, run.output_stride) == (checkpoint, "wsoleval", 8)
    model = method_of(run)
    assert len(imported.load(run, model).tensors) == 30
    assert cli.main(command) == 1  # stride 16
    assert "unexpected: features.27.bias (512)" in capsys.readouterr().out
    assert cli.main([*command, "--output-stride", "8", "--classes", "9"]) == 1
    assert f"fc.bias ({CLASSES}), head.classifier.bias is (9)" in capsys.readouterr().out


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.nn.Linear(2, 2)}, tmp_path / "module.pth")
    (tmp_path / "text.pth").write_text("no weights")
    stored(tmp_path / "other.pth", {"a.weight": torch.zeros(3)})
    options = ["--backbone", "vgg16", "--method", "cam"]
    for name, message in {
        "module.pth": "Only tensors are unpickled",
        "text.pth": "not a file of weights",
        "other.pth": "no classifier by a known name of cam on vgg16; give --classes",
        "missing.pth": "No such file",
    }.items():
        assert cli.main(["import", str(tmp_path / name), *options]) == 1
        assert message in capsys.readouterr().err


def test_a_checkpoint_in_a_study(content: dict[str, Any], tmp_path: Path) -> None:
    content["backbones"] = {"vgg_small": {"methods": {"cam": {"checkpoint": f"w/mine.pth@sha256:{HASH}"}}}}
    runs = {run.name: run for run in parse(content, "x", tmp_path).runs()}
    assert [name for name in runs if "-cam-" in name] == ["vgg_small-cam-seed0"]  # one repetition of two
    assert len([name for name in runs if "-eil-" in name]) == 4
    run = runs["vgg_small-cam-seed0"]
    assert run.checkpoint == f"{tmp_path}/w/mine.pth@sha256:{HASH}"
    elsewhere = run.model_copy(update={"checkpoint": f"/other.pth@sha256:{HASH.upper()}"})
    assert elsewhere.key == run.key
    assert run.model_copy(update={"checkpoint": f"/other.pth@sha256:{'cd' * 32}"}).key != run.key
    trained = run.model_copy(update={"checkpoint": None})
    assert trained.key != run.key
    assert trained.key == {r.name: r for r in parse({**content, "backbones": ["vgg_small"]}, "x").runs()}[run.name].key


def test_a_checkpoint_needs_no_pretrained_weights() -> None:
    """On ILSVRC the benchmark keeps the pretrained classifier; a checkpoint has its own."""
    choice = {"pretrained": True, "methods": {"cam": {"checkpoint": f"x.pth@sha256:{HASH}"}}}
    study = {"name": "x", "dataset": {"name": "ilsvrc"}, "backbones": {"resnet50": choice}, "layout": "wsoleval"}
    cam, has = parse({**study, "methods": {"cam": {}, "has": {}}, "controls": [], "seeds": 1}, "x").runs()
    assert (cam.pretrained, cam.network) == (False, {})
    assert (has.pretrained, has.network) == (True, {"keep_classifier": True})


@pytest.mark.parametrize(
    ("place", "checkpoint", "message"),
    [
        ("backbones.vgg_small.methods.cam", "x.pth", r"cam\.checkpoint = x\.pth: must be FILE@sha256"),
        ("methods.cam", f"x@sha256:{HASH}", r"methods\.cam\.checkpoint: weights fit one backbone"),
        ("backbones.vgg_small.methods.eil", f"x@sha256:{HASH}", "not a grid of gamma"),
    ],
)
def test_checkpoints_that_a_study_cannot_use(
    content: dict[str, Any], place: str, checkpoint: str, message: str
) -> None:
    content["backbones"] = {"vgg_small": {"methods": {"cam": {}, "eil": {}}}}
    inner = content
    for key in place.split("."):
        inner = inner[key]
    inner["checkpoint"] = checkpoint
    with pytest.raises(InputError, match=message):
        parse(content, "x")


@dataclass(frozen=True)
class Studies:
    """A study that trained a network, and one that imported it."""

    folder: Path
    second: list[str]  # arguments of a command
    digest: str


def arguments(folder: Path, name: str, study: dict[str, Any]) -> list[str]:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(study))
    return [str(folder / f"{name}.yaml"), "--results", str(folder / name), "--data", str(folder / "data")]


def evaluate(study: list[str], *runs: str) -> None:
    assert cli.main(["prepare", *study]) == 0
    for run in runs:
        for step in ("train", "localize", "evaluate"):
            assert cli.main([step, study[0], run, *study[1:]]) == 0


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    folder = tmp_path_factory.mktemp("imported")
    evaluate(arguments(folder, "first", {**SMOKE, "methods": {"cam": {}}}), RUN)
    weights = folder / "mine.safetensors"
    weights.write_bytes((folder / "first" / "runs" / RUN / "weights.safetensors").read_bytes())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    choice = {"methods": {"cam": {"checkpoint": f"mine.safetensors@sha256:{digest}"}}}
    changes = {"backbones": {"vgg_small": choice}, "methods": {"cam": {}, "has": {}}}
    second = arguments(folder, "second", {**SMOKE, **changes})
    evaluate(second, RUN, "vgg_small-has-seed0", "vgg_small-has-seed1")
    return Studies(folder, second, digest)


def test_our_own_weights_are_importable(studies: Studies) -> None:
    path = str(studies.folder / "mine.safetensors")
    assert cli.main(["import", path, "--backbone", "vgg_small", "--method", "cam"]) == 0


def test_an_imported_network_has_the_scores_of_the_trained_one(studies: Studies) -> None:
    folder = studies.folder / "second" / "runs" / RUN
    assert pd.read_csv(folder / "history.csv").columns.tolist() == ["epoch", "lr", "seconds", "images_per_s", "total"]
    summary = read_json(folder / "train.json")["imported"]
    assert summary.pop("tensors") > 10
    assert summary == {"file": "mine.safetensors", "sha256": studies.digest, "naming": "eil", "unused": []}
    one, two = (records.read(studies.folder / study / "runs" / RUN / "record.json") for study in ("first", "second"))
    assert one.scores == two.scores
    alone = [name for name, _ in figures.of_scores(group([two]))]
    assert "thresholds" in alone
    assert "training" not in alone


def test_reports_say_what_is_imported(studies: Studies, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("aggregate", "figures", "status", "plan", "check"):
        assert cli.main([command, *studies.second]) == 0
    assert cli.main(["check", "--resolved", *studies.second]) == 0
    assert cli.main(["show", studies.second[0], RUN, *studies.second[1:]]) == 0
    output = capsys.readouterr().out
    assert "imported from mine.safetensors" in output
    assert "3 runs, 2 of them trainings" in output
    assert "2 of 2 trainings done" in output
    results = studies.folder / "second"
    tables = "".join(path.read_text() for path in sorted((results / "tables").glob("*.md")))
    assert "cam (imported)" in tables
    said = f"imported, not trained here (mine.safetensors, sha256 {studies.digest[:12]}…, by eil's names)"
    assert f"cam on vgg_small: {said}" in tables
    assert (results / "figures" / "training.png").exists()
