"""Presets: every entry is usable as it stands, and what a study says stands above it."""

import itertools
from typing import Any

import pytest
import torch

from eil import backbones
from eil.core import registry
from eil.core.files import InputError
from eil.core.run import Recipe
from eil.core.settings import check
from eil.study import presets, resolved
from eil.study.precedence import resolve
from eil.study.study import parse

ENTRIES = [(name, entry) for name, entries in presets.read().items() for entry in entries]


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_entry_is_usable_and_has_a_source(name: str, entry: presets.Preset) -> None:
    assert entry.source
    assert entry.recipe or entry.settings or entry.scope.method == "cam"
    Recipe.model_validate(entry.recipe)
    if entry.scope.method is None:
        assert not entry.settings
        return
    cls = registry.load(registry.METHODS, entry.scope.method)
    assert check(cls, entry.settings, "") == []
    for backbone in [entry.scope.backbone] if entry.scope.backbone else ["vgg16", "resnet50", "inception_v3"]:
        shapes = backbones.build_shapes(backbone, False, entry.output_stride)
        with torch.device("meta"):
            cls(shapes, 200, **entry.settings)


@pytest.mark.parametrize("method", ["cam", "has", "acol", "spg", "adl", "cutmix"])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "inception_v3"])
def test_the_benchmarks_tuned_rates_are_known_on_cub(method: str, backbone: str) -> None:
    found = presets.find("wsoleval-tuned", "cub", backbone, method)
    assert found.recipe["learning_rate"] != Recipe().learning_rate
    assert (found.recipe["epochs"], found.recipe["weight_decay"]) == (50, 1e-4 if backbone == "resnet50" else 5e-4)
    assert (found.settings == {}) == (method == "cam")


def test_special_entries_stand_above_general_ones() -> None:
    found = presets.find("paper", "cub", "vgg16", "acol")
    assert found.settings == {"threshold": 0.6, "test_class": "given", "average_pool": True}
    assert found.recipe["epochs"] == 60
    assert presets.find("paper", "ilsvrc", "vgg16", "acol").recipe["epochs"] == 6
    assert presets.find("paper", "birds", "resnet50", "adl").settings["gamma"] == 0.9
    assert presets.find(None, "cub", "vgg16", "acol").settings == {}


def runs(content: dict[str, Any]) -> dict[str, Any]:
    return {run.method: run for run in parse(content, "s.yaml").expand("s.yaml")[0] if not run.repetition}


def test_one_word_in_a_study(content: dict[str, Any]) -> None:
    content |= {"preset": "paper", "methods": {"has": {}, "spg": {}, "cam": {}}}
    found = runs(content)
    assert found["has"].settings == {"sizes": [0, 16, 32, 44, 56], "drop_rate": 0.5}
    assert found["has"].name == "vgg_small-has-drop_rate0.5-sizes0+16+32+44+56-seed0"
    assert found["spg"].settings["seeds_c"] == [0.7, 0.1]
    assert found["cam"].recipe.epochs == 2


def test_the_study_stands_above_its_preset(content: dict[str, Any]) -> None:
    content |= {"preset": "wsoleval-tuned", "backbones": {"vgg16": {}}, "dataset": {"name": "cub"}}
    content["methods"] = {
        "has": {"drop_rate": [0.1, 0.2]},
        "cam": {"recipe": {"learning_rate": 0.5}},
        "eil": {"preset": None},
    }
    content["recipe"] = {"epochs": 7, "milestones": []}
    found = {run.name: run for run in parse(content, "x").runs()}
    has = found["vgg16-has-drop_rate0.1-sizes4-seed1"]
    assert has.settings == {"sizes": [4], "drop_rate": 0.1}
    assert (has.recipe.epochs, has.recipe.learning_rate, has.recipe.weight_decay) == (7, 1.42891848e-3, 5e-4)
    assert found["vgg16-cam-seed0"].recipe.learning_rate == 0.5
    assert found["vgg16-cam-seed0"].output_stride == 16
    assert found["vgg16-eil-seed0"].recipe.learning_rate == Recipe().learning_rate


def test_a_methods_own_preset_stands_above_the_studys_recipe(content: dict[str, Any]) -> None:
    content |= {"dataset": {"name": "cub"}, "recipe": {"epochs": 80, "learning_rate": 0.001, "precision": "bf16"}}
    content["backbones"] = {
        "vgg16": {"recipe": {"epochs": 70}},
        "resnet50": {
            "methods": {"has": {"preset": None}, "cam": {"preset": "wsoleval-tuned", "recipe": {"epochs": 9}}}
        },
    }
    content["methods"] = {"cam": {}, "has": {"preset": "wsoleval-tuned", "recipe": {"batch_size": 16}}}
    study = parse(content, "x")
    found = {key: resolve(study, *key) for key in itertools.product(study.backbones, study.methods)}
    has = found["vgg16", "has"]
    assert (has.recipe.epochs, has.recipe.learning_rate, has.recipe.batch_size) == (50, 1.42891848e-3, 16)
    assert has.recipe.precision == "bf16"
    assert has.place("recipe.epochs") == "methods.has.preset wsoleval-tuned"
    assert has.place("recipe.precision") == "recipe"
    assert has.place("recipe.batch_size") == "methods.has.recipe"
    assert has.place("recipe.warmup") == "default"
    assert has.replaced == (
        "methods.has.preset wsoleval-tuned: recipe.batch_size = 32 replaced by 16 (methods.has.recipe)",
    )
    assert (found["vgg16", "cam"].recipe.epochs, found["vgg16", "cam"].place("recipe.epochs")) == (
        70, "backbones.vgg16.recipe",
    )  # fmt: skip
    assert (found["resnet50", "has"].recipe.epochs, found["resnet50", "has"].preset) == (80, None)
    cam = found["resnet50", "cam"]
    assert (cam.recipe.epochs, cam.recipe.weight_decay, cam.output_stride) == (9, 1e-4, 8)
    assert cam.place("output_stride") == "backbones.resnet50.methods.cam.preset wsoleval-tuned"


