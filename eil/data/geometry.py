"""How photos, boxes and masks are mapped to the square input of a network.

- ``direct``: the photo is resized to the square, as the wsolevaluation benchmark does.
- ``center-crop``: it is resized to a larger square, and the centre is cropped, as the EIL authors' code does.
- ``shorter-side``: its shorter side is resized, its aspect ratio kept, and the centre cropped, as usual for ImageNet.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image as PILImage

from eil.data import Boxes, Image

Geometry = Literal["direct", "center-crop", "shorter-side"]


@dataclass(frozen=True)
class Frame:
    """Size of the cached images, and how photos are fitted into them.

    Attributes:
        resize: side of the training images, from which random crops are taken, in pixels.
        crop: side of the network's input, and of the images of val and test, in pixels.
        geometry: see the module's docstring.
        crops: 10 if ten crops are classified; then val and test are cached at side ``resize`` too.
    """

    resize: int
    crop: int
    geometry: Geometry = "direct"
    crops: int = 1


@dataclass(frozen=True)
class Placement:
    """A photo is resized to ``width`` x ``height``, and a square of ``side`` at ``left``, ``top`` is cropped."""

    width: int
    height: int
    left: int
    top: int
    side: int

    def image(self, image: Image) -> Image:
        """(H, W, 3) -> (side, side, 3), bilinear with antialiasing."""
        scaled = PILImage.fromarray(image).resize((self.width, self.height), PILImage.Resampling.BILINEAR)
        return self._cut(np.asarray(scaled))

    def mask(self, mask: Image) -> Image:
        """(H, W) -> (side, side); nearest neighbour, which keeps labels."""
        scaled = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_NEAREST)
        return self._cut(np.asarray(scaled, dtype=np.uint8))

    def boxes(self, boxes: Boxes, size: tuple[int, int]) -> Boxes:
        """Boxes (K, 4) of a photo of this (width, height) in the square.

        They are scaled and truncated, as the benchmark does, then shifted and clipped. A box outside the square becomes
        a line on its border, which no prediction can hit.
        """
        scaled = np.trunc(boxes * np.array([self.width, self.height] * 2) / np.array([*size, *size]))
        return np.clip(scaled - np.array([self.left, self.top] * 2), 0, self.side - 1)

    def to_photo(self, edges: Boxes, size: tuple[int, int]) -> Boxes:
        """Edges x0, y0, x1, y1 in the square, (K, 4), to a photo of this (width, height), not rounded.

        An edge is a border between pixels: a box whose last column is x1 ends at the edge x1 + 1.
        """
        scale = np.array([*size, *size]) / np.array([self.width, self.height] * 2)
        return np.asarray((edges + np.array([self.left, self.top] * 2)) * scale)

    def _cut(self, array: Image) -> Image:
        return array[self.top : self.top + self.side, self.left : self.left + self.side]


def train_frame(size: tuple[int, int], frame: Frame) -> Placement:
    """Placement of a photo of this (width, height) in the square of side ``resize`` from which training crops."""
    return _placed(size, frame.resize, frame.resize, frame.geometry == "shorter-side")


def eval_frame(size: tuple[int, int], frame: Frame) -> Placement:
    """Placement of a photo of this (width, height) in the square of side ``crop`` that val and test use."""
    if frame.geometry == "direct":
        return _placed(size, frame.crop, frame.crop, keep_shape=False)
    return _placed(size, frame.resize, frame.crop, frame.geometry == "shorter-side")


def _placed(size: tuple[int, int], scaled: int, side: int, keep_shape: bool) -> Placement:
    width, height = scaled, scaled
    if keep_shape:
        shorter = min(size)
        width, height = (max(scaled, round(each * scaled / shorter)) for each in size)
    return Placement(width, height, (width - side) // 2, (height - side) // 2, side)
