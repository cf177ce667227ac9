"""birds: the embedded data set, drawn on first use and the same on every machine.

A class is told apart by its head (crown, face and beak colours: unique to it), less by its wing (a bar
pattern that two classes share, and that one bird in five borrows from another class) and weakly by its body
(a hue that classes share and individuals blur): the situation for which EIL was made. Every image comes with
its box, its mask and its part masks. Backgrounds carry distractors in the heads' own colours, so that
colour alone does not give the class away.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from eil.core.files import InputError
from eil.data import Boxes, Dataset, Image, Split

PARTS = ("body", "wing", "head", "beak", "tail", "legs")
SPLITS = ("train", "val", "test")
EMBEDDED = True  # there is no folder of it
SIDE = 128  # drawn at twice the demo's input, so that resizing smooths the edges
_FIXED = 4  # fractional bits of OpenCV's fixed-point coordinates

Points = npt.NDArray[np.float64]
Color = tuple[int, int, int]

# (R, G, B) of crown, face and beak: as different as ten heads can be, no colour pair twice.
_HEADS: tuple[tuple[Color, Color, Color], ...] = (
    ((215, 30, 35), (250, 240, 225), (50, 50, 55)),
    ((35, 70, 205), (250, 205, 50), (240, 240, 240)),
    ((35, 35, 40), (245, 245, 240), (240, 140, 30)),
    ((40, 165, 80), (215, 40, 45), (250, 215, 60)),
    ((245, 205, 45), (40, 40, 45), (220, 60, 50)),
    ((130, 50, 165), (165, 225, 235), (245, 190, 60)),
    ((240, 125, 30), (60, 70, 175), (245, 240, 225)),
    ((245, 245, 245), (60, 175, 90), (70, 60, 130)),
    ((230, 90, 150), (90, 50, 30), (240, 220, 120)),
    ((60, 190, 205), (240, 130, 50), (40, 40, 45)),
)
MAX_CLASSES = len(_HEADS)
_BODY_HUES = (12, 30, 60, 105)  # OpenCV hue (0..179): brown, ochre, olive, slate blue


@dataclass(frozen=True)
class _Canvas:
    """An image being painted and the part mask that follows it."""

    image: Image
    parts: Image

    def fill(self, points: Points, color: npt.ArrayLike, part: int | None = None) -> None:
        """Paint a polygon, (P, 2) x y; ``part`` is what the mask then holds (None: mask untouched)."""
        fixed = np.round(points * 2**_FIXED).astype(np.int32)
        rgb = [float(c) for c in np.clip(np.asarray(color, dtype=float), 0, 255)]
        cv2.fillPoly(self.image, [fixed], rgb, cv2.LINE_AA, _FIXED)
        if part is not None:
            cv2.fillPoly(self.parts, [fixed], [float(part)], cv2.LINE_8, _FIXED)


@dataclass(frozen=True)
class _Pose:
    """Places the bird's own frame (beak to the right, unit = bird length) on the canvas."""

    center: Points
    length: float
    angle: float
    mirror: float

    def place(self, points: npt.ArrayLike) -> Points:
        """Map (P, 2) points of the bird's frame to pixels."""
        x, y = np.asarray(points, dtype=float).T
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = np.stack([self.mirror * (x * cos - y * sin), x * sin + y * cos], axis=1)
        return self.center + self.length * turned


def read(
    root: Path | None = None,
    *,
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] = MAX_CLASSES,
    train_per_class: Annotated[int, Field(ge=1)] = 100,
    val_per_class: Annotated[int, Field(ge=1)] = 15,
    test_per_class: Annotated[int, Field(ge=1)] = 30,
    seed: Annotated[int, Field(ge=0)] = 0,
    first_class: Annotated[int, Field(ge=0, lt=MAX_CLASSES)] = 0,
) -> Dataset:
    """Describe the birds; no image is drawn for train until it is asked for.

    Args:
        root: unused, birds are drawn rather than read.
        classes: number of kinds of bird.
        train_per_class: images of each class in train.
        val_per_class: in val.
        test_per_class: in test.
        seed: another seed draws other birds of the same kinds.
        first_class: the first kind; with 5, five classes are kinds that a study of five classes never shows.

    Raises:
        InputError: there are not so many kinds.
    """
    del root
    if first_class + classes > MAX_CLASSES:
        raise InputError(
            f"dataset: first_class = {first_class} and classes = {classes}: there are {MAX_CLASSES} kinds of birds"
        )
    counts = dict(zip(SPLITS, (train_per_class, val_per_class, test_per_class), strict=True))
    kinds = range(first_class, first_class + classes)
    splits = {name: _split(name, kinds, count, seed) for name, count in counts.items()}
    return Dataset("birds", tuple(f"bird {k + 1:02d}" for k in kinds), splits, PARTS)


