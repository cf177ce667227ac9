"""What it costs to see that a data set has not changed: stat calls and one read of the lists, no photo.

``pytest tests/benchmarks/test_look.py --benchmark-enable -p no:xdist`` makes empty files in the layouts of CUB (11,788
photos) and ILSVRC (1,281,167 training and 50,000 test photos, 60,000 of them annotated), and looks at them.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil import data
from eil.data import Dataset, annotation_cache, fingerprint, photo_cache
from eil.data.geometry import Frame

XML = (
    "<annotation><size><width>60</width><height>48</height></size><object><name>{}</name><bndbox><xmin>2</xmin>"
    "<ymin>4</ymin><xmax>32</xmax><ymax>40</ymax></bndbox></object></annotation>"
)


def _cub(root: Path) -> tuple[str, Path]:
    lists: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for k in range(11_788):
        name = f"{k % 200 + 1:03d}.Bird/{k}.jpg"
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
        for each, text in zip(lists, (name, str(k % 200 + 1), str(k // 200 % 2), "1.0 2.0 30.0 40.0"), strict=True):
            lists[each].append(f"{k + 1} {text}")
    for name, lines in (lists | {"classes": [f"{k + 1} {k + 1:03d}.Bird" for k in range(200)]}).items():
        (root / f"{name}.txt").write_text("\n".join(lines))
    return "cub", root


def _ilsvrc(root: Path) -> tuple[str, Path]:
    photos, boxes = root / "Data" / "CLS-LOC", root / "Annotations" / "CLS-LOC"
    (photos / "val").mkdir(parents=True)
    (boxes / "val").mkdir(parents=True)
    for label in range(1000):
        wnid = f"n{label:08d}"
        (photos / "train" / wnid).mkdir(parents=True)
        (boxes / "train" / wnid).mkdir(parents=True)
        for k in range(1281 + (label < 167)):
            (photos / "train" / wnid / f"{wnid}_{k}.JPEG").touch()
            if k < 10:
                (boxes / "train" / wnid / f"{wnid}_{k}.xml").write_text(XML.format(wnid))
        for k in range(50):
            name = f"ILSVRC2012_val_{label * 50 + k:08d}"
            (photos / "val" / f"{name}.JPEG").touch()
            (boxes / "val" / f"{name}.xml").write_text(XML.format(wnid))
    return "ilsvrc", root


def _prepared(dataset: Dataset, folder: Path, frame: Frame) -> None:
    """A cache's lists of photos, without decoding a photo."""
    stats = {}
    for name, split in dataset.splits.items():
        (folder / name).mkdir(parents=True)
        stats[name] = fingerprint.stats(split.sources)
        columns = {"id": list(split.ids), "sha256": "0", "bytes": stats[name][:, 0], "changed": stats[name][:, 1]}
        pd.DataFrame(columns).to_parquet(folder / name / "index.parquet")
    look = photo_cache._hash_look(photo_cache._listing(dataset, frame), list(stats.values()))
    (folder / "dataset.json").write_text(f'{{"format": {photo_cache.FORMAT}, "photos_look": "{look}"}}')


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str, str]]]:
    """Rows, written as a table in the end."""
    rows: list[tuple[str, str, str]] = []
    yield rows
    save("look", "Whether a data set has changed", ("made files", "seconds", "goal"), rows)


@pytest.mark.parametrize(("make", "photos", "goal"), [(_cub, 11_788, "1 s"), (_ilsvrc, 1_331_167, "20 s")])
def test_looking_at_unchanged_data(
    make: Callable[[Path], tuple[str, Path]],
    photos: int,
    goal: str,
    tmp_path: Path,
    benchmark: BenchmarkFixture,
    table: list[tuple[str, str, str]],
) -> None:
    name, root = make(tmp_path / "data")
    frame = Frame(256, 224)
    _prepared(data.read(name, root, {}), tmp_path / "cache", frame)

    def look() -> None:
        dataset = data.read(name, root, {})
        assert sum(len(split.ids) for split in dataset.splits.values()) == photos
        assert photo_cache.is_current(dataset, tmp_path / "cache", frame)
        annotation_cache.source_state(dataset, tmp_path / "cache")

    started = time.perf_counter()
    benchmark.pedantic(look, rounds=1, iterations=1)
    table.append((f"{name}, {photos:,} photos", f"{time.perf_counter() - started:.2f}", goal))
