"""Study: what to compare, read from a YAML file, checked, and expanded into runs.

Unknown keys are errors; any list under a method's settings is an axis of the grid; a setting that is itself
a list goes in a list of one. Two keys of a method are not settings: ``recipe`` changes how it is trained,
``preset`` takes settings and recipe from presets.yaml. Which key stands above which: :mod:`eil.study.precedence`.
A backbone's method may have a ``checkpoint`` instead of a training: :mod:`eil.study.checkpoints`.
Nothing here needs torch until methods are checked against backbones (:func:`Study.expand`), which happens once, before
the first run.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from eil import data
from eil.core import registry, safe_yaml
from eil.core.files import InputError
from eil.core.metrics import ColumnLabel
from eil.core.run import BackboneName, DatasetChoice, Name, Pretrained, Recipe, Run, StrictModel
from eil.core.settings import IncompatibleSetting, SettingError, check, problems
from eil.study import checkpoints, precedence, run_names, study_paths

T = TypeVar("T", bound=BaseModel)
MOST_RUNS = 10_000  # at a minute each they take a week


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
        seeds: number of repetitions of every training.
        recipe: see :class:`Recipe`.
        preset: for every method without a preset of its own.
        layout: whose networks: own (the default), wsoleval or authors; see :mod:`eil.study.layouts`.
        force: keys of the recipe that stand above all others, for a short trial; a preset is then no longer whole.
        protocols: how maps are scored; tables show the first, a separate table compares the others.
        time_limit: minutes that a step of a run may take; a step that takes longer fails.
        logger: "tensorboard" to write every epoch's losses for TensorBoard too.
        columns: columns of the main table (default: the field's usual ones).
        controls: maps without training that replace the first method's maps (default: all installed).
    """

    name: Name
    dataset: DatasetChoice
    backbones: dict[BackboneName, BackboneChoice]
    methods: dict[Name, dict[str, Any]]
    seeds: Annotated[int, Field(ge=1)] = 3
    recipe: Recipe = Recipe()
    preset: str | None = None
    layout: str | None = None
    force: dict[str, Any] = Field(default_factory=dict)
    logger: Literal["tensorboard"] | None = None
    columns: tuple[ColumnLabel, ...] | None = None
    time_limit: Annotated[float, Field(gt=0)] | None = None
    protocols: Annotated[tuple[str, ...], Field(min_length=1)] = ("val-threshold",)
    controls: tuple[Name, ...] = Field(default_factory=lambda: tuple(registry.available(registry.CONTROLS)))

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
        """``backbones: [a, b]`` and ``cam:`` without settings stand for empty mappings."""
        if not isinstance(content, Mapping):
            raise ValueError("expected a mapping of keys")
        content = dict(content)
        for key in ("backbones", "methods"):
            value = content.get(key)
            if isinstance(value, list) and all(isinstance(name, str) for name in value):
                value = dict.fromkeys(value)
            if isinstance(value, Mapping):
                content[key] = {name: {} if inner is None else inner for name, inner in value.items()}
        return content

    def runs(self) -> list[Run]:
        """Every run of the grid, unchecked, in the order of the file; a backbone's controls after its methods."""
        runs = []
        for backbone in self.backbones:
            own = [run for method in self.methods for run in self._grid(backbone, method)]
            runs += own + self._controlled(own)
        return runs

    def require_bounded(self) -> None:
        """Refuse a grid that is empty or too large, before it is expanded.

        Raises:
            InputError: the grid is empty or has too many runs; the message names the list or the method.
        """
        count = len(self.backbones) * len(self.controls) * self.seeds
        for backbone, method in itertools.product(self.backbones, self.methods):
            given = self.methods[method] | self.backbones[backbone].methods.get(method, {})
            axes = {
                key: value for key, value in given.items() if isinstance(value, list) and key not in precedence.RESERVED
            }
            for key, value in axes.items():
                if not value:
                    raise InputError(f"methods.{method}.{key} = []: an empty list leaves no runs")
            count += math.prod(map(len, axes.values())) * self.seeds
            if count > MOST_RUNS:
                raise InputError(f"methods.{method}: more than {MOST_RUNS:,} runs: shorten its lists, or lower seeds")
        if not self.backbones or not self.methods:
            raise InputError("a study without runs: name a backbone and a method")

    def find_run(self, name: str) -> Run:
        """The run with this name.

        Raises:
            InputError: no run has this name.
        """
        # Only `expand` knows whose network a control takes; here any run's will do.
        grid = [run for backbone in self.backbones for method in self.methods for run in self._grid(backbone, method)]
        lent = (run.model_copy(update={"control": control}) for control in self.controls for run in grid)
        for run in itertools.chain(grid, lent):
            if run.name == name:
                return run
        raise InputError(f"study {self.name}: has no run {name}; `eil check` lists its runs")

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
        runs, dropped, built = [], [], dict[str, Any]()
        for backbone in shapes:
            own = []
            for run in (run for method in self.methods for run in self._grid(backbone, method)):
                if not run.repetition:  # the others have the same settings
                    refused = self._try(run, built)
                if refused is None:
                    own.append(run)
                elif isinstance(refused, IncompatibleSetting):
                    dropped.append(f"{run.name}: {refused}")
                else:
                    errors += str(refused).splitlines()
            runs += own + self._controlled(own)
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

    def _try(self, run: Run, built: dict[str, Any]) -> InputError | IncompatibleSetting | None:
        """Build a run's method without memory: what is wrong with its settings and where, or why they are no use."""
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
                parameter_groups.require_known(cls(built[repr(place)], classes, **run.settings), run.recipe)
        except SettingError as error:
            return InputError(f"{self._locate(run.method, run.backbone, error)}: {error.expected}")
        except IncompatibleSetting as reason:
            return reason
        return None

    def _grid(self, backbone: str, method: str) -> Iterator[Run]:
        choice = self.backbones[backbone]
        found = precedence.resolve(self, backbone, method)
        axes = found.part("settings")
        checkpoint = checkpoints.find(self, backbone, method, axes)
        for values in itertools.product(*axes.values()):
            for repetition in range(1 if checkpoint else self.seeds):
                yield Run(
                    study=self.name,
                    dataset=self.dataset,
                    backbone=backbone,
                    pretrained=False if checkpoint else choice.pretrained,
                    output_stride=found.output_stride,
                    method=method,
                    settings=dict(zip(axes, values, strict=True)),
                    repetition=repetition,
                    recipe=found.recipe,
                    layout=found.layout,
                    network=checkpoints.network_of(found.part("network"), checkpoint),
                    checkpoint=checkpoint,
                )

    def _controlled(self, own: list[Run]) -> list[Run]:
        """Runs of the controls, which take a backbone's first method's network, of its first settings."""
        first = [run for run in own if (run.method, run.settings) == (own[0].method, own[0].settings)]
        return [run.model_copy(update={"control": control}) for control in self.controls for run in first]

    def _locate(self, method: str, backbone: str, error: SettingError) -> str:
        """Where in the file a bad value stands: ``methods.eil.gamma[2] = 1.4``."""
        own = self.backbones[backbone].methods.get(method, {})
        prefix = f"backbones.{backbone}.methods.{method}" if error.setting in own else f"methods.{method}"
        given = (self.methods[method] | own).get(error.setting)
        at = f"[{given.index(error.value)}]" if isinstance(given, list) and error.value in given else ""
        return f"{prefix}.{error.setting}{at} = {error.value}"


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
        study.require_bounded()
        run_names.require_usable(
            [run.name for run in study.runs()]
        )  # recipes of backbones are checked as the grid is spread
    except InputError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from None
    return study


def _validated(model: type[T], content: Any, prefix: str) -> T:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(problems(error, model, prefix))) from None
