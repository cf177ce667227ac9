"""What is told of a study before it starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import ROOT

from eil.commands.cli import main
from eil.study.study import parse
from eil.study.warnings import warnings


def told(content: dict[str, Any], **recipe: Any) -> list[str]:
    study = parse(content | {"recipe": content["recipe"] | recipe}, "x")
    return warnings(study, study.runs())


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 6, "milestones": [5]},
        {"epochs": 6, "milestones": [5, 60]},
        {"epochs": 6, "milestones": []},  # a constant rate on purpose
        {"epochs": 6, "milestones": [60], "schedule": "cosine"},
    ],
)
def test_a_rate_that_falls_or_stays_on_purpose_is_no_warning(content: dict[str, Any], recipe: dict[str, Any]) -> None:
    assert told(content, **recipe) == []


def test_a_step_schedule_that_never_steps_is_a_warning(content: dict[str, Any]) -> None:
    (line,) = told(content, epochs=5, milestones=[5, 60])
    assert line.startswith("the learning rate never falls: milestones = [5, 60] and epochs = 5; set recipe.milestones")
    assert line.endswith("(vgg_small-cam-seed0 and 5 more)")


def test_patience_without_a_plateau_is_a_warning(content: dict[str, Any]) -> None:
    content["methods"]["eil"] = {"recipe": {"patience": 4}}
    (line,) = told(content | {"seeds": 1}, stop="epochs")
    assert line == "recipe.patience = 4 does nothing without recipe.stop: plateau (vgg_small-eil-seed0)"
    assert told(content, stop="plateau") == []


def test_defaults_of_the_step_schedule_are_told_by_check(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del content["recipe"]["milestones"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    assert main(["check", str(tmp_path / "s.yaml")]) == 0
    assert "warning: the learning rate never falls: milestones = [60] and epochs = " in capsys.readouterr().out


def test_a_preset_that_leaves_the_rate_to_the_default_is_a_warning(content: dict[str, Any]) -> None:
    content |= {"backbones": ["resnet50"], "methods": {"cam": {}, "eil": {"at": "layer3"}}, "preset": "paper"}
    assert told(content) == []  # the study gives both
    del content["recipe"]["learning_rate"]
    (cam, eil) = told(content)
    assert cam == "preset paper has no recipe.learning_rate for cam on resnet50 and birds: the default is used (0.001)"
    assert eil.startswith("preset paper has no recipe.learning_rate for eil on resnet50 and birds")
    assert told(content | {"preset": None}) == []


@pytest.mark.parametrize("name", ["cub", "openimages", "reproduce_wsoleval", "reproduce_eil", "post_2020"])
def test_no_shipped_study_of_published_numbers_leaves_them_to_defaults(name: str) -> None:
    path = ROOT / "workflow" / "config" / f"{name}.yaml"
    study = parse(yaml.safe_load(path.read_text()), name)
    assert [line for line in warnings(study, study.runs()) if "preset" in line] == []


def test_what_is_not_trained_is_no_warning(content: dict[str, Any]) -> None:
    content |= {"backbones": ["resnet50"], "methods": {"cam": {}}, "preset": "paper"}
    del content["recipe"]["learning_rate"]
    study = parse(content, "x")
    imported = [run.model_copy(update={"checkpoint": "weights.pth"}) for run in study.runs()]
    assert len(warnings(study, study.runs())) == 1
    assert warnings(study, imported) == []
