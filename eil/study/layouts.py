"""Layouts: the networks of published numbers as bundles of options, read from layouts.yaml, each with its source."""

import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter

from eil.core.run import StrictModel
from eil.core.settings import SettingError
from eil.study import presets

FILE = Path(__file__).with_name("layouts.yaml")
OWN = "own"
DEFAULT_STRIDE = 16  # of the references' backbones, where a study names none


class Scope(presets.Scope):
    """Where an entry applies; a missing field stands for everything."""

    output_stride: tuple[int, ...] | None = None

    def fits_at(self, dataset: str, backbone: str, method: str, stride: int) -> bool:
        """Whether the entry applies to these at this stride."""
        return self.fits(dataset, backbone, method) and (self.output_stride is None or stride in self.output_stride)


class Layout(StrictModel):
    """One entry of a layout, or several merged ones.

    Attributes:
        scope: where it applies (``for`` in the file).
        network: options that the network is built with.
        settings: of the method.
        recipe: keys of a recipe.
        source: where the values come from.
    """

    scope: Scope = Field(alias="for", default=Scope())
    network: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    source: str = ""


@functools.cache
def read() -> dict[str, list[Layout]]:
    """All layouts with their entries, general entries before special ones."""
    return TypeAdapter(dict[str, list[Layout]]).validate_python(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def find(name: str, dataset: str, backbone: str, method: str, output_stride: int | None) -> Layout:
    """The bundle of a layout for a method on a backbone; empty for "own".

    Raises:
        SettingError: no such layout, or the reference has no such network.
    """
    if name == OWN:
        return Layout()
    if not isinstance(name, str) or name not in read():
        raise SettingError("layout", name, f"must be one of {', '.join([OWN, *read()])}")
    stride = output_stride or DEFAULT_STRIDE
    fitting = [entry for entry in read()[name] if entry.scope.fits_at(dataset, backbone, method, stride)]
    if not any(entry.scope.method and entry.scope.output_stride for entry in fitting):
        expected = f"has no {method} on {backbone} at output_stride {stride}; the reference does not have this network"
        raise SettingError("layout", name, expected)
    merged = Layout()
    for entry in fitting:
        merged = Layout(
            network=merged.network | entry.network,
            settings=merged.settings | entry.settings,
            recipe=merged.recipe | entry.recipe,
            source="; ".join(filter(None, [merged.source, entry.source])),
        )
    return merged
