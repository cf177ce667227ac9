"""Evaluating a run by several protocols: curves shared between those with the same boxes, and each computed.

`make bench` leaves results/shared-curves-{device}-{date}.md. Seconds are CPU time, which other processes change little.
Weights are random.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save

from eil.core.files import write_json
from eil.core.records import Record
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.evaluation import evaluate, iou_curves
from eil.study.study import parse
from eil.training import localize, train, train_step

STUDIES = {"cub_20": ("val-threshold", "val-threshold-aligned", "wsoleval-v1", "wsoleval-v2", "eil-code"),
           "demo": ("val-threshold", "wsoleval-v2", "eil-code")}  # fmt: skip
SIDE, IMAGES, ROUNDS = 160, 200, 3
BIRDS = {"classes": 10, "train_per_class": 1, "val_per_class": 5, "test_per_class": 15}
Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Rows, written as a table in the end."""
    rows: Rows = []
    yield rows
    header = ("protocols of", "how many", "CPU s, each computed", "shared", "ratio")
    title = f"Evaluating {IMAGES} maps of {SIDE} pixels by several protocols"
    save("shared-curves", title, header, rows, f"median of {ROUNDS} interleaved evaluations")


@pytest.mark.parametrize("study", STUDIES)
def test_evaluating_with_shared_curves(
    benchmark: BenchmarkFixture, table: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: str
) -> None:
    content = {"name": "shared", "dataset": {"name": "birds"} | BIRDS, "backbones": ["vgg_small"], "methods": ["cam"],
               "seeds": 1, "recipe": {"resize": SIDE, "crop": SIDE}}  # fmt: skip
    run, data = parse(content, "shared").runs()[0], tmp_path / "data"
    folder, names = tmp_path / run.name, STUDIES[study]
    cache.build(birds.read(**BIRDS), data, Frame(resize=SIDE, crop=SIDE))
    train.save_weights(
        folder / "weights.safetensors", train_step.build(run, data), run, cache.fingerprints(data).photos
    )
    write_json(folder / "train.json", {})
    localize.localize(run, data, folder)

    def evaluated() -> tuple[Record, float]:
        (folder / iou_curves.FILE).unlink(missing_ok=True)
        start = time.process_time()
        return evaluate.evaluate(run, data, folder, names), time.process_time() - start

    benchmark.pedantic(evaluated, rounds=1)  # it compiles for the others
    shared, computed = [], []
    for _ in range(ROUNDS):
        shared.append(evaluated())
        with monkeypatch.context() as patched:
            patched.setattr(iou_curves, "reused_curves", lambda *_: None)
            computed.append(evaluated())
    assert {tuple(record.scores) for record, _ in shared} == {tuple(record.scores) for record, _ in computed}
    medians = [sorted(seconds for _, seconds in each)[ROUNDS // 2] for each in (computed, shared)]
    ratio = medians[1] / medians[0]
    table.append((study, str(len(names)), *(f"{each:.2f}" for each in medians), f"{ratio:.2f}"))
    benchmark.extra_info |= {"shared / computed": ratio}
    assert ratio < 0.95
