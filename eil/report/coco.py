"""Predicted boxes in COCO's results format, for tools that know it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from eil.core.records import Record
from eil.data import Boxes, cache, geometry
from eil.data.clipping import clip
from eil.data.geometry import Frame
from eil.evaluation import example_images

InFrame = Literal["photo", "network"]


def coco(record: Record, data: Path, folder: Path, frame: InFrame = "photo") -> list[dict[str, Any]]:
    """A run's predicted boxes of the true class on the test images, as COCO's results format has them.

    A protocol that takes the best of all contours predicts several boxes an image, and each of them stands here; an
    image whose map has no contrast has none. A box is ``[x, y, width, height]``, beside it are ``image_width`` and
    ``image_height`` of the frame that it is in; the score is the share of softmax that the class got.

    Args:
        record: of a finished run.
        data: folder of the decoded images.
        folder: the run's, with its maps.
        frame: "photo" for pixels of the photo as stored, or "network" for those of the S x S frame that the network
            saw.

    Raises:
        InputError: maps or decoded images are not there any more.
    """
    split, side = cache.open_split(data, "test"), int(cache.describe(data)["crop"])
    predicted, protocol, logits = example_images.predictions(record, data, folder)
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    scores = exponents[np.arange(len(logits)), split.labels] / exponents.sum(axis=1)
    fitted = _fitted(data)
    found = []
    for name, label, size, boxes, score in zip(
        split.ids, split.labels.tolist(), split.sizes.tolist(), predicted, scores.tolist(), strict=True
    ):
        edges = boxes + np.array([0, 0, 1, 1]) * protocol.box_convention.inclusive  # where the last pixel ends
        width, height = size if frame == "photo" else (side, side)
        if frame == "photo":
            edges = geometry.eval_frame((width, height), fitted).to_photo(edges, (width, height))
        for x, y, w, h in _as_coco(edges, (width, height), name):
            found.append(
                {
                    "image_id": name,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "score": round(score, 6),
                    "image_width": width,
                    "image_height": height,
                }
            )
    return found


def _fitted(data: Path) -> Frame:
    """How the decoded images were fitted into their frame."""
    description = cache.describe(data)
    return Frame(*(description[key] for key in ("resize", "crop", "geometry", "crops")))


def _as_coco(edges: Boxes, size: tuple[int, int], name: str) -> list[list[float]]:
    """Edges x0, y0, x1, y1 to x, y, width, height within an image of ``size``, (K, 4)."""
    within, _ = clip(
        edges, (size[0] + 1, size[1] + 1), name
    )  # edges run from 0 to width, where pixels end at width - 1
    within[:, 2:] -= within[:, :2]
    rounded: list[list[float]] = within.round(3).tolist()
    return rounded
