"""Predicted boxes in COCO's results format, for tools that know it."""

from pathlib import Path
from typing import Any

import numpy as np

from eil.data import cache
from eil.evaluation import looks
from eil.files import read_arrays
from eil.records import Record


def coco(record: Record, data: Path, folder: Path) -> list[dict[str, Any]]:
    """A run's predicted boxes of the true class, one a test image, as COCO's results format has them.

    Boxes are ``[x, y, width, height]`` in pixels of the S x S frame that the network saw (``image_size``); the score
    is the share of softmax that the class got.

    Args:
        record: of a finished run.
        data: folder of the decoded images.
        folder: the run's, with its maps.

    Raises:
        InputError: maps or decoded images are not there any more.
    """
    split = cache.open_split(data, "test")
    seen = looks.of_run(record, data, folder, range(len(split.ids)))
    logits = read_arrays(folder / "maps.npz")["test_logits"].astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    found = []
    for i, (name, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True)):
        x0, y0, x1, y1 = seen["predicted"][i].tolist()
        box = [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
        side = list(seen["maps"].shape[1:])
        score = round(float(shares[i, label]), 6)
        found.append({"image_id": name, "category_id": label, "bbox": box, "score": score, "image_size": side})
    return found
