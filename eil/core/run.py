"""A run: one training with everything that determines it, its name, its random seed and its key.

Nothing here needs torch.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eil.core import registry
from eil.core.files import expand_home

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=100)]  # a part of files' names
# A name, or LIBRARY/NAME.TAG for a network of a library (eil.core.registry.LIBRARIES).
BackboneName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*(/[A-Za-z0-9][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)?)?$")
]
ExtractorName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+]*$")]  # gradcam++

Pretrained = bool | str  # true, a name of weights, or FILE@sha256:HASH
# Fields that came after the first records. Their defaults are left out of a run's key, so that those stay usable.
ADDED_TO_RUN: dict[str, Any] = {"layout": "own", "network": {}, "checkpoint": None, "extractor": None}
ADDED_TO_RECIPE: dict[str, Any] = {"multipliers": {}, "bias_multiplier": 1.0, "optimizer": "sgd", "decay_biases": True}
LOCAL_WEIGHTS = re.compile(r".+@sha256:[0-9a-fA-F]{64}")


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(StrictModel):
    """How a network is trained. Defaults: the EIL authors' settings for CUB, on one device.

    Attributes:
        epochs: passes over the training images; the maximum if ``stop`` is "plateau".
        batch_size: images per step, over all devices.
        learning_rate: of the backbone; new layers use ``head_multiplier`` times it.
        multipliers: multiples of the learning rate: of ``new`` (every layer that is not the backbone's; default
            ``head_multiplier``), of ``classifier`` (the layers that give class scores; default as ``new``), and of
            stages of the backbone or prefixes of them (``layer4``; default 1).
        bias_multiplier: biases learn at this multiple of their layer's rate.
        decay_biases: whether ``weight_decay`` holds for biases, norms, class tokens and position embeddings too; timm's
            optimizers leave these alone (False).
        optimizer: "sgd" with Nesterov's momentum, or "adamw" (Loshchilov & Hutter, ICLR 2019), which has no use for
            ``momentum``.
        momentum: of "sgd".
        weight_decay: of "sgd", added to the gradient (L2); of "adamw", decoupled.
        schedule: "step" multiplies the learning rate by ``decay`` at each of ``milestones``; "cosine" lowers it to 0.
        milestones: epochs, counted from 0, at which a step schedule decays.
        warmup: epochs over which the learning rate first rises from 0.
        devices: number of devices per training; each batch is divided evenly among them.
        precision: "fp32"; "tf32", with TF32 products on a GPU; or "bf16" for mixed precision.
        deterministic: results repeat bit for bit on one machine (default: on a CPU only). On a GPU this is slower;
            operations without a deterministic form are listed in train.json.
        compile: whether the loss is compiled by torch.compile.
        channels_last: whether images and features use this memory layout.
        clip_norm: maximum norm of the gradient; None for no clipping.
        stop: "epochs" runs all of them; "plateau" (the paper's "while training is not convergent") ends when
            the epoch's mean loss has not fallen by ``min_delta`` (a share of it) for ``patience`` epochs.
        resize: side of the cached training images, in pixels.
        crop: side of the network's input, in pixels. In training a random crop of this side is cut from ``resize``; in
            tests ``geometry`` says whether an image is resized to it or cut.
        flip: mirror half of the training images.
        geometry: how photos become the network's square input (:mod:`eil.data.geometry`).
        crops: 10 to classify by the mean softmax of four corners and the middle of the ``resize`` square, each
            also mirrored (Krizhevsky et al., 2012); maps always use the one whole image.
    """

    epochs: Annotated[int, Field(ge=1)] = 80
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    head_multiplier: Annotated[float, Field(gt=0)] = 10.0
    multipliers: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    bias_multiplier: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_biases: bool = True
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (60,)
    warmup: Annotated[float, Field(ge=0)] = 0.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    devices: Annotated[int, Field(ge=1)] = 1
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool | None = None
    compile: bool = False
    channels_last: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    stop: Literal["epochs", "plateau"] = "epochs"
    patience: Annotated[int, Field(ge=1)] = 3
    min_delta: Annotated[float, Field(ge=0, lt=1)] = 0.01
    resize: Annotated[int, Field(ge=8)] = 256
    crop: Annotated[int, Field(ge=8)] = 224
    flip: bool = True
    geometry: Literal["direct", "center-crop", "shorter-side"] = "direct"
    crops: Literal[1, 10] = 1

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size = {self.batch_size} cannot be shared by devices = {self.devices}")
        if self.crop > self.resize:
            raise ValueError(f"crop = {self.crop} is larger than resize = {self.resize}")
        if (self.stop, self.schedule) == ("plateau", "cosine"):
            raise ValueError("stop = plateau: expected schedule = step; a cosine is made for its last epoch")
        return self


class DatasetChoice(BaseModel):
    """A data set's name and folder; all further keys are settings of its reader."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    root: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The reader's settings: all but name and root."""
        return dict(self.model_extra or {})

    @property
    def data_name(self) -> str:
        """Name of the data where a layout has several: cub for {name: wsoleval, benchmark: CUB}."""
        return str(self.settings.get("benchmark", self.name)).lower()

    def folder(self) -> Path | None:
        """``root``, else the data set's folder under the environment's EIL_DATA, else None.

        Raises:
            InputError: EIL_DATA begins with ``~`` and a user that does not exist.
        """
        if self.root is not None:
            return self.root
        if data := os.environ.get("EIL_DATA"):
            folder = expand_home(Path(data), "EIL_DATA")
            inside = folder / self.name
            return inside if inside.is_dir() else folder
        return None


class ExtractorChoice(BaseModel):
    """A map extractor's name; all further keys are its settings."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: ExtractorName

    @property
    def settings(self) -> dict[str, Any]:
        """The extractor's settings: all but its name."""
        return dict(self.model_extra or {})

    @property
    def parts(self) -> list[str]:
        """Its part of a run's name: ``["layercam", "atlayer3"]``."""
        return [self.name, *(f"{key}{format_value(value)}" for key, value in sorted(self.settings.items()))]


class Run(StrictModel):
    """One training: data set x backbone x method with settings x repetition.

    With a ``control`` or an ``extractor``, the trained network of this run with other maps instead of the method's.

    Attributes:
        study: name of the study.
        dataset: the data set with its settings.
        backbone: name of the backbone.
        pretrained: which weights training starts from; see :func:`eil.backbones.build`.
        output_stride: input pixels per cell of the last feature map; None for the backbone's default.
        method: name of the method.
        settings: of the method, as in the study.
        repetition: index of the seed, from 0; ``seed0`` in names of runs.
        recipe: how the network is trained.
        control: name of the control, if any.
        layout: whose network it is: own, wsoleval or authors; see :mod:`eil.study.layouts`.
        network: options that differ from the backbone's own network.
        checkpoint: FILE@sha256:HASH of weights that are imported instead of trained.
        extractor: the map extractor with its settings, if any.
    """

    study: Name
    dataset: DatasetChoice
    backbone: BackboneName
    pretrained: Pretrained
    output_stride: int | None
    method: Name
    settings: dict[str, Any]
    repetition: int
    recipe: Recipe
    control: Name | None = None
    layout: str = "own"
    network: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    extractor: ExtractorChoice | None = None

    @property
    def name(self) -> str:
        """Name of the run's folder: ``vgg_small-eil-gamma0.7-sigma1-seed0``."""
        settings = [f"{key}{format_value(value)}" for key, value in sorted(self.settings.items())]
        control = [self.control] if self.control else []
        extractor = self.extractor.parts if self.extractor else []
        return "-".join(
            [file_name(self.backbone), self.method, *settings, *control, *extractor, f"seed{self.repetition}"]
        )

    @property
    def reuses_network(self) -> bool:
        """Whether its maps are a control's or an extractor's, made with another run's trained network."""
        return self.control is not None or self.extractor is not None

    @property
    def training_run(self) -> "Run":
        """The run that trains the network of this one: itself, or the run from which it borrows."""
        return self.model_copy(update={"control": None, "extractor": None})

    @property
    def rng_seed(self) -> int:
        """Seed of all random draws, from data set, backbone and repetition but not the method, so that runs are paired.

        Paired runs of two methods have the same initial weights and the same order of data.
        """
        return int(_hash([self.dataset.name, self.backbone, self.repetition]), 16) % 2**31

    @property
    def key(self) -> str:
        """Hash of everything that determines the result; folders of data are left out."""
        content = self.model_dump(mode="json", exclude={"study": True, "dataset": {"root"}})
        for part, added in ((content, ADDED_TO_RUN), (content["recipe"], ADDED_TO_RECIPE)):
            for name, default in added.items():
                if part[name] == default:
                    del part[name]
        for name in registry.location_settings(self.dataset.name) & content["dataset"].keys():
            content["dataset"][name] = content["dataset"][name] is not None
        for name in ("pretrained", "checkpoint"):  # of a file only the hash counts
            if LOCAL_WEIGHTS.fullmatch(str(content.get(name))):
                content[name] = str(content[name]).rpartition("@")[2].lower()
        return _hash(content)

    @property
    def cache(self) -> str:
        """Name of the folder of decoded images that this run reads; it depends on the data's folder and settings."""
        folder = None if registry.is_embedded(self.dataset.name) else self.dataset.folder()
        content = [
            self.dataset.model_dump(mode="json", exclude={"root"}),
            str(folder.resolve()) if folder else None,
            *(getattr(self.recipe, key) for key in ("resize", "crop", "geometry", "crops")),
        ]
        return f"{self.dataset.name}-{self.recipe.resize}-{self.recipe.crop}-{_hash(content)}"


def file_name(backbone: str) -> str:
    """A backbone's name in names of files and folders: a library's slash becomes a dot, which no other name has."""
    return backbone.replace("/", ".")


def format_value(value: object) -> str:
    """A setting's value in names of runs: ``0.7``, ``pool3+pool4``."""
    if isinstance(value, list | tuple):
        return "+".join(map(format_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
