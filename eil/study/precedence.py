"""Which of a study's keys holds for a method on a backbone, and where it comes from.

From low to high: defaults, the layout, the study's preset, its recipe, the backbone, the method's preset, the
method, the preset of the backbone's method, the backbone's method, ``force``. Of several presets only the most special
one counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from eil.core.files import InputError
from eil.core.run import Recipe
from eil.core.settings import SettingError, problems
from eil.study import layouts, presets

if TYPE_CHECKING:
    from eil.study.study import Study

# Keys of execution, not of science: no publication states them.
EXECUTION = tuple(f"recipe.{key}" for key in ("devices", "deterministic", "compile", "channels_last"))
RESERVED = ("checkpoint", "layout", "network", "preset", "recipe")  # keys of a method that are not its settings


@dataclass(frozen=True)
class Layer:
    """The values that one place of a study gives.

    Attributes:
        place: where, as messages name it.
        settings: of the method, each as a list of the grid's values.
        recipe: keys of a recipe.
        network: options of the network.
        output_stride: of the backbone.
        layout: name of a layout, if it gives one.
        preset: the preset's name, if the values are one's.
        bundle: whether the values are a layout's.
    """

    place: str
    settings: Mapping[str, list[Any]] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    output_stride: int | None = None
    layout: str | None = None
    preset: str | None = None
    bundle: bool = False

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every value by its full key: ``settings.gamma``, ``recipe.epochs``, ``layout``."""
        for part in ("network", "settings", "recipe"):
            yield from ((f"{part}.{key}", value) for key, value in getattr(self, part).items())
        if self.output_stride is not None:
            yield "output_stride", self.output_stride
        if self.layout is not None:
            yield "layout", self.layout

    def keys(self) -> set[str]:
        """The full keys of :meth:`items`."""
        return {key for key, _ in self.items()}


@dataclass(frozen=True)
class Sourced:
    """A value and the place that it comes from."""

    value: Any
    place: str


@dataclass(frozen=True)
class Resolved:
    """What holds for a method on a backbone.

    Attributes:
        values: by full key; of a setting, the list of the grid's values. Defaults are absent.
        recipe: with defaults.
        preset: the preset's name, if there is one.
        replaced: a line for each of the preset's values that a more special key replaced.
        changed: likewise for the layout's values.
        added: keys beyond the preset's and the layout's whose value is not the default.
    """

    values: dict[str, Sourced]
    recipe: Recipe
    preset: str | None
    replaced: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...] = ()

    def part(self, name: str) -> dict[str, Any]:
        """The values under ``network``, ``settings`` or ``recipe``, by their own keys."""
        start = f"{name}."
        return {key.removeprefix(start): each.value for key, each in self.values.items() if key.startswith(start)}

    @property
    def output_stride(self) -> int | None:
        """None for the backbone's default."""
        found = self.values.get("output_stride")
        return found.value if found else None

    @property
    def layout(self) -> str:
        """Name of the layout."""
        found = self.values.get("layout")
        return str(found.value) if found else layouts.OWN

    def place(self, key: str) -> str:
        """Where a value comes from; "default" if no place gives it."""
        return self.values[key].place if key in self.values else "default"


def resolve(study: "Study", backbone: str, method: str) -> Resolved:
    """What holds for a method on a backbone, each value with its place.

    Raises:
        InputError: a recipe or preset that cannot be used; the message names the place.
    """
    found = list(layers(study, backbone, method))
    _require_one_stride(found, backbone)
    bundle = _bundle(study, backbone, method, _merged(found))
    found = [bundle, *found]
    values = _merged(found)
    preset = next((layer for layer in found if layer.preset), None)
    name = preset.preset if preset else None
    published = bundle.keys() | (preset.keys() if preset else set())
    recipe = _recipe(found)
    added = tuple(key for key in values if key not in published and _is_other_science(key, recipe))
    replaced, changed = (tuple(_replaced(layer, values)) for layer in (preset, bundle))
    return Resolved(values, recipe, name, replaced, changed, added)


