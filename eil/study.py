"""Study, Run, Recipe: what to compare, read from a YAML file, checked, and spread into runs.

Unknown keys are errors; any list under a method's settings is an axis of the grid; a setting that is itself
a list goes in a list of one. Nothing here needs torch until methods are checked against backbones
(:func:`Study.plan`), which happens once, before the first run.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eil.data import readers
from eil.files import InputError
from eil.settings import SettingError, Unsuitable, check, problems

T = TypeVar("T", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(_Strict):
    """How a network is trained. Defaults: the EIL authors' settings for CUB, on one device.

    Attributes:
        epochs: passes over the training images; the most there can be if ``stop`` is "plateau".
        batch_size: images a step.
        learning_rate: of the backbone; new layers learn ``head_multiplier`` times as fast.
        schedule: "step" multiplies the rate by ``decay`` at each of ``milestones``, "cosine" takes it to 0.
        milestones: epochs, counted from 0, at which a step schedule decays.
        warmup: epochs over which the rate first rises from 0.
        precision: "fp32", or "bf16" for mixed precision.
        clip_norm: largest norm of the gradient, or none.
        stop: "epochs" runs all of them; "plateau" (the paper's "while training is not convergent") ends when
            the epoch's mean loss has not fallen by ``min_delta`` (a share of it) for ``patience`` epochs.
        resize: side of the cached training images; ``crop`` is the side of what the network sees.
        flip: mirror half of the training images.
    """

    epochs: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    head_multiplier: Annotated[float, Field(gt=0)] = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (60,)
    warmup: Annotated[float, Field(ge=0)] = 0.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    stop: Literal["epochs", "plateau"] = "epochs"
    patience: Annotated[int, Field(ge=1)] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.01
    resize: Annotated[int, Field(ge=8)] = 256
    crop: Annotated[int, Field(ge=8)] = 224
    flip: bool = True

    @model_validator(mode="after")
    def _crop_fits(self) -> "Recipe":
        if self.crop > self.resize:
            raise ValueError(f"crop = {self.crop} is larger than resize = {self.resize}")
        return self


class DatasetChoice(BaseModel):
    """A data set by name, where it lies, and its reader's own settings beside these two keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    root: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The reader's settings: all but name and root."""
        return dict(self.model_extra or {})

    def folder(self) -> Path | None:
        """``root``, else the data set's folder under the environment's EIL_DATA, else None."""
        if self.root is not None:
            return self.root
        if data := os.environ.get("EIL_DATA"):
            inside = Path(data) / self.name
            return inside if inside.is_dir() else Path(data)
        return None


class BackboneChoice(_Strict):
    """A backbone in a study, with what differs on it from the rest of the study."""

    pretrained: bool = False
    output_stride: int | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Run(_Strict):
    """One training: data set x backbone x method with settings x repetition."""

    study: Name
    dataset: DatasetChoice
    backbone: Name
    pretrained: bool
    output_stride: int | None
    method: Name
    settings: dict[str, Any]
    repetition: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Readable, stable folder name: ``vgg_small-eil-gamma0.7-sigma1-seed0``."""
        settings = [f"{key}{_readable(value)}" for key, value in sorted(self.settings.items())]
        return "-".join([self.backbone, self.method, *settings, f"seed{self.repetition}"])

    @property
    def seed(self) -> int:
        """From data set, backbone and repetition, not the method: methods are compared on paired runs."""
        return int(_hash([self.dataset.name, self.backbone, self.repetition]), 16) % 2**31

    @property
    def key(self) -> str:
        """Hash of everything that determines the result, and not of where the data lie."""
        content = self.model_dump(mode="json", exclude={"study": True, "dataset": {"root"}})
        return _hash(content)

    @property
    def cache(self) -> str:
        """Name of the folder of decoded images that this run reads."""
        content = [
            self.dataset.model_dump(mode="json", exclude={"root"}),
            self.recipe.resize,
            self.recipe.crop,
        ]
        return f"{self.dataset.name}-{self.recipe.resize}-{self.recipe.crop}-{_hash(content)}"


class Study(_Strict):
    """What to compare. See workflow/config/ for examples."""

    name: Name
    dataset: DatasetChoice
    backbones: dict[Name, BackboneChoice]
    methods: dict[Name, dict[str, Any]]
    seeds: Annotated[int, Field(ge=1)] = 3
    recipe: Recipe = Recipe()

    @model_validator(mode="before")
    @classmethod
    def _plain_lists(cls, content: Any) -> Any:
        """``backbones: [a, b]`` and ``cam:`` without settings are short for empty mappings."""
        if not isinstance(content, Mapping):
            raise ValueError("expected a mapping of keys")
        content = dict(content)
        for key in ("backbones", "methods"):
            value = content.get(key)
            if isinstance(value, list):
                value = dict.fromkeys(value)
            if isinstance(value, Mapping):
                content[key] = {name: {} if inner is None else inner for name, inner in value.items()}
        return content

    def runs(self) -> list[Run]:
        """Every run of the grid, unchecked, in the order of the file."""
        return [run for backbone in self.backbones for method in self.methods for run in self._grid(backbone, method)]

    def run(self, name: str) -> Run:
        """The run of that name.

        Raises:
            InputError: there is none.
        """
        for run in self.runs():
            if run.name == name:
                return run
        raise InputError(f"study {self.name}: has no run {name}")

    def plan(self, source: str) -> tuple[list[Run], list[str]]:
        """The runs to do, and a line for each combination that makes no sense and was dropped.

        Args:
            source: the study's file, which opens every line of the error.

        Raises:
            InputError: a setting that the reader, a method or a backbone cannot use; every problem has a line.
        """
        from eil import backbones, method  # torch: seconds, so not at import

        errors = self._dataset_problems()
        shapes = {}
        for name, choice in self.backbones.items():
            try:
                shapes[name] = backbones.build_shapes(name, choice.pretrained, choice.output_stride)
            except SettingError as error:
                key = "" if error.value == name else f".{error.setting} = {error.value}"
                errors.append(f"backbones.{name}{key}: {error.expected}")
            others = choice.methods.keys() - self.methods.keys()
            errors += [f"backbones.{name}.methods.{other}: is not among the study's methods" for other in others]
        runs, dropped = [], []
        for backbone, label in itertools.product(shapes, self.methods):
            try:
                cls = method.load(label)
            except SettingError as error:
                errors.append(f"methods.{label}: {error.expected}")
                continue
            for run in self._grid(backbone, label):
                found = check(cls, run.settings, f"methods.{label}")
                if found:
                    errors += found
                    continue
                try:
                    cls(shapes[backbone], 2, **run.settings)
                    runs.append(run)
                except SettingError as error:
                    errors.append(f"{self._locate(label, backbone, error)}: {error.expected}")
                except Unsuitable as reason:
                    dropped.append(f"{run.name}: {reason}")
        if errors:
            raise InputError("\n".join(f"{source}: {line}" for line in dict.fromkeys(errors)))
        return runs, dropped

    def _dataset_problems(self) -> list[str]:
        if self.dataset.name not in readers():
            return [f"dataset.name = {self.dataset.name}: must be one of {', '.join(readers())}"]
        return check(readers()[self.dataset.name], self.dataset.settings, "dataset")

    def _grid(self, backbone: str, method: str) -> Iterator[Run]:
        choice = self.backbones[backbone]
        settings = self.methods[method] | choice.methods.get(method, {})
        axes = [value if isinstance(value, list) else [value] for value in settings.values()]
        recipe = _validated(Recipe, self.recipe.model_dump() | choice.recipe, f"backbones.{backbone}.recipe")
        for values in itertools.product(*axes):
            for repetition in range(self.seeds):
                yield Run(
                    study=self.name,
                    dataset=self.dataset,
                    backbone=backbone,
                    pretrained=choice.pretrained,
                    output_stride=choice.output_stride,
                    method=method,
                    settings=dict(zip(settings, values, strict=True)),
                    repetition=repetition,
                    recipe=recipe,
                )

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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    return parse(content, str(path))


def parse(content: Any, source: str) -> Study:
    """Check a study's content; ``source`` opens every line of the error."""
    try:
        study = _validated(Study, content, "")
        study.runs()  # recipes of backbones are checked as the grid is spread
    except InputError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from None
    names = [run.name for run in study.runs()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: two runs are named {twice}: a list of settings holds a value twice")
    return study


def _validated(model: type[T], content: Any, prefix: str) -> T:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(problems(error, prefix))) from None


def _readable(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(_readable, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
