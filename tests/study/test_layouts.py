"""Layouts: every network that a reference has and no other, as values that more special keys may replace."""

import itertools
from typing import Any

import pytest

from eil.core.files import InputError
from eil.core.run import Recipe
from eil.study import layouts
from eil.study.precedence import resolve
from eil.study.study import parse

METHODS = ("cam", "has", "acol", "spg", "adl", "cutmix")
BACKBONES = ("vgg16", "resnet50", "inception_v3")
AUTHORS = {("eil", "vgg16", 16), ("acol", "vgg16", 8), ("spg", "inception_v3", 8)}


def study(content: dict[str, Any], **changes: Any) -> Any:
    return parse(content | {"dataset": {"name": "cub"}, "recipe": {}} | changes, "s.yaml")


@pytest.mark.parametrize(("method", "backbone", "stride"), list(itertools.product(METHODS, BACKBONES, (16, 8))))
def test_the_benchmark_has_each_of_its_cells(method: str, backbone: str, stride: int) -> None:
    found = layouts.find("wsoleval", "cub", backbone, method, stride)
    assert found.source
    Recipe.model_validate(found.recipe)
    assert (found.network.get("stem") == "wsoleval") == (backbone == "inception_v3")
    assert ("layer4" in found.recipe.get("multipliers", {})) == (backbone == "resnet50")
    assert "keep_classifier" not in found.network
    kept = layouts.find("wsoleval", "ilsvrc", backbone, method, stride).network.get("keep_classifier", False)
    assert kept == (backbone == "resnet50" and method not in ("acol", "spg"))


@pytest.mark.parametrize(
    ("method", "backbone", "stride"),
    list(itertools.product((*METHODS, "eil", "meil"), (*BACKBONES, "vgg_small"), (32, 16, 8))),
)
def test_the_authors_have_three_cells(method: str, backbone: str, stride: int) -> None:
    if (method, backbone, stride) in AUTHORS:
        assert layouts.find("authors", "cub", backbone, method, stride).recipe["multipliers"]
    else:
        with pytest.raises(ValueError, match=f"has no {method} on {backbone} at output_stride {stride}"):
            layouts.find("authors", "cub", backbone, method, stride)


def test_the_most_special_layout_holds_and_single_values_stand_above_it(content: dict[str, Any]) -> None:
    found = study(
        content,
        layout="wsoleval",
        backbones={"vgg16": {}, "inception_v3": {"network": {"stem": "own"}, "methods": {"acol": {"layout": "own"}}}},
        methods={
            "cam": {"network": {"head_dropout": 0.1}},
            "acol": {"test_class": "predicted"},
            "eil": {"layout": "own"},
        },
    )
    cam, acol = (resolve(found, "inception_v3", "cam"), resolve(found, "vgg16", "acol"))
    assert cam.part("network") == {
        "stem": "own", "normalisation": "imagenet", "head_init": "xavier", "head_widths": [1024, 1024],
        "head_dropout": 0.1,
    }  # fmt: skip
    assert cam.place("network.stem") == "backbones.inception_v3"
    assert cam.place("network.head_widths") == "layout wsoleval"
    assert cam.changed[0] == "layout wsoleval: network.stem = wsoleval replaced by own (backbones.inception_v3)"
    assert acol.part("settings") == {"average_pool": [True], "test_class": ["predicted"]}
    assert acol.changed == ("layout wsoleval: settings.test_class = given replaced by predicted (methods.acol)",)
    assert resolve(found, "inception_v3", "acol").part("network") == {"stem": "own"}
    run = next(run for run in found.runs() if (run.backbone, run.method) == ("vgg16", "acol"))
    assert (run.layout, run.network["pools"]) == ("wsoleval", "3x3")
    assert resolve(found, "vgg16", "eil").layout == "own"


def test_networks_of_a_layout_are_built_when_the_study_is_checked(content: dict[str, Any]) -> None:
    found = study(content, layout="wsoleval", backbones=list(BACKBONES), methods=["cam", "acol"], seeds=1)
    assert len([run for run in found.expand("s.yaml")[0] if not run.control]) == 6
    wrong = study(content, backbones={"vgg16": {"network": {"stem": "own"}}}, methods=["cam"])
    with pytest.raises(InputError, match=r"s.yaml: backbones.vgg16.*stem"):
        wrong.expand("s.yaml")
    wrong = study(content, backbones=["vgg16"], methods={"cam": {"network": {"stem": "own"}}})
    with pytest.raises(InputError, match=r"s.yaml: methods.cam.*stem"):
        wrong.expand("s.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "benchmark"}, "s.yaml: layout = benchmark: must be one of own, wsoleval, authors"),
        ({"layout": "wsoleval"}, "s.yaml: layout = wsoleval: has no eil on vgg16 at output_stride 16"),
        ({"methods": {"cam": {"layout": "authors"}}}, "s.yaml: methods.cam.layout = authors: has no cam on vgg16"),
        ({"methods": {"cam": {"network": 3}}}, "s.yaml: methods.cam.network = 3: must be a mapping"),
    ],
)
def test_what_no_reference_has_is_refused(content: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        study(content, **{"backbones": ["vgg16"], "methods": {"cam": {}, "eil": {}}} | changes)
    assert message in str(error.value)


def test_tuned_and_published_presets_leave_their_layouts_whole(content: dict[str, Any]) -> None:
    benchmark = study(
        content, layout="wsoleval", preset="wsoleval-tuned", backbones=list(BACKBONES), methods=list(METHODS)
    )
    cells = [(benchmark, *cell) for cell in itertools.product(BACKBONES, METHODS)]
    for method, backbone, _ in sorted(AUTHORS):
        own = study(content, layout="authors", preset="paper", backbones=[backbone], methods=[method], controls=[])
        cells.append((own, backbone, method))
    for each, backbone, method in cells:
        found = resolve(each, backbone, method)
        assert (found.changed, found.replaced, found.layout) == ((), (), each.layout), (backbone, method)


def test_tuned_rates_are_of_the_benchmarks_groups(content: dict[str, Any]) -> None:
    found = study(content, preset="wsoleval-tuned", backbones=["resnet50"], methods=["acol", "adl"])
    assert resolve(found, "resnet50", "acol").recipe.multipliers == {"layer4": 10, "new": 1}
    assert resolve(found, "resnet50", "adl").recipe.multipliers == {"layer4": 10, "new": 10}
    assert resolve(found, "resnet50", "adl").layout == "own"
