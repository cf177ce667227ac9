"""What lower precision and compiling change: scores and maps of EIL on the birds, against fp32 and eager.

`make bench` leaves results/parity-{device}-{date}.md.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.core.files import read_arrays, read_json
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.evaluation import evaluate
from eil.study.study import parse
from eil.training import localize, train

VARIANTS = {
    "fp32, eager": {},
    "fp32, eager, again": {},
    "bf16, eager": {"precision": "bf16"},
    "fp32, compiled": {"compile": True},
}
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    dataset = birds.read(classes=5, train_per_class=100, val_per_class=20, test_per_class=40)
    cache.build(dataset, folder / "data", Frame(64, 56))
    return folder


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    rows: Rows = []
    yield rows
    save(
        "parity",
        "Parity of precision and compiling",
        ("EIL on vgg_small", "GT-known Loc ↑", "Top-1 Cls ↑", "mean difference of maps", "s", "torch.compile"),
        rows,
        "six epochs on 500 birds from the same seed, 200 test images; maps from 0 to 1, against those of the first "
        "line; the second line is the first run again",
    )


def run_of(recipe: dict[str, object]) -> Run:
    base = {"epochs": 6, "batch_size": 32, "learning_rate": 0.1, "head_multiplier": 1, "schedule": "cosine"}
    content = {
        "name": "parity",
        "dataset": {"name": "birds", "classes": 5},
        "backbones": ["vgg_small"],
        "methods": {"eil": {"gamma": 0.8, "sigma": 0.5}},
        "recipe": base | {"warmup": 1, "resize": 64, "crop": 56} | recipe,
    }
    return parse(content, "parity").runs()[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_parity(
    benchmark: BenchmarkFixture, folder: Path, table: Rows, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_num_threads(2)
    run, own = run_of(VARIANTS[name]), folder / name
    benchmark.pedantic(train.train, (run, folder / "data", own), rounds=1)
    localize.localize(run, folder / "data", own)
    record = evaluate.evaluate(run, folder / "data", own)
    maps, first = (unit(read_arrays(folder / each / "maps.npz")["test_maps"]) for each in (name, next(iter(VARIANTS))))
    difference = float(np.abs(maps - first).mean())
    compiled = "failed" if "torch.compile failed" in caplog.text else "yes" if run.recipe.compile else "–"
    scores = (f"{record.value(ScoreKey(key)):.1f}" for key in ("gt_known_loc", "top1_cls"))
    seconds = read_json(own / "train.json")["seconds"]
    table.append((name, *scores, f"{difference:.4f}", f"{seconds:.0f}", compiled))
    if name.endswith("again"):
        assert difference == 0  # on one machine, the same to the bit


def unit(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (maps - low) / np.maximum(high - low, 1e-12)
