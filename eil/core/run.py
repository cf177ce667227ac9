"""Run: one training with all that determines it, its name, its seed and its key; and its parts.

Nothing here needs torch.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eil.core.files import at_home

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]

Pretrained = bool | str  # true, a name of weights, or FILE@sha256:HASH
LOCAL_WEIGHTS = re.compile(r".+@sha256:[0-9a-fA-F]{64}")


class Strict(BaseModel):
    """Read once, then frozen; unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Strict):
    """How a network is trained. Defaults: the EIL authors' settings for CUB, on one device.

    Attributes:
        epochs: passes over the training images; the most there can be if ``stop`` is "plateau".
        batch_size: images a step.
        learning_rate: of the backbone; new layers learn ``head_multiplier`` times as fast.
        schedule: "step" multiplies the rate by ``decay`` at each of ``milestones``, "cosine" takes it to 0.
        milestones: epochs, counted from 0, at which a step schedule decays.
        warmup: epochs over which the rate first rises from 0.
        devices: on how many devices one training runs, which share its batches evenly.
        precision: "fp32"; "tf32", with TF32 products on a GPU; or "bf16" for mixed precision.
        deterministic: bit for bit the same from run to run on one machine (default: on a CPU); on a GPU it is slower,
            and the operations that have no such form are named in train.json.
        compile: whether the loss goes through torch.compile.
        clip_norm: largest norm of the gradient, or none.
        stop: "epochs" runs all of them; "plateau" (the paper's "while training is not convergent") ends when
            the epoch's mean loss has not fallen by ``min_delta`` (a share of it) for ``patience`` epochs.
        resize: side of the cached training images; ``crop`` is the side of what the network sees.
        flip: mirror half of the training images.
        geometry: how photos are fitted into the square that the network sees (:mod:`eil.data.geometry`).
        crops: 10 to classify by the mean softmax of four corners and the middle of the ``resize`` square, each
            mirrored too (Krizhevsky et al., 2012); maps are always of the one image.
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
    devices: Annotated[int, Field(ge=1)] = 1
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    deterministic: bool | None = None
    compile: bool = False
    channels_last: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    stop: Literal["epochs", "plateau"] = "epochs"
    patience: Annotated[int, Field(ge=1)] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.01
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

    @property
    def subject(self) -> str:
        """What the data are, where a layout has several: cub for {name: wsoleval, benchmark: CUB}."""
        return str(self.settings.get("benchmark", self.name)).lower()

    def folder(self) -> Path | None:
        """``root``, else the data set's folder under the environment's EIL_DATA, else None.

        Raises:
            InputError: EIL_DATA is in the home of nobody.
        """
        if self.root is not None:
            return self.root
        if data := os.environ.get("EIL_DATA"):
            folder = at_home(Path(data), "EIL_DATA")
            inside = folder / self.name
            return inside if inside.is_dir() else folder
        return None


class Run(Strict):
    """One training: data set x backbone x method with settings x repetition.

    With a ``control``, that training's network with the control's maps instead of the method's own.
    """

    study: Name
    dataset: DatasetChoice
    backbone: Name
    pretrained: Pretrained
    output_stride: int | None
    method: Name
    settings: dict[str, Any]
    repetition: int
    recipe: Recipe
    control: Name | None = None

    @property
    def name(self) -> str:
        """Readable, stable folder name: ``vgg_small-eil-gamma0.7-sigma1-seed0``."""
        settings = [f"{key}{readable(value)}" for key, value in sorted(self.settings.items())]
        control = [self.control] if self.control else []
        return "-".join([self.backbone, self.method, *settings, *control, f"seed{self.repetition}"])

    @property
    def trained(self) -> "Run":
        """The run whose training this one uses: itself, unless it is a control's."""
        return self.model_copy(update={"control": None})

    @property
    def seed(self) -> int:
        """From data set, backbone and repetition, not the method: methods are compared on paired runs."""
        return int(_hash([self.dataset.name, self.backbone, self.repetition]), 16) % 2**31

    @property
    def key(self) -> str:
        """Hash of everything that determines the result, and not of where the data lie."""
        from eil import data

        content = self.model_dump(mode="json", exclude={"study": True, "dataset": {"root"}})
        for name in data.locations(self.dataset.name) & content["dataset"].keys():
            content["dataset"][name] = content["dataset"][name] is not None
        if LOCAL_WEIGHTS.fullmatch(str(self.pretrained)):
            content["pretrained"] = str(self.pretrained).rpartition("@")[2].lower()
        return _hash(content)

    @property
    def cache(self) -> str:
        """Name of the folder of decoded images that this run reads: other photos, or photos elsewhere, have another."""
        from eil import data

        folder = None if data.is_embedded(self.dataset.name) else self.dataset.folder()
        content = [
            self.dataset.model_dump(mode="json", exclude={"root"}),
            str(folder.resolve()) if folder else None,
            *(getattr(self.recipe, key) for key in ("resize", "crop", "geometry", "crops")),
        ]
        return f"{self.dataset.name}-{self.recipe.resize}-{self.recipe.crop}-{_hash(content)}"


def readable(value: object) -> str:
    """A setting as it stands in names: ``0.7``, ``pool3+pool4``."""
    if isinstance(value, list | tuple):
        return "+".join(map(readable, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
