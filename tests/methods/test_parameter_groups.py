"""Learning-rate groups: defaults as ever, stages, classifier and biases by name, unknown names refused."""

import hashlib
import json
from typing import Any

import pytest
import timm
from timm.optim import param_groups_weight_decay

from eil.core.files import InputError
from eil.core.run import ADDED_TO_RECIPE, ADDED_TO_RUN, Recipe
from eil.core.settings import SettingError
from eil.methods import base
from eil.methods.parameter_groups import parameter_groups
from eil.study.study import parse


def build(method: str = "cam", backbone: str = "resnet_small") -> base.Method:
    return base.build(method, {}, backbone, 3)


def rates(model: base.Method, **recipe: Any) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, Recipe(learning_rate=1.0, **recipe))
    found = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(found) == len(names) == len(dict(found))
    assert all(group["base"] == group["lr"] for group in groups)
    return dict(found)


@pytest.mark.parametrize("multiple", [1.0, 10.0])
def test_by_default_the_two_groups_that_there_always_were(multiple: float) -> None:
    model = build("acol")
    first, second = parameter_groups(model, Recipe(head_multiplier=multiple))
    backbone = {id(p) for p in model.backbone.parameters()}
    assert [id(p) for p in first["params"]] == [id(p) for p in model.backbone.parameters()]
    assert [id(p) for p in second["params"]] == [id(p) for p in model.parameters() if id(p) not in backbone]


def test_stages_new_layers_classifier_and_biases() -> None:
    model = build("acol")
    stage = model.backbone.names[-1]
    found = rates(model, multipliers={stage: 3.0, "new": 5.0, "classifier": 7.0}, bias_multiplier=2.0)
    for name, rate in found.items():
        base_rate = (
            (3.0 if f".{stage}." in name else 1.0)
            if name.startswith("backbone.")
            else 7.0 if ".classifier." in name else 5.0
        )  # fmt: skip
        assert rate == base_rate * (2.0 if name.endswith(".bias") else 1.0), name


def test_a_prefix_names_all_its_stages_and_the_longest_key_wins() -> None:
    model = build(backbone="resnet50")
    prefix = "layer4"
    stages = [f"layer4_{k}" for k in range(3)]
    found = rates(model, multipliers={prefix: 3.0, stages[0]: 4.0})
    for name, rate in found.items():
        stage = name.split(".")[2] if name.startswith("backbone.") else ""
        expected = 4.0 if stage == stages[0] else 3.0 if stage in stages else 1.0 if stage else 10.0
        assert rate == expected, name


def test_equal_rates_share_a_group() -> None:
    model = build()
    stage = model.backbone.names[-1]
    assert len(parameter_groups(model, Recipe(multipliers={stage: 1.0, "classifier": 10.0}))) == 2


@pytest.mark.parametrize(
    "name", ["test_vit.r160_in1k", "deit_tiny_distilled_patch16_224.fb_in1k", "test_resnet.r160_in1k"]
)
def test_without_decay_are_those_that_timm_lets_alone(name: str) -> None:
    """Compared by last name and shape, since stages change the rest of the name; heads differ."""
    theirs, ours = timm.create_model(name), build("cam", f"timm/{name}")
    spared = theirs.no_weight_decay() if hasattr(theirs, "no_weight_decay") else ()
    found = []
    for model, groups in (
        (theirs, param_groups_weight_decay(theirs, 0.05, no_weight_decay_list=spared)),
        (ours.backbone, parameter_groups(ours, Recipe(weight_decay=0.05, decay_biases=False))),
    ):
        names = {id(each): name for name, each in model.named_parameters() if not name.startswith(("head", "fc."))}
        every = [(names.get(id(each), ""), each, group["weight_decay"]) for group in groups for each in group["params"]]
        found.append(sorted((n.rpartition(".")[2], tuple(p.shape), decay) for n, p, decay in every if n))
    assert found[0] == found[1]
    assert {decay for _, _, decay in found[1]} == {0.0, 0.05}


def test_all_decays_by_default_and_else_the_weights_alone() -> None:
    for spared, of_biases in ((True, 0.1), (False, 0.0)):
        model = build("scm", "timm/test_vit.r160_in1k")
        groups = parameter_groups(model, Recipe(weight_decay=0.1, decay_biases=spared))
        decays = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
        head = model.head.classifier
        assert decays[id(head.weight)] == 0.1
        assert decays[id(head.bias)] == decays[id(model.rates)] == of_biases


def test_an_unknown_name_is_refused_when_the_study_is_checked(content: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"multipliers = layer9: must be new, classifier or a stage of resnet_small"):
        parameter_groups(build(), Recipe(multipliers={"layer9": 2.0}))
    content["recipe"] = {"multipliers": {"layer9": 2.0}}
    with pytest.raises(InputError, match=r"s.yaml: .*multipliers = layer9: must be new, classifier or a stage"):
        parse(content, "s.yaml").expand("s.yaml")


def test_records_from_before_the_keys_existed_stay_usable(content: dict[str, Any]) -> None:
    run = parse(content, "s.yaml").runs()[0]
    keys = {run.key, run.model_copy(update={"recipe": run.recipe.model_copy(update={"bias_multiplier": 2.0})}).key}
    assert len(keys) == 2


def test_defaults_of_later_keys_change_no_run_key(content: dict[str, Any]) -> None:
    run = parse(content, "s.yaml").runs()[0]
    for changes in ({"layout": "wsoleval"}, {"network": {"head_dropout": 0.1}}, {"checkpoint": f"x@sha256:{'0' * 64}"}):
        assert run.model_copy(update=changes).key != run.key
    later = dict.fromkeys(ADDED_TO_RUN, True)
    before = run.model_dump(mode="json", exclude={"study": True, "dataset": {"root"}, **later})
    for name in ADDED_TO_RECIPE:
        del before["recipe"][name]
    assert run.key == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:12]
