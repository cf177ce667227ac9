"""Presets: published or tuned settings and recipes by name, read from presets.yaml, where each has its source."""

import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter

from eil.core.run import StrictModel
from eil.core.settings import SettingError

FILE = Path(__file__).with_name("presets.yaml")


class Scope(StrictModel):
    """Where an entry applies; a missing field stands for everything."""

    dataset: str | None = None
    backbone: str | None = None
    method: str | None = None

    def fits(self, dataset: str, backbone: str, method: str) -> bool:
        """Whether the entry applies to these."""
        wanted = {"dataset": dataset, "backbone": backbone, "method": method}
        return all(getattr(self, key) in (None, value) for key, value in wanted.items())


class Preset(StrictModel):
    """One entry of a preset, or several merged ones.

    Attributes:
        scope: where it applies (``for`` in the file).
        settings: of the method.
        recipe: keys of a recipe.
        network: options of the network.
        output_stride: of the backbone.
        layout: of the network.
        source: where the values come from.
    """

    scope: Scope = Field(alias="for", default=Scope())
    settings: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    network: dict[str, Any] = Field(default_factory=dict)
    output_stride: int | None = None
    layout: str | None = None
    source: str = ""


@functools.cache
def read() -> dict[str, list[Preset]]:
    """All presets with their entries, general entries before special ones."""
    return TypeAdapter(dict[str, list[Preset]]).validate_python(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def find(name: str | None, dataset: str, backbone: str, method: str) -> Preset:
    """The values of a preset for a method on a backbone and a data set; empty if ``name`` is None.

    Raises:
        SettingError: no such preset, or it has no entry for the method there.
    """
    if name is None:
        return Preset()
    if not isinstance(name, str) or name not in read():  # a file may name a list
        raise SettingError("preset", name, f"must be one of {', '.join(read())}")
    fitting = [entry for entry in read()[name] if entry.scope.fits(dataset, backbone, method)]
    if not any(entry.scope.method for entry in fitting):
        expected = f"has no values for {method} on {backbone} and {dataset}; give {method} another preset, or null"
        raise SettingError("preset", name, expected)
    merged = Preset()
    for entry in fitting:
        merged = Preset(
            settings=merged.settings | entry.settings,
            recipe=merged.recipe | entry.recipe,
            network=merged.network | entry.network,
            layout=entry.layout or merged.layout,
            output_stride=entry.output_stride or merged.output_stride,
            source="; ".join(filter(None, [merged.source, entry.source])),
        )
    return merged