def layers(study: "Study", backbone: str, method: str) -> Iterator[Layer]:
    """The places that say something about a method on a backbone, from low to high."""
    choice = study.backbones[backbone]
    general, special = study.methods[method], choice.methods.get(method, {})
    on_method, on_both = f"methods.{method}", f"backbones.{backbone}.methods.{method}"
    givers = {on_both: special, on_method: general, "": {"preset": study.preset}}
    giver = next(place for place, given in givers.items() if "preset" in given)

    def preset(place: str) -> Iterator[Layer]:
        if place == giver:
            yield from _preset(study, backbone, method, f"{place}.preset".lstrip("."), givers[place]["preset"])

    yield from preset("")
    yield Layer("", recipe=study.recipe.model_dump(exclude_unset=True), layout=study.layout)
    yield Layer(
        f"backbones.{backbone}",
        recipe=choice.recipe,
        network=choice.network,
        output_stride=choice.output_stride,
        layout=choice.layout,
    )
    for place, given in ((on_method, general), (on_both, special)):
        yield from preset(place)
        recipe, network = (_mapping(given.get(key, {}), f"{place}.{key}") for key in ("recipe", "network"))
        yield Layer(place, _axes(given), recipe, network, layout=given.get("layout"))
    yield Layer("force", recipe=study.force)


def _preset(study: "Study", backbone: str, method: str, place: str, name: str | None) -> Iterator[Layer]:
    """The layer of a preset, if one is named."""
    try:
        found = presets.find(name, study.dataset.data_name, backbone, method)
    except SettingError as error:
        raise InputError(f"{place} = {error.value}: {error.expected}") from None
    if name is not None:
        settings = {key: [value] for key, value in found.settings.items()}
        yield Layer(
            f"{place} {name}", settings, found.recipe, found.network, found.output_stride, found.layout, preset=name
        )


def _merged(found: list[Layer]) -> dict[str, Sourced]:
    """Every value of the layers, the last one's of each key."""
    return {key: Sourced(value, _place_of(layer, key)) for layer in found for key, value in layer.items()}


def _bundle(study: "Study", backbone: str, method: str, values: Mapping[str, Sourced]) -> Layer:
    """The layer of the layout that the values name."""
    name = values.get("layout", Sourced(layouts.OWN, ""))
    stride = values.get("output_stride", Sourced(None, ""))
    try:
        found = layouts.find(name.value, study.dataset.data_name, backbone, method, stride.value)
    except SettingError as error:
        key = f"{name.place}.layout".lstrip(".")
        raise InputError(f"{key} = {error.value}: {error.expected}") from None
    settings = {key: [value] for key, value in found.settings.items()}
    return Layer(f"layout {name.value}", settings, found.recipe, found.network, bundle=True)


def _axes(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A method's settings, each as the list of its values in the grid."""
    return {k: value if isinstance(value, list) else [value] for k, value in given.items() if k not in RESERVED}


def _mapping(given: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(f"{place} = {given!r}: must be a mapping of a {place.rpartition('.')[2]}'s keys")
    return given


def _recipe(found: list[Layer]) -> Recipe:
    """The recipe of all layers, checked after each, so that the error names the place."""
    merged: dict[str, Any] = {}
    recipe = Recipe()
    for layer in found:
        if layer.recipe:
            merged |= layer.recipe
            try:
                recipe = Recipe.model_validate(merged)
            except ValidationError as error:
                raise InputError("\n".join(problems(error, Recipe, _place_of(layer, "recipe")))) from None
    return recipe


def _place_of(layer: Layer, key: str) -> str:
    """``methods.cam.recipe`` of a recipe's keys; a preset and ``force`` are places themselves."""
    if layer.preset or layer.bundle or layer.place == "force" or not key.startswith("recipe"):
        return layer.place
    return f"{layer.place}.recipe".lstrip(".")


def _is_other_science(key: str, recipe: Recipe) -> bool:
    """Whether a key that a study adds may change the result: any but those of execution, or a recipe's default."""
    if key in (*EXECUTION, "layout", "output_stride"):
        return False
    start, _, name = key.partition(".")
    return start != "recipe" or getattr(recipe, name) != getattr(Recipe(), name)


def _require_one_stride(found: list[Layer], backbone: str) -> None:
    """Refuse a preset of another stride than the backbone's: its learning rates were tuned at its own."""
    given = {bool(layer.preset): layer for layer in found if layer.output_stride is not None}
    if len(given) == 2 and given[True].output_stride != given[False].output_stride:
        raise InputError(
            f"{given[False].place}.output_stride = {given[False].output_stride}: {given[True].place} was made with "
            f"{given[True].output_stride} on {backbone}; leave output_stride out, or give another preset, or null"
        )


def _replaced(preset: Layer | None, values: Mapping[str, Sourced]) -> Iterator[str]:
    """A line for each of the preset's values that another one stands in for."""
    if preset is None:
        return
    for key, value in preset.items():
        found = values[key]
        if found.value != value:
            old, new = (each[0] if isinstance(each, list) and len(each) == 1 else each for each in (value, found.value))
            yield f"{preset.place}: {key} = {old} replaced by {new} ({found.place})"
