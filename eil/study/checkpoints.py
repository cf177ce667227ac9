"""Checkpoints that a study evaluates instead of training: ``backbones.NAME.methods.NAME.checkpoint``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eil.core.files import InputError
from eil.core.run import LOCAL_WEIGHTS

if TYPE_CHECKING:
    from eil.study.study import Study


def find(study: "Study", backbone: str, method: str, settings: Mapping[str, list[Any]]) -> str | None:
    """The checkpoint of a method on a backbone, ``FILE@sha256:HASH``; None if it is trained.

    Args:
        study: with absolute paths.
        backbone: by name.
        method: likewise.
        settings: of the method, each with its values in the grid.

    Raises:
        InputError: a checkpoint in another form, or for every backbone, or for several settings.
    """
    if "checkpoint" in study.methods[method]:
        expected = f"weights fit one backbone: give it under backbones.NAME.methods.{method}"
        raise InputError(f"methods.{method}.checkpoint: {expected}")
    given = study.backbones[backbone].methods.get(method, {}).get("checkpoint")
    if given is None:
        return None
    place = f"backbones.{backbone}.methods.{method}.checkpoint"
    if not isinstance(given, str) or not LOCAL_WEIGHTS.fullmatch(given):
        raise InputError(f"{place} = {given}: must be FILE@sha256:HASH, of 64 hexadecimal digits")
    several = [key for key, values in settings.items() if len(values) > 1]
    if several:
        raise InputError(f"{place}: a trained network has one value of each setting, not a grid of {several[0]}")
    return given


def network_of(network: dict[str, Any], checkpoint: str | None) -> dict[str, Any]:
    """A run's options of the network; a checkpoint has its classifier, so that no pretrained one is kept."""
    return {key: value for key, value in network.items() if not (checkpoint and key == "keep_classifier")}
