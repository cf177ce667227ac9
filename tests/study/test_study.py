"""Study files: grids, names, seeds, and errors that say where."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil.core.files import InputError
from eil.study import resolved
from eil.study.study import load, parse

CONFIGS = sorted(Path("workflow/config").glob("*.yaml"))
DEIT = "timm.deit_small_patch16_224.fb_in1k"
DROPPED = {  # each with every seed
    "post_2020": {"vgg16-tscam", "vgg16-scm", "resnet50-tscam", "resnet50-scm"}
    | {f"{DEIT}-{method}" for method in ("cam-headtap", "bridgegap", "bas")},
    "post_2020_birds": {f"vgg_small-{each}: maps nwc, layercam" for each in ("bas-area_weight0.5", "cam-headcalm")},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_studies_are_valid(path: Path) -> None:
    study = load(path)
    runs, dropped = study.expand(path.name)
    assert runs
    assert {re.split("-seed|: (?:BAS|CalmHead) ", line)[0] for line in dropped} == DROPPED.get(path.stem, set())
    assert study.name == path.stem


def test_the_readmes_study_is_valid() -> None:
    text = Path("README.md").read_text().split("```yaml\nname: my_study", 1)[1].split("```", 1)[0]
    runs, dropped = parse(yaml.safe_load(f"name: my_study{text}"), "README.md").expand("README.md")
    assert not dropped
    assert len({run.name for run in runs}) == 2 * 3 * (1 + 6 + 2 + 1 + 5)


def test_lists_are_axes_of_the_grid(content: dict[str, Any]) -> None:
    content["methods"]["eil"] = {"gamma": [0.5, 0.7], "sigma": [0.5, 1.0, 2.0]}
    content["backbones"] = ["vgg_small", "resnet_small"]
    runs = parse(content, "x").runs()
    assert len(runs) == 2 * (1 + 2 * 3) * 2
    assert {run.settings.get("gamma") for run in runs if run.method == "eil"} == {0.5, 0.7}


def test_names_are_readable_stable_and_unique(content: dict[str, Any]) -> None:
    names = [run.name for run in parse(content, "x").runs()]
    assert names[0] == "vgg_small-cam-seed0"
    assert names[2] == "vgg_small-eil-gamma0.6-sigma1-seed0"
    assert len(set(names)) == len(names)
    turned = content | {"methods": {"eil": dict(reversed(content["methods"]["eil"].items())), "cam": {}}}
    assert set(names) == {run.name for run in parse(turned, "x").runs()}


def test_seeds_pair_the_methods(content: dict[str, Any]) -> None:
    content["backbones"] = ["vgg_small", "resnet_small"]
    runs = parse(content, "x").runs()
    seeds = {(run.backbone, run.repetition): run.rng_seed for run in runs}
    assert all(run.rng_seed == seeds[run.backbone, run.repetition] for run in runs)
    assert len(set(seeds.values())) == 4


def test_which_seeds_may_be_named_and_their_runs_are_those_of_a_larger_number(content: dict[str, Any]) -> None:
    first, new = parse(content | {"seeds": 2}, "x"), parse(content | {"seeds": [3, 2]}, "x")
    all_runs = {run.name: run.key for run in parse(content | {"seeds": 4}, "x").runs()}
    assert {run.name: run.key for study in (first, new) for run in study.runs()} == all_runs
    assert [run.repetition for run in new.runs() if run.method == "cam"] == [3, 2]
    runs, _ = new.expand("x")
    assert [run.name for run in runs] == [run.name for run in new.runs()]
    assert new.find_run("vgg_small-cam-seed3").repetition == 3
    with pytest.raises(InputError, match="has no run vgg_small-cam-seed0"):
        new.find_run("vgg_small-cam-seed0")
    shown = list(resolved.lines(new, runs))
    assert len(shown) > 10
    without_seeds = list(resolved.lines(first, first.expand("x")[0]))
    assert shown == without_seeds


@pytest.mark.parametrize("seeds", [0, -1, 1.5, "2", True, None, 10**9, [], [-1], [1, True], ["1"], {"a": 1}])
def test_odd_seeds_are_refused(content: dict[str, Any], seeds: object) -> None:
    with pytest.raises(InputError, match=r"x: seeds = .*: must be how many repetitions, from 1 to 1,000,000, or which"):
        parse(content | {"seeds": seeds}, "x")


def test_a_seed_is_named_once_and_many_are_read_at_once(content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="x: seeds = .*: 5 is given twice"):
        parse(content | {"seeds": [5, 6, 5]}, "x")
    assert len(parse(content | {"seeds": list(range(50_000))}, "x").seeds) == 50_000
    assert parse(content, "x").model_validate(content | {"seeds": (7, 5)}).seeds == (7, 5)


def test_the_key_follows_settings_and_not_the_place_of_the_data(content: dict[str, Any]) -> None:
    def key(**changes: Any) -> str:
        return parse(content | changes, "x").runs()[0].key

    elsewhere = content["dataset"] | {"root": "/somewhere"}
    assert key() == key(dataset=elsewhere) == key(name="other")
    assert key() != key(recipe=content["recipe"] | {"epochs": 3})
    assert key() != key(dataset=content["dataset"] | {"classes": 3})


def test_a_backbone_may_have_its_own_recipe_and_settings(content: dict[str, Any]) -> None:
    content["backbones"] = {
        "vgg_small": None,
        "resnet_small": {"recipe": {"epochs": 7}, "methods": {"eil": {"at": "layer1", "gamma": 0.5}}},
    }
    runs, _ = parse(content, "x").expand("x")
    own = [run for run in runs if run.backbone == "resnet_small"]
    assert {run.recipe.epochs for run in own} == {7}
    assert {run.recipe.epochs for run in runs if run.backbone == "vgg_small"} == {2}
    assert next(run.settings for run in own if run.method == "eil") == {"gamma": 0.5, "sigma": 1.0, "at": "layer1"}


def test_what_makes_no_sense_is_dropped_with_its_reason(content: dict[str, Any]) -> None:
    content["backbones"] = {"efficientnet_lite0": {"methods": {"eil": {"at": ["block8", "head"]}}}}
    runs, dropped = parse(content, "x").expand("x")
    assert len(dropped) == len([run for run in runs if run.method == "eil"]) == 4
    assert "can be negative" in dropped[0]
    assert "set attention: mean_abs" in dropped[0]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("metods",), {}, "s.yaml: metods: unknown key"),
        (("recipe", "epoch"), 3, "s.yaml: recipe.epoch: unknown key (known: epochs, batch_size, learning_rate,"),
        (
            ("backbones",),
            {"vgg_small": {"stride": 3}},
            "unknown key (known: pretrained, output_stride, layout, network, recipe, methods)",
        ),
        (("recipe", "epochs"), 0, "s.yaml: recipe.epochs = 0: Input should be greater than or equal to 1"),
        (("recipe", "crop"), 40, "crop = 40 is larger than resize = 36"),
        (("seeds",), "many", "s.yaml: seeds = 'many'"),
        (("name",), "a" * 101, "String should have at most 100 characters"),
        (("methods",), ["cam", "cam"], "s.yaml: cam is given twice"),
        (("protocols",), ["val-threshold"] * 2, ": val-threshold is given twice"),
        (
            ("controls",),
            "gaussian",
            "controls = 'gaussian': Input should be a valid tuple; a list stands in brackets: [...]",
        ),
        (("recipe", "min_delta"), 2, "s.yaml: recipe.min_delta = 2: Input should be less than 1"),
        (("recipe", "milestones"), [0], "s.yaml: recipe.milestones"),
        (("name",), "../up", "s.yaml: name = '../up'"),
        (("methods", "eil", "gamma"), [0.6, 0.6], "two runs are named vgg_small-eil-gamma0.6"),
        (
            ("backbones",),
            {"vgg_small": {"recipe": {"epoch": 1}}},
            r"s.yaml: backbones.vgg_small.recipe.epoch: unknown key",
        ),
    ],
)
def test_bad_keys_and_values_are_named(
    content: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    _put(content, path, value)
    with pytest.raises(InputError) as error:
        parse(content, "s.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("methods", "eil", "gamma"), [0.6, 1.0, 1.4], "methods.eil.gamma[2] = 1.4: must be in (0, 1]"),
        (("methods", "eil", "gamma"), -1, "methods.eil.gamma = -1: Input should be greater than 0"),
        (("methods", "eil", "gama"), 0.5, "methods.eil.gama: unknown key (known: at, gamma, gamma_mode, sigma"),
        (("methods", "eil", "at"), "pool9", "methods.eil.at = pool9: must be a stage of vgg_small: conv1, pool1"),
        (("methods", "cma"), {}, "methods.cma: must be one of acol, adl, bas, bridgegap, cam"),
        (("methods", "cam"), {"gamma": 0.5}, "methods.cam.gamma: unknown key (known: head)"),
        (("dataset", "name"), "bird", "dataset.name = bird: must be one of birds, cub, folder, ilsvrc"),
        (("dataset", "clases"), 3, "dataset.clases: unknown key (known: classes, exif, first_class, images_per_class"),
        (("dataset", "classes"), 99, "dataset.classes = 99: Input should be less than or equal to"),
        (("backbones",), ["vgg17"], "backbones.vgg17: must be one of efficientnet_lite0, inception_v3, resnet50"),
        (
            ("backbones",),
            {"vgg_small": {"pretrained": "imagenet"}},
            "backbones.vgg_small.pretrained = imagenet: must be true, false, birds",
        ),
        (("backbones",), {"vgg16": {"output_stride": 4}}, "backbones.vgg16.output_stride = 4: vgg16 offers 16, 8, 32"),
        (("backbones",), {"vgg_small": {"methods": {"has": {}}}}, "backbones.vgg_small.methods.has: is not among"),
        (
            ("backbones",),
            {"vgg_small": {"methods": {"eil": {"at": ["conv1", "pool9"]}}}},
            "backbones.vgg_small.methods.eil.at[1] = pool9",
        ),
    ],
)
def test_what_methods_cannot_use_is_named(
    content: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    _put(content, path, value)
    with pytest.raises(InputError) as error:
        parse(content, "s.yaml").expand("s.yaml")
    assert message in str(error.value)


def test_several_problems_are_told_at_once(content: dict[str, Any]) -> None:
    content["recipe"] |= {"epoch": 1, "batchsize": 2}
    with pytest.raises(InputError) as error:
        parse(content, "s.yaml")
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just words", "", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"s\.yaml"):
        load(path)


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nmethods:\n  eil: {gamma: 0.6}\n  cam:\n  eil: {gamma: 0.8}\n")
    with pytest.raises(InputError, match=r"s\.yaml: line 5: eil is given twice, first in line 3"):
        load(path)


def test_a_plateau_needs_steps(content: dict[str, Any]) -> None:
    content["recipe"] |= {"stop": "plateau", "schedule": "cosine"}
    with pytest.raises(InputError, match="stop = plateau: expected schedule = step; a cosine is made for its last"):
        parse(content, "s.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: No such file"):
        load(tmp_path / "none.yaml")


def test_data_lie_where_the_study_the_option_or_the_environment_says(
    content: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content["dataset"] = {"name": "tiny_imagenet"}
    monkeypatch.delenv("EIL_DATA", raising=False)
    assert parse(content, "x").dataset.folder() is None
    monkeypatch.setenv("EIL_DATA", str(photos))
    assert parse(content, "x").dataset.folder() == photos
    monkeypatch.setenv("EIL_DATA", str(photos.parent))
    photos.rename(photos.parent / "tiny_imagenet")
    assert parse(content, "x").dataset.folder() == photos.parent / "tiny_imagenet"
    content["dataset"]["root"] = "/elsewhere"
    assert parse(content, "x").dataset.folder() == Path("/elsewhere")


def test_a_thousand_runs_are_spread_without_torch(content: dict[str, Any], tmp_path: Path) -> None:
    content["methods"]["eil"] = {"gamma": [k / 100 for k in range(1, 51)], "sigma": [k / 10 for k in range(1, 11)]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    code = (
        "import sys; from pathlib import Path; from eil.study.study import load;"
        "print(len(load(Path(sys.argv[1])).runs()), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s.yaml")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1002", "False"]


def _put(content: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value