def _split(name: str, kinds: range, per_class: int, seed: int) -> Split:
    labels = np.repeat(np.arange(len(kinds), dtype=np.int64), per_class)
    keys = [(seed, SPLITS.index(name), kinds[label], i % per_class) for i, label in enumerate(labels)]
    boxes = [np.empty((0, 4)) if name == "train" else _box(draw(*key)[1]) for key in keys]
    return Split(
        ids=[f"{name}/{label:02d}/{i:04d}" for _, _, label, i in keys],
        labels=labels,
        boxes=boxes,
        sources=keys,
        load=_image,
        masks=keys,
        load_mask=_parts,
    )


def _image(key: tuple[int, int, int, int]) -> Image:
    return draw(*key)[0]


def _parts(key: tuple[int, int, int, int]) -> Image:
    return draw(*key)[1]


def _box(parts: Image) -> Boxes:
    ys, xs = np.nonzero(parts)
    return np.array([[xs.min(), ys.min(), xs.max(), ys.max()]], dtype=float)


def draw(seed: int, split: int, label: int, number: int) -> tuple[Image, Image]:
    """Draw one bird.

    Args:
        seed: of the data set.
        split: index into :data:`SPLITS`; no two splits share a bird.
        label: the kind of bird.
        number: which bird of that kind.

    Returns:
        The image, (SIDE, SIDE, 3) RGB, and its part mask, (SIDE, SIDE), k where ``PARTS[k - 1]`` is seen.
    """
    rng = np.random.default_rng([seed, split, label, number])
    canvas = _Canvas(_background(rng), np.zeros((SIDE, SIDE), np.uint8))
    for _ in range(rng.integers(1, 5)):
        _distractor(canvas, rng)
    length = SIDE * rng.uniform(0.25, 0.64)  # the pose shortens it: boxes' sides are 0.2 to 0.7 of the image
    pose = _Pose(
        center=rng.uniform(0.40 * length + 4, SIDE - 0.40 * length - 4, size=2),
        length=length,
        angle=rng.uniform(-0.6, 0.6),
        mirror=rng.choice([-1.0, 1.0]),
    )
    _bird(canvas, pose, label, rng)
    for _ in range(rng.integers(0, 3)):
        _twig(canvas, pose, rng)
    return _light(canvas.image, rng), canvas.parts


def _background(rng: np.random.Generator) -> Image:
    """Two blended colours with smooth and fine texture, (SIDE, SIDE, 3)."""
    hues = rng.choice([[105, 60], [45, 50], [20, 30], [60, 100]])  # sky, meadow, bark, water
    colors = [_hsv(hue + rng.normal(0, 6), rng.uniform(30, 120), rng.uniform(90, 220)) for hue in hues]
    blend = np.linspace(0, 1, SIDE)[:, None] + _noise(rng, 5, 0.35) + _noise(rng, 17, 0.25)  # (SIDE, SIDE)
    blend = np.clip(blend, 0, 1)[..., None]
    texture = _noise(rng, 40, 12.0)[..., None] + rng.normal(0, 5, (SIDE, SIDE, 1))
    return np.clip((1 - blend) * colors[0] + blend * colors[1] + texture, 0, 255).astype(np.uint8)


