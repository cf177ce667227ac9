"""Photos, masks and annotations that anyone may have made: read right, or refused with the file's name."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import JSON, damaged, fuzz, outcome, spoilt, thoroughly
from hypothesis import strategies as st
from own_photos import coco_of, voc_of
from PIL import Image as PILImage

from eil import data
from eil.data import Dataset, masks, photos

pytestmark = pytest.mark.usefixtures("bounded_memory")
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def require_sound(dataset: Dataset | None, root: Path) -> None:
    """Boxes are finite, and masks are drawn or refused by the file's name."""
    for split in dataset.splits.values() if dataset else ():
        assert all(np.isfinite(own).all() and (own[:, :2] <= own[:, 2:]).all() for own in split.boxes)
        for i in range(len(split.ids) if split.masks is not None else 0):
            found = outcome(lambda i=i, split=split: split.mask(i), root.name)  # type: ignore[misc]
            assert found is None or found.dtype == np.uint8


@thoroughly(60, 3000)
def test_spoilt_coco(inputs: int, tmp_path: Path) -> None:
    content = coco_of(tmp_path)

    def holds(spoiled: Any) -> None:
        (tmp_path / "annotations.json").write_text(json.dumps(spoiled))
        require_sound(outcome(lambda: data.read("folder", tmp_path, {}), tmp_path.name), tmp_path)

    fuzz(inputs, holds, spoilt(content, JSON))


@thoroughly(60, 3000)
def test_damaged_voc(inputs: int, tmp_path: Path) -> None:
    path = voc_of(tmp_path)
    whole = path.read_bytes()

    def holds(content: bytes) -> None:
        path.write_bytes(content)
        require_sound(outcome(lambda: data.read("folder", tmp_path, {}), tmp_path.name), tmp_path)

    fuzz(inputs, holds, damaged(whole))


def encoded(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    image = PILImage.fromarray(PIXELS).convert("L" if mode in ("I;16", "F") else mode)
    if mode in ("I;16", "F"):
        image = PILImage.fromarray(np.asarray(image).astype(np.uint16 if mode == "I;16" else np.float32))
    exif = image.getexif()
    exif[photos.TAGGED_ORIENTATION] = 6
    image.save(buffer, format=kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"), [("TIFF", "RGB"), ("TIFF", "I;16"), ("TIFF", "F"), ("PNG", "P"), ("WEBP", "RGB")]
)
@thoroughly(60, 3000)
def test_damaged_photos_and_masks(inputs: int, kind: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"

    def holds(content: bytes) -> None:
        path.write_bytes(content)
        for exif in ("ignore", "apply"):
            found = outcome(lambda exif=exif: photos.load(path, exif), path.name)  # type: ignore[misc]
            assert found is None or (found.dtype == np.uint8 and found.ndim == 3)
        outcome(lambda: masks.load_mask([path, None]), path.name)
        photos.is_turned(path)

    fuzz(inputs, holds, st.one_of(damaged(encoded(kind, mode)), st.just(encoded(kind, mode))))
