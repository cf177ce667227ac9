"""Boxes that leave the program: in the photo's pixels, of the size that the photo has."""

from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from eil import data
from eil.data import cache
from eil.data.geometry import Frame

PHOTOS = {"train": [(60, 48), (60, 48)], "test": [(90, 40), (37, 81)]}  # width and height


def own_photos(root: Path) -> Path:
    """Photos of two classes in the folder layout, none of them square, with boxes."""
    rng = np.random.default_rng(0)
    lines = ["path,x0,y0,x1,y1"]
    for split, sizes in PHOTOS.items():
        for name in ("cat", "dog"):
            for k, (width, height) in enumerate(sizes):
                path = root / split / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PILImage.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
                lines.append(f"{path.relative_to(root)},{width // 4},{height // 4},{width // 2},{height // 2}")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_cache_keeps_each_photos_size(tmp_path: Path) -> None:
    dataset = data.read("folder", own_photos(tmp_path / "photos"), {"held_out": 1})
    cache.build(dataset, tmp_path / "cache", Frame(40, 32, "shorter-side"))
    for name, split in dataset.splits.items():
        found = cache.open_split(tmp_path / "cache", name)
        assert found.sizes.tolist() == [list(PILImage.open(path).size) for path in split.sources]
        assert (found.sizes[:, 0] != found.sizes[:, 1]).all()
