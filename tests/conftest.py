"""Fixtures of several test files: a tiny study, its decoded images, and a tiny data set of photos."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from miniatures import SMOKE
from PIL import Image as PILImage

from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.study.study import parse


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that run whole studies: one of these at the end would leave a worker alone for minutes."""
    items.sort(key=lambda item: not {"workflow", "execution"} & set(item.path.parts))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Make an allocation fail that exceeds the present memory use by more than 2 GB."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource  # Windows has none

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def content() -> dict[str, Any]:
    """A copy of SMOKE, which a test may change."""
    return yaml.safe_load(yaml.safe_dump(SMOKE))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the decoded birds of SMOKE; one for each worker."""
    folder = tmp_path_factory.mktemp("data") / "birds"
    settings = {key: value for key, value in SMOKE["dataset"].items() if key != "name"}
    cache.build(birds.read(**settings), folder, Frame(resize=36, crop=32))
    return folder


@pytest.fixture
def runs() -> dict[str, Run]:
    """The runs of SMOKE by name."""
    return {run.name: run for run in parse(SMOKE, "smoke").runs()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A miniature of Tiny-ImageNet: 3 classes, 54 training photos each (50 of them val), 2 test photos each."""
    root = tmp_path / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    wnids = ["n01443537", "n01629819", "n01641577"]
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}, other name\n" for wnid in wnids))
    annotations = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        lines = []
        for number in range(54):
            _photo(folder / f"{wnid}_{number}.JPEG", rng, grey=number == 3)
            lines.append(f"{wnid}_{number}.JPEG\t{number % 8}\t2\t{40 + number % 8}\t63\n")
        (folder.parent / f"{wnid}_boxes.txt").write_text("".join(lines))
        for number in (2 * label, 2 * label + 1):
            _photo(root / "val" / "images" / f"val_{number}.JPEG", rng)
            annotations.append(f"val_{number}.JPEG\t{wnid}\t5\t6\t50\t{51 + number}\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root


def _photo(path: Path, rng: np.random.Generator, grey: bool = False) -> None:
    pixels = rng.integers(0, 256, (64, 64) if grey else (64, 64, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(path, format="JPEG")