def test_force_stands_above_all_and_breaks_a_preset(content: dict[str, Any]) -> None:
    content |= {"dataset": {"name": "cub"}, "backbones": ["vgg16"], "force": {"epochs": 1}}
    content["methods"] = {"cam": {"preset": "wsoleval-tuned", "recipe": {"epochs": 9}}}
    found = resolve(parse(content, "x"), "vgg16", "cam")
    assert (found.recipe.epochs, found.place("recipe.epochs")) == (1, "force")
    assert found.replaced == ("methods.cam.preset wsoleval-tuned: recipe.epochs = 50 replaced by 1 (force)",)
    with pytest.raises(InputError, match="x: force.epoch: unknown key"):
        parse(content | {"force": {"epoch": 1}}, "x")


def test_a_preset_made_at_another_stride_is_refused(content: dict[str, Any]) -> None:
    content |= {"dataset": {"name": "cub"}, "backbones": {"resnet50": {"output_stride": 16}}}
    content["methods"] = {"cam": {"preset": "wsoleval-tuned"}}
    with pytest.raises(InputError, match=r"resnet50.output_stride = 16: .*cam.preset wsoleval-tuned was made with 8"):
        parse(content, "x")
    content["backbones"]["resnet50"]["output_stride"] = 8
    assert runs(content)["cam"].output_stride == 8


def test_resolved_values_are_printed_with_their_places(content: dict[str, Any]) -> None:
    content |= {"dataset": {"name": "cub"}, "backbones": ["vgg16"]}
    content["methods"] = {"cam": {}, "has": {"preset": "wsoleval-tuned", "drop_rate": [0.1, 0.47]}}
    study = parse(content, "x")
    found = list(resolved.lines(study, study.expand("x")[0]))
    assert [line for line in found if line[0] != " "] == [
        "vgg16-cam", "vgg16-has-drop_rate0.1-sizes4", "vgg16-has-drop_rate0.47-sizes4",
    ]  # fmt: skip
    for line in (
        "  recipe.learning_rate = 0.00142891848 (methods.has.preset wsoleval-tuned)",
        "  settings.sizes = [4] (methods.has.preset wsoleval-tuned)",
        "  settings.drop_rate = 0.1 (methods.has)",
        "  output_stride = none (default)",
        "  recipe.warmup = 0 (default)",
        "  methods.has.preset wsoleval-tuned: settings.drop_rate = 0.47 replaced by [0.1, 0.47] (methods.has)",
    ):
        assert line in found


def test_recipes_by_method_and_backbone(content: dict[str, Any]) -> None:
    content["methods"] = {"cam": {"recipe": {"epochs": 3, "batch_size": 2}}, "eil": {}}
    content["backbones"] = {
        "vgg_small": {"recipe": {"epochs": 4}},
        "resnet_small": {"methods": {"cam": {"recipe": {"epochs": 5}}}},
    }
    found = {(run.backbone, run.method): run.recipe for run in parse(content, "x").runs()}
    assert {key: recipe.epochs for key, recipe in found.items()} == {
        ("vgg_small", "cam"): 3, ("vgg_small", "eil"): 4, ("resnet_small", "cam"): 5, ("resnet_small", "eil"): 2,
    }  # fmt: skip
    assert found["resnet_small", "cam"].batch_size == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "papers"}, "s.yaml: preset = papers: must be one of paper, wsoleval-tuned"),
        (
            {"preset": "wsoleval-tuned"},
            "preset = wsoleval-tuned: has no values for cam on vgg_small and birds; give cam another preset, or null",
        ),
        ({"methods": {"cam": {"preset": "tuned"}}}, "s.yaml: methods.cam.preset = tuned: must be one of paper"),
        ({"methods": {"meil": {"preset": "paper"}}}, "s.yaml: methods.meil.preset = paper: has no values for meil"),
        ({"methods": {"cam": {"recipe": {"epoch": 3}}}}, "s.yaml: methods.cam.recipe.epoch: unknown key"),
        ({"methods": {"cam": {"recipe": {"epochs": 0}}}}, "s.yaml: methods.cam.recipe.epochs = 0: Input should be"),
        ({"methods": {"cam": {"recipe": 3}}}, "s.yaml: methods.cam.recipe = 3: must be a mapping"),
    ],
)
def test_bad_presets_and_recipes_are_named(content: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(content | changes, "s.yaml")
    assert message in str(error.value)