def _distractor(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A leaf or a berry with a rim, in the colours of some head: colour without the bird."""
    crown, face, beak = _HEADS[rng.integers(MAX_CLASSES)]
    center, size = rng.uniform(0, SIDE, 2), SIDE * rng.uniform(0.03, 0.08)
    if rng.random() < 0.5:
        canvas.fill(_ellipse(center, size, size), beak)
        canvas.fill(_ellipse(center, 0.75 * size, 0.75 * size), crown)
    else:
        canvas.fill(_ellipse(center, 1.8 * size, 0.7 * size, rng.uniform(0, np.pi)), face)


def _bird(canvas: _Canvas, pose: _Pose, label: int, rng: np.random.Generator) -> None:
    """Paint tail, legs, body, wing, head and beak, from back to front."""
    body, wing, head, beak, tail, legs = range(1, len(PARTS) + 1)
    hue = _BODY_HUES[label % len(_BODY_HUES)] + rng.normal(0, 12)
    plumage = _hsv(hue, rng.uniform(50, 130), rng.uniform(110, 200))
    slim, neck, lift = rng.uniform(0.85, 1.15), rng.uniform(-0.04, 0.05), rng.uniform(-0.15, 0.25)

    spread = rng.uniform(0.05, 0.09)
    fan = [(-0.20, -0.03), (-0.52, lift - spread), (-0.54, lift + spread), (-0.20, 0.07)]
    canvas.fill(pose.place(fan), 0.7 * plumage, tail)
    for x in (-0.03, 0.06):
        foot = x + rng.uniform(-0.03, 0.05)
        leg = [(x, 0.12), (foot, 0.32), (foot + 0.07, 0.33), (foot + 0.025, 0.31), (x + 0.03, 0.12)]
        canvas.fill(pose.place(leg), (90, 70, 55), legs)

    belly = _ellipse((0.0, 0.03), 0.29, 0.17 * slim, 0.12)
    canvas.fill(pose.place(belly), plumage, body)
    canvas.fill(pose.place(_ellipse((0.05, 0.10), 0.19, 0.085 * slim, 0.1)), 1.25 * plumage + 12, body)
    _wing(canvas, pose, label, plumage, rng, wing)

    crown, face, bill = (np.array(c) + rng.normal(0, 8, 3) for c in _HEADS[label])
    center = np.array([0.27, -0.14 + neck])
    tip = center + (rng.uniform(0.24, 0.28), 0.03)
    canvas.fill(pose.place([center + (0.10, -0.045), tip, center + (0.10, 0.065)]), bill, beak)
    canvas.fill(pose.place(_ellipse(center, 0.14, 0.135)), face, head)
    cap = _ellipse(center, 0.14, 0.135)
    canvas.fill(pose.place(cap[cap[:, 1] < center[1] - 0.01]), crown, head)
    canvas.fill(pose.place(_ellipse(center + (0.055, 0.005), 0.027, 0.027)), (245, 245, 245), head)
    canvas.fill(pose.place(_ellipse(center + (0.06, 0.005), 0.018, 0.018)), (15, 15, 15), head)


def _wing(canvas: _Canvas, pose: _Pose, label: int, plumage: Points, rng: np.random.Generator, part: int) -> None:
    """A wing with one of six bar patterns; one bird in five wears another class's."""
    pattern = (label if rng.random() < 0.8 else rng.integers(MAX_CLASSES)) % 6
    bars, bright = pattern % 3, pattern // 3
    raise_by = rng.uniform(-0.25, 0.15)
    shape = np.array([(0.15, -0.06), (0.02, -0.12), (-0.20, -0.06), (-0.36, 0.04), (-0.14, 0.10), (0.08, 0.07)])
    shape[2:4, 1] += raise_by * 0.6
    canvas.fill(pose.place(_smooth(shape)), 0.62 * plumage, part)
    color = (235, 230, 215) if bright else (40, 38, 45)
    for k in range(bars):
        x = -0.02 - 0.12 * k
        y = raise_by * 0.25 * (k + 0.5)
        bar = [(x, -0.07 + y), (x + 0.045, -0.07 + y), (x - 0.005, 0.075 + y), (x - 0.05, 0.075 + y)]
        canvas.fill(pose.place(bar), color, part)


def _twig(canvas: _Canvas, pose: _Pose, rng: np.random.Generator) -> None:
    """A thin branch across the bird; what it hides is no longer bird."""
    start = pose.center + pose.length * rng.uniform(-0.5, 0.5, 2)
    direction = rng.uniform(0, np.pi)
    along = np.array([np.cos(direction), np.sin(direction)])
    across = np.array([-along[1], along[0]]) * pose.length * rng.uniform(0.012, 0.028)
    ends = start - SIDE * along, start + SIDE * along
    twig = np.array([ends[0] - across, ends[1] - across, ends[1] + across, ends[0] + across])
    canvas.fill(twig, _hsv(15, 80, rng.uniform(50, 110)), 0)


def _light(image: Image, rng: np.random.Generator) -> Image:
    """Exposure, a colour cast and a light from one side."""
    direction = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[-0.5 : 0.5 : SIDE * 1j, -0.5 : 0.5 : SIDE * 1j]
    slope = 1 + rng.uniform(0, 0.35) * (xs * np.cos(direction) + ys * np.sin(direction))
    gain = rng.uniform(0.75, 1.15) * rng.uniform(0.95, 1.05, 3)
    return np.clip(image * slope[..., None] * gain, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, cells: int, scale: float) -> Points:
    """Smooth noise of about ``cells`` bumps a side and standard deviation ``scale``, (SIDE, SIDE)."""
    smooth: npt.NDArray[Any] = cv2.resize(rng.normal(size=(cells, cells)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return scale * smooth


def _ellipse(center: npt.ArrayLike, a: float, b: float, angle: float = 0.0) -> Points:
    """Outline of an ellipse with half-axes a and b, (40, 2)."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = a * np.cos(t), b * np.sin(t)
    turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    return np.asarray(center, dtype=float) + turned


def _smooth(points: Points) -> Points:
    """Round a polygon's corners by cutting them three times (Chaikin), (8 P, 2)."""
    for _ in range(3):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def _hsv(hue: float, saturation: float, value: float) -> Points:
    """RGB of OpenCV's hue (0..179), saturation and value (0..255), (3,)."""
    pixel = np.array([[[hue % 180, saturation, value]]]).astype(np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(float)
