"""The contract of a map extractor: another map from a trained network, without training again.

An extractor reads what :mod:`eil.methods.shared_pass` found in one forward pass, and in one backward pass if it needs
gradients. Its settings are the keyword-only arguments of its constructor. Another package registers extractors in the
entry point group ``eil.extractors``, as ``baselines/`` does.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from torch import Tensor

from eil.backbones import Backbone
from eil.core.settings import IncompatibleSetting
from eil.methods.base import Method
from eil.methods.head import CamHead

Gradients = Literal["none", "plain", "guided"]
_BLOCK = re.compile(r"_\d+$")  # layer4_2 is a block of layer4


@dataclass(frozen=True)
class Evidence:
    """What an extractor reads; every tensor but ``classes`` is float32, none needs a gradient.

    Attributes:
        features: at the extractor's stage, or those that the head pools if it has none, (B, K, h, w).
        gradients: of each image's asked logit by ``features``, (B, K, h, w); None if the extractor needs none.
        logits: (B, C).
        weight: of the classifier, (C, K of the head).
        classes: class of each wanted map, (B,) int64.
    """

    features: Tensor
    gradients: Tensor | None
    logits: Tensor
    weight: Tensor
    classes: Tensor

    @property
    def slopes(self) -> Tensor:
        """The gradients, where there must be some: (B, K, h, w).

        Raises:
            ValueError: the extractor did not declare that it needs them.
        """
        if self.gradients is None:
            raise ValueError('an extractor that reads gradients must declare gradients = "plain" or "guided"')
        return self.gradients


class Extractor(ABC):
    """Makes maps from the features that the head pools and the classifier's weights.

    Args:
        model: the method whose network is read.

    Attributes:
        at: stage whose features are read; None for those that the head pools.
        gradients: which gradients are needed: "none", "plain", or "guided": those below 0 stop at every ReLU.
        class_dependent: whether the map depends on the class asked for.
        signed: whether a value below 0 has a meaning.
        needs_fit: whether :meth:`fit` has to see the training images of every class before the first map.

    Raises:
        IncompatibleSetting: the method makes its logits and maps in another way than CAM.
    """

    gradients: Gradients = "none"
    class_dependent: bool = True
    signed: bool = True
    needs_fit: bool = False

    def __init__(self, model: Method) -> None:
        require_cam_head(model)
        self.at: str | None = None

    def fit(self, label: int, features: Iterator[Tensor]) -> None:
        """Learn from the training images of a class, of which labels alone are known; called if ``needs_fit``.

        Args:
            label: of all these images.
            features: at the extractor's stage, or those that the head pools, (B, K, h, w) float32 each; to read once.
        """
        raise NotImplementedError

    @abstractmethod
    def maps(self, found: Evidence) -> Tensor:
        """Maps of the asked classes, (B, h, w), not normalised."""


class StageExtractor(Extractor):
    """Makes maps from a stage's features.

    Args:
        model: the method whose network is read.
        at: the stage (default: :func:`default_stage`).

    Raises:
        SettingError: no such stage.
        IncompatibleSetting: the stage's features are not a grid, or the method makes its logits in another way.
    """

    def __init__(self, model: Method, *, at: str | None = None) -> None:
        super().__init__(model)
        stage = default_stage(model.backbone) if at is None else at
        model.backbone.require_grid(stage)
        self.at = model.backbone.names[model.backbone.index(stage)]


class GradientExtractor(StageExtractor):
    """Makes maps from features and gradients at a stage.

    At the last stage of a network whose head has no layers of its own most of these maps are CAM's, up to a factor.
    """

    gradients: Gradients = "plain"


def default_stage(backbone: Backbone) -> str:
    """The stage before the last, with all blocks of a stage as one: layer3_5 before layer4_2; else the only one."""
    last = _BLOCK.sub("", backbone.names[-1])
    blocks = list(takewhile(lambda name: _BLOCK.sub("", name) == last, reversed(backbone.names)))
    earlier = backbone.names[: -len(blocks)]
    return earlier[-1] if earlier else backbone.names[-1]


def require_cam_head(model: Method) -> None:
    """Refuse a method whose maps are not those of global average pooling and a linear classifier.

    Raises:
        IncompatibleSetting: the method has its own ``maps``, so that logits and maps need not come from its head; or
            the head has, as CALM's, so that the classifier's weights alone are not its map.
    """
    overriding: type | None = None
    if type(model).maps is not Method.maps:
        overriding = type(model)
    elif type(model.head).maps is not CamHead.maps:
        overriding = type(model.head)
    if overriding is not None:
        raise IncompatibleSetting(
            f"{overriding.__name__} makes its logits and maps in its own way; map extractors read a network whose "
            "logits are its head's, by pooling and a linear layer"
        )
