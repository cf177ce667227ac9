"""Study: what to compare, read from a YAML file, checked, and expanded into runs.

Unknown keys are errors; any list under a method's settings is an axis of the grid; a setting that is itself
a list goes in a list of one. Two keys of a method are not settings: ``recipe`` changes how it is trained,
``preset`` takes settings and recipe from presets.yaml. Which key stands above which: :mod:`eil.study.precedence`.
A backbone's method may have a ``checkpoint`` instead of a training: :mod:`eil.study.checkpoints`.
Nothing here needs torch until methods are checked against backbones (:func:`Study.expand`), which happens once, before
the first run.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from eil import data
from eil.core import registry, safe_yaml
from eil.core.files import InputError
from eil.core.metric_definitions import ColumnLabel
from eil.core.run import BackboneName, DatasetChoice, ExtractorChoice, Name, Pretrained, Recipe, Run, StrictModel
from eil.core.settings import IncompatibleSetting, SettingError, check, problems
from eil.study import grid, reused_networks, run_names, study_paths
from eil.study.reused_networks import ExtractorCompatibility

T = TypeVar("T", bound=BaseModel)
Each = TypeVar("Each")
Refusal = InputError | IncompatibleSetting


class BackboneChoice(StrictModel):
    """A backbone in a study, with what differs on it from the rest of the study."""

    pretrained: Pretrained = False
    output_stride: int | None = None
    layout: str | None = None
    network: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Study(StrictModel):
    """What to compare. See workflow/config/ for examples.

    Attributes:
        name: name of the results folder.
        dataset: see :class:`DatasetChoice`.
        backbones: each with its differences from the study.
        methods: each with its settings.
        seeds: repetitions of every training: how many, counted from 0, or which, as a list.
        recipe: see :class:`Recipe`.
        preset: for every method without a preset of its own.
        layout: whose networks: own (the default), wsoleval or authors; see :mod:`eil.study.layouts`.
        force: keys of the recipe that stand above all others, for a short trial; a preset is then no longer whole.
        protocols: how maps are scored; tables show the first, a separate table compares the others.
        time_limit: minutes that a step of a run may take; a step that takes longer fails.
        logger: "tensorboard" to write every epoch's losses for TensorBoard too, "wandb" for Weights & Biases, offline.
        columns: columns of the main table (default: the field's usual ones).
        controls: maps without training that replace the first method's maps (default: all installed).
        maps: extractors that make other maps from every trained run (:mod:`eil.study.reused_networks`; default: none).
    """

    name: Name
    dataset: DatasetChoice
    backbones: dict[BackboneName, BackboneChoice]
    methods: dict[Name, dict[str, Any]]
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe = Recipe()
    preset: str | None = None
    layout: str | None = None
    force: dict[str, Any] = Field(default_factory=dict)
    logger: Literal["tensorboard", "wandb"] | None = None
    columns: tuple[ColumnLabel, ...] | None = None
    time_limit: Annotated[float, Field(gt=0)] | None = None
    protocols: Annotated[tuple[str, ...], Field(min_length=1)] = ("val-threshold",)
    controls: tuple[Name, ...] = Field(default_factory=lambda: tuple(registry.available(registry.CONTROLS)))
    maps: tuple[ExtractorChoice, ...] = ()

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_list_of_seeds(cls, given: Any) -> tuple[int, ...]:
        if type(given) is int and 1 <= given <= grid.MOST_RUNS:
            return tuple(range(given))
        if isinstance(given, list | tuple) and given and all(type(each) is int and each >= 0 for each in given):
            return tuple(_each_once(given))
        raise ValueError(f"must be how many repetitions, from 1 to {grid.MOST_RUNS:,}, or which, from 0 on: [5, 6, 7]")

    @field_validator("protocols")
    @classmethod
    def _each_protocol_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_each_once(names))

    @field_validator("protocols")
    @classmethod
    def _current_protocol_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """The earlier name of a protocol is accepted for one release."""
        if "honest" not in names:
            return names
        from eil.evaluation import protocols  # numba: half a second

        return tuple(map(protocols.current_name, names))

    @model_validator(mode="before")
    @classmethod
    def _plain_lists(cls, content: Any) -> Any:
        """``backbones: [a, b]``, ``cam:`` and ``maps: [gradcam]`` stand for mappings without settings."""
        if not isinstance(content, Mapping):
            raise ValueError("expected a mapping of keys")
        content = dict(content)
        for key in ("backbones", "methods"):
            value = content.get(key)
            if isinstance(value, list) and all(isinstance(name, str) for name in value):
                value = dict.fromkeys(_each_once(value))
            if isinstance(value, Mapping):
                content[key] = {name: {} if inner is None else inner for name, inner in value.items()}
        if isinstance(maps := content.get("maps"), list):
            content["maps"] = [{"name": each} if isinstance(each, str) else each for each in maps]
        return content

    def runs(self) -> list[Run]:
        """Every run of the grid, unchecked, in the order of the file; a backbone's borrowed networks last."""
        runs = []
        for backbone in self.backbones:
            trained_runs = [run for method in self.methods for run in grid.spread(self, backbone, method)]
            runs += trained_runs + reused_networks.runs(trained_runs, self.controls, self.maps)
        return runs

    def find_run(self, name: str) -> Run:
        """The run with this name.

        Raises:
            InputError: no run has this name.
        """
        run = grid.find(self, name)
        if run is None:
            raise InputError(f"study {self.name}: has no run {name}; `eil check` lists its runs")
        return run

    def dependents(self, run: Run) -> list[Run]:
        """Runs that use the network of this run: what :meth:`expand` makes of it, without the rest of the grid."""
        if not self.maps and not self.controls:
            return []
        built, compatibility = dict[str, Any](), ExtractorCompatibility(self.maps)
        self._try(run, built, compatibility)
        every = (each for method in self.methods for each in grid.spread(self, run.backbone, method))
        usable = (each for each in every if self._try(each, built, ExtractorCompatibility(())) is None)
        first = next(usable, run)
        controls = self.controls if (first.method, first.settings) == (run.method, run.settings) else ()
        return compatibility.split(reused_networks.runs([run], controls, self.maps))[0]

    def expand(self, source: str) -> tuple[list[Run], list[str]]:
        """All runs, and a line for each combination that cannot be used and was dropped.

        Args:
            source: the study's file, with which every line of the error starts.

        Raises:
            InputError: settings that the reader, a method or a backbone cannot use, one line for each problem.
        """
        from eil.evaluation import protocols  # numba: half a second

        shapes, errors = self._shapes()
        errors += data.problems(self.dataset.name, self.dataset.settings)
        known = {"controls": registry.available(registry.CONTROLS), "protocols": list(protocols.read())}
        for key, given in (("controls", self.controls), ("protocols", self.protocols)):
            errors += [
                f"{key}[{k}] = {name}: must be one of {', '.join(known[key])}"
                for k, name in enumerate(given)
                if name not in known[key]
            ]
        runs, dropped, built = list[Run](), list[str](), dict[str, Any]()
        compatibility = ExtractorCompatibility(self.maps)
        for backbone in shapes:
            trained_runs = []
            for run in (run for method in self.methods for run in grid.spread(self, backbone, method)):
                if run.checkpoint or run.repetition == self.seeds[0]:  # the others have the same settings
                    refused = self._try(run, built, compatibility)
                if refused is None:
                    trained_runs.append(run)
                elif isinstance(refused, IncompatibleSetting):
                    dropped.append(f"{run.name}: {refused}")
                else:
                    errors += str(refused).splitlines()
            dependents, unfit = compatibility.split(reused_networks.runs(trained_runs, self.controls, self.maps))
            runs += trained_runs + dependents
            dropped += unfit
        errors += compatibility.problems()
        errors += run_names.problems([run.name for run in runs])
        if errors:
            raise InputError("\n".join(f"{source}: {line}" for line in dict.fromkeys(errors)))
        return runs, dropped

    def _shapes(self) -> tuple[dict[str, Any], list[str]]:
        """Each backbone without memory, to try methods on; and a line for each that cannot be built."""
        from eil import backbones  # torch: seconds, so not at import

        shapes, errors = {}, []
        for name, choice in self.backbones.items():
            try:
                shapes[name] = backbones.build_shapes(name, choice.pretrained, choice.output_stride, choice.network)
            except SettingError as error:
                key = "" if error.value == name else f".{error.setting} = {error.value}"
                errors.append(f"backbones.{name}{key}: {error.expected}")
            others = choice.methods.keys() - self.methods.keys()
            errors += [f"backbones.{name}.methods.{other}: is not among the study's methods" for other in others]
        return shapes, errors

    def _try(self, run: Run, built: dict[str, Any], compatibility: ExtractorCompatibility) -> Refusal | None:
        """Build a method without memory and try extractors on it: what is wrong and where, or why it is no use."""
        from eil import backbones
        from eil.backbones.meta import meta_tensors
        from eil.methods import parameter_groups

        classes = 1000 if run.network.get("keep_classifier") else 2  # a kept one has ImageNet's
        try:
            cls = registry.load(registry.METHODS, run.method)
        except SettingError as error:
            return InputError(f"methods.{run.method}: {error.expected}")
        if found := check(cls, run.settings, f"methods.{run.method}"):
            return InputError("\n".join(found))
        try:
            place = (run.backbone, run.pretrained, run.output_stride, run.network)
            if repr(place) not in built:  # most configurations share a network
                built[repr(place)] = backbones.build_shapes(*place)
            with meta_tensors():
                model = cls(built[repr(place)], classes, **run.settings)
                parameter_groups.require_known(model, run.recipe)
            compatibility.check(model, run)
        except SettingError as error:
            return InputError(f"{self._locate(run.method, run.backbone, error)}: {error.expected}")
        except IncompatibleSetting as reason:
            return reason
        return None

    def _locate(self, method: str, backbone: str, error: SettingError) -> str:
        """Where in the file a bad value stands: ``methods.eil.gamma[2] = 1.4``."""
        of_backbone = self.backbones[backbone].methods.get(method, {})
        prefix = f"backbones.{backbone}.methods.{method}" if error.setting in of_backbone else f"methods.{method}"
        given = (self.methods[method] | of_backbone).get(error.setting)
        position = f"[{given.index(error.value)}]" if isinstance(given, list) and error.value in given else ""
        return f"{prefix}.{error.setting}{position} = {error.value}"


def _each_once(names: Sequence[Each]) -> Sequence[Each]:
    seen = set[Each]()
    for name in names:
        if name in seen:
            raise ValueError(f"{name} is given twice")
        seen.add(name)
    return names


def load(path: Path) -> Study:
    """Read a study file.

    Raises:
        InputError: the file is missing, is not YAML, or has keys or values that no study has.
    """
    return parse(safe_yaml.load(path), str(path), path.parent)


def parse(content: Any, source: str, folder: Path | None = None) -> Study:
    """Check a study's content and make its paths absolute (:mod:`eil.study.study_paths`).

    Args:
        content: of the study's file.
        source: start of every line of the error.
        folder: that relative paths are relative to (default: the working directory).

    Raises:
        InputError: keys, values or paths that no study has.
    """
    try:
        safe_yaml.require(content)
        study = _validated(Study, study_paths.located(content, folder or Path()), "")
        grid.count(study)
        pairs = itertools.product(study.backbones, study.methods)
        # Recipes of backbones are checked with it.
        run_names.require_usable([run.name for pair in pairs for run in grid.sample(study, *pair)])
    except InputError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from None
    return study


def _validated(model: type[T], content: Any, prefix: str) -> T:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(problems(error, model, prefix))) from None
