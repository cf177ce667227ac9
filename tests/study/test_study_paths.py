"""Paths in a study mean the same for every command, and no study takes anything of the demo."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from workflows import ROOT, dry_run

from eil.commands import cli
from eil.core.files import InputError
from eil.core.run import DatasetChoice
from eil.study import study_paths
from eil.study.study import load, parse

WEIGHTS = f"mine.pth@sha256:{'AB' * 32}"


@pytest.mark.parametrize("key", ["dataset", "methods", "backbones", "name"])
def test_a_given_study_takes_nothing_of_the_demo(tmp_path: Path, content: dict[str, Any], key: str) -> None:
    del content[key]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    code, output = dry_run(tmp_path, "--configfile", str(tmp_path / "mine.yaml"))
    assert code != 0
    assert f"{tmp_path / 'mine.yaml'}: {key}: missing" in output
    assert "Traceback" not in output
    assert "adl" not in output
    assert not (tmp_path / "results").exists()


def test_a_given_study_without_a_recipe_has_the_default_one(tmp_path: Path, content: dict[str, Any]) -> None:
    content = {key: value for key, value in content.items() if key not in ("recipe", "controls")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    code, output = dry_run(tmp_path, "--configfile", str(tmp_path / "mine.yaml"))
    assert code == 0, output
    kept = load(tmp_path / "results" / "tiny" / "study.yaml")
    assert kept == parse(content, "x")
    assert (kept.recipe.epochs, kept.protocols) == (80, ("val-threshold",))


def test_the_demo_runs_in_another_folder_with_overrides_of_the_command_line(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, output = dry_run(tmp_path / "volume", "--config", "seeds=1", "runs_per_gpu=2", cwd=elsewhere)
    assert code == 0, output
    kept = load(tmp_path / "volume" / "results" / "demo" / "study.yaml")
    demo = load(ROOT / "workflow" / "config" / "demo.yaml")
    assert kept == demo.model_copy(update={"seeds": (0,)})
    assert list(elsewhere.iterdir()) == []


def of_photos(content: dict[str, Any], root: str, weights: str = WEIGHTS) -> dict[str, Any]:
    return content | {
        "dataset": {"name": "cub", "root": root, "cubv2": "../cubv2"},
        "backbones": {"resnet50": {"pretrained": weights}},
        "methods": ["cam"],
    }


def test_relative_paths_are_relative_to_the_study_in_every_command(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studies, elsewhere = tmp_path / "home" / "studies", tmp_path / "volume" / "deep"
    studies.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    (studies / "mine.yaml").write_text(yaml.safe_dump(of_photos(content, "../$WHICH/CUB")))
    monkeypatch.setenv("WHICH", "photos")
    found = {}
    for folder, given in ((studies, "mine.yaml"), (elsewhere, "../../home/studies/mine.yaml")):
        monkeypatch.chdir(folder)
        study = load(Path(given))
        assert study.dataset.folder() == tmp_path / "home" / "photos" / "CUB"
        assert study.dataset.settings["cubv2"] == str(tmp_path / "home" / "cubv2")
        found[folder] = [(run.name, run.key, run.cache) for run in study.runs()]
        # `check` gets as far, `plan` to the missing photos, which it names by the place where it looked.
        assert cli.main(["check", given]) == 0
        assert cli.main(["plan", given]) == 1
        assert f"in {study.dataset.root}" in capsys.readouterr().err
    assert found[studies] == found[elsewhere]
    code, output = dry_run(elsewhere, "--configfile", "../../home/studies/mine.yaml", cwd=elsewhere)
    assert code == 0, output
    text = (elsewhere / "results" / "tiny" / "study.yaml").read_text()
    kept = yaml.safe_load(text)
    assert all(Path(path).is_absolute() for path in (kept["dataset"]["root"], kept["dataset"]["cubv2"]))
    monkeypatch.delenv("WHICH")  # what is kept needs it no more
    monkeypatch.chdir(tmp_path)
    again = load(elsewhere / "results" / "tiny" / "study.yaml").runs()
    assert [(run.name, run.key, run.cache) for run in again] == found[studies]
    assert str(again[0].pretrained).startswith(f"{studies}/mine.pth@")


def test_data_root_of_the_command_line_is_relative_to_the_working_directory(
    tmp_path: Path, content: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "mine.yaml"
    path.write_text(yaml.safe_dump(content | {"dataset": {"name": "tiny_imagenet", "val_per_class": 2}}))
    code, output = dry_run(tmp_path, "--configfile", str(path), "--config", f"data_root={photos.name}")
    assert code == 0, output
    kept = load(tmp_path / "results" / "tiny" / "study.yaml")
    assert kept.dataset.root == photos
    monkeypatch.chdir(photos.parent)
    assert cli.main(["plan", str(path), "--data-root", photos.name]) == 0
    monkeypatch.setenv("HOME", str(photos.parent))
    assert cli.main(["plan", str(path), "--data-root", f"~/{photos.name}"]) == 0
    monkeypatch.setenv("EIL_DATA", f"~/{photos.name}")
    assert cli.main(["plan", str(path)]) == 0
    assert DatasetChoice(name="tiny_imagenet").folder() == photos


def test_a_later_file_and_the_command_line_have_paths_of_their_own() -> None:
    parts: list[tuple[str, Path, dict[str, Any]]] = [
        ("a.yaml", Path("/a"), {"dataset": {"name": "cub", "root": "CUB", "held_out": 3}, "seeds": 2}),
        ("b/b.yaml", Path("/b"), {"dataset": {"cubv2": "V2"}, "backbones": {"vgg16": {"pretrained": WEIGHTS}}}),
        ("--config", Path("/here"), {"dataset": {"root": "mine"}, "backbones": {"vgg16": {"output_stride": 8}}}),
    ]
    assert study_paths.merged(parts) == {
        "dataset": {"name": "cub", "root": "/here/mine", "held_out": 3, "cubv2": "/b/V2"},
        "seeds": 2,
        "backbones": {"vgg16": {"pretrained": f"/b/{WEIGHTS}", "output_stride": 8}},
    }
    with pytest.raises(InputError, match=r"^b/b.yaml: dataset.cubv2 = \$NO_SUCH/V2: the environment variable NO_SUCH"):
        study_paths.merged([parts[0], ("b/b.yaml", Path("/b"), {"dataset": {"cubv2": "$NO_SUCH/V2"}})])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("CUB", "/studies/CUB"),
        ("./CUB", "/studies/CUB"),
        ("/CUB", "/CUB"),
        ("~/CUB", "/me/CUB"),
        ("$EMBEDDED/CUB", "/me/data/CUB"),
        ("${PLACE}2/CUB", "/studies/place2/CUB"),
        ("/all/$PLACE", "/all/place"),
        ("cost$$5", "/studies/cost$5"),
        ("a~", "/studies/a~"),
    ],
)
def test_home_and_environment_variables_stand_for_what_they_are(
    monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.setenv("PLACE", "place")
    monkeypatch.setenv("EMBEDDED", "~/data")
    assert study_paths.absolute(path, Path("/studies"), "dataset.root") == expected
    once = study_paths.located({"dataset": {"root": path}}, Path("/studies"))
    assert study_paths.located(study_paths.escaped(once), Path("/elsewhere")) == once


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$NO_SUCH/CUB", r"dataset.root = \$NO_SUCH/CUB: the environment variable NO_SUCH is not set, or empty"),
        ("${EMPTY}/CUB", "the environment variable EMPTY is not set, or empty"),
        ("cost$5", r"expected \$NAME or \$\{NAME\}, or \$\$ for a dollar sign"),
        ("$", r"or \$\$ for a dollar sign"),
        ("", "dataset.root: empty, expected a path"),
        ("~nobody_of_that_name/CUB", "dataset.root = ~nobody_of_that_name/CUB: Could not determine home directory"),
    ],
)
def test_paths_that_mean_nothing_are_named(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("EMPTY", "")
    content["dataset"]["root"] = path
    with pytest.raises(InputError, match=f"^s.yaml: .*{message}"):
        parse(content, "s.yaml")


def test_a_parent_is_that_of_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "far" / "studies").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "studies")
    assert Path(study_paths.absolute("../CUB", tmp_path / "link", "root")).resolve() == tmp_path / "far" / "CUB"
    assert study_paths.absolute("../CUB", tmp_path / "far" / "studies", "root") == str(tmp_path / "far" / "CUB")


def test_what_is_no_study_is_left_for_the_check_of_its_keys() -> None:
    for content in (
        None,
        [],
        {"dataset": []},
        {"dataset": {"name": []}},
        {"backbones": ["vgg16"]},
        {"backbones": {"a": 3}},
    ):
        assert study_paths.located(content, Path("/a")) == content
    named = {"dataset": {"name": "cub", "held_out": 3}, "backbones": {"vgg16": {"pretrained": "IMAGENET1K_V1"}}}
    assert study_paths.located(named, Path("/a")) == named


def test_the_key_of_a_run_follows_its_weights_and_not_where_they_lie(content: dict[str, Any]) -> None:
    def key(weights: str) -> str:
        return parse(of_photos(content, "/photos", weights), "x").runs()[0].key

    assert key(WEIGHTS) == key(f"/elsewhere/other.safetensors@sha256:{'ab' * 32}")
    assert key(WEIGHTS) != key(f"mine.pth@sha256:{'AC' * 32}")
    assert key(WEIGHTS) != key("IMAGENET1K_V1")
