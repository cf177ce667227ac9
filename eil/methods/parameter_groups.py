"""Which parameters learn at which multiple of the base rate: new layers, the classifier, stages, biases."""

from typing import Any

from torch import nn

from eil.core.run import Recipe
from eil.core.settings import SettingError
from eil.methods.base import Method

NEW, CLASSIFIER = "new", "classifier"
_TOKENS = ("cls_token", "dist_token", "pos_embed")  # of timm's transformers, whose `no_weight_decay` names them


def parameter_groups(model: Method, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimizer's groups: the backbone's first, then those of new layers, each a group per rate and decay.

    A stage of the backbone has the multiple of the longest key of ``recipe.multipliers`` that names it, else 1.

    Raises:
        SettingError: a multiplier of something that this network does not have.
    """
    require_known(model, recipe)
    new = recipe.multipliers.get(NEW, recipe.head_multiplier)
    multiples = dict.fromkeys(map(id, model.parameters()), new)
    multiples |= dict.fromkeys(map(id, model.classifier_parameters()), recipe.multipliers.get(CLASSIFIER, new))
    stages = {id(each): _of_stage(name.split(".")[1], recipe) for name, each in model.backbone.named_parameters()}
    multiples |= stages
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    # The backbone's in its own order, whatever the order in which the method holds its parts.
    for name, parameter in (*model.backbone.named_parameters(), *model.named_parameters()):
        multiple = multiples.pop(id(parameter), None)
        if multiple is not None:  # else it was met before
            multiple *= recipe.bias_multiplier if name.rpartition(".")[2] == "bias" else 1
            decay = recipe.weight_decay if recipe.decay_biases or _is_weight(name, parameter) else 0.0
            groups.setdefault((id(parameter) not in stages, multiple, decay), []).append(parameter)
    return [
        {
            "params": parameters,
            "base": recipe.learning_rate * multiple,
            "weight_decay": decay,
            "lr": recipe.learning_rate * multiple,
        }
        for (_, multiple, decay), parameters in sorted(groups.items(), key=lambda group: group[0][0])  # stable
    ]


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    """Whether timm's optimizers let a parameter decay: no bias, no norm's scale, no token."""
    last = name.rpartition(".")[2]
    return parameter.ndim > 1 and last != "bias" and last not in _TOKENS


def require_known(model: Method, recipe: Recipe) -> None:
    """Refuse a multiplier of something that this network does not have.

    Raises:
        SettingError: the key, with the stages to choose from.
    """
    for key in recipe.multipliers.keys() - {NEW, CLASSIFIER}:
        if not any(_names(key, stage) for stage in model.backbone.names):
            stages = ", ".join(model.backbone.names)
            raise SettingError(
                "multipliers", key, f"must be new, classifier or a stage of {model.backbone.name}: {stages}"
            )


def _of_stage(stage: str, recipe: Recipe) -> float:
    fitting = [key for key in recipe.multipliers if key not in (NEW, CLASSIFIER) and _names(key, stage)]
    return recipe.multipliers[max(fitting, key=len)] if fitting else 1.0


def _names(key: str, stage: str) -> bool:
    return stage == key or stage.startswith(f"{key}_")
