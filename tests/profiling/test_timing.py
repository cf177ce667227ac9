"""The stopwatch with a false clock, and timings of tiny runs."""

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eil.commands import cli
from eil.core.run import Run
from eil.data import cache
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.profiling import map_timing, profile, timing
from eil.profiling.profile import Operation, Profile
from eil.profiling.stopwatch import Stopwatch
from eil.study.study import parse

EIL, CAM = "vgg_small-eil-gamma0.6-sigma1-seed0", "vgg_small-cam-seed0"


def _ticking(*ticks: float) -> Iterator[float]:
    yield from ticks


def test_laps_are_what_the_clock_says() -> None:
    clock = _ticking(10, 11, 13, 20, 20.5, 24.5)
    watch = Stopwatch(now=lambda: next(clock))
    for _ in range(2):
        watch.start()
        watch.lap("data")
        watch.lap("forward")
    assert watch.seconds() == {"total": [3, 4.5], "data": [1, 0.5], "forward": [2, 4]}


def test_events_are_read_once_the_device_has_reached_them() -> None:
    reached: list[str] = []
    marks = _ticking(1, 4, 9)

    def between(first: float, last: float) -> float:
        assert reached == ["settled"]
        return (last - first) / 1000

    watch = Stopwatch(lambda: next(marks), between, lambda: reached.append("settled"))
    watch.start()
    watch.lap("a")
    watch.lap("b")
    assert not reached
    assert watch.seconds() == {"total": [0.008], "a": [0.003], "b": [0.005]}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_quartiles_are_numpys(values: list[float]) -> None:
    np.testing.assert_allclose(timing.quartiles(values), np.percentile(values, [25, 50, 75]), rtol=1e-9, atol=1e-9)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second at each look, and a device of known speed."""
    clock = itertools.count()
    monkeypatch.setattr(timing, "stopwatch", lambda device: Stopwatch(now=lambda: next(clock)))
    monkeypatch.setattr(timing, "ceiling", lambda device, precision: 1e9)


@pytest.mark.usefixtures("counted")
def test_the_parts_make_up_the_whole(runs: dict[str, Run], images: Path) -> None:
    found = timing.measure(runs[EIL], runs[CAM], images, iterations=8, warmup=2)
    assert found.iterations == 8
    assert {name: found.seconds[name] for name in timing.PARTS} == dict.fromkeys(timing.PARTS, (1, 1, 1))
    assert found.seconds["total"] == (len(timing.PARTS),) * 3
    assert found.inference == found.time_ratio == (1, 1, 1)
    assert found.peak_bytes is None
    assert 1.2 < found.operation_ratio < 2
    assert found.mfu == pytest.approx(found.flops / len(timing.PARTS) / 1e9)
    assert found.images_per_second == 4 / len(timing.PARTS)


@pytest.mark.usefixtures("counted")
def test_a_run_costs_by_prediction_what_it_costs(runs: dict[str, Run], images: Path) -> None:
    assert timing.measure(runs[CAM], runs[CAM], images, iterations=1, warmup=0).operation_ratio == 1


def test_by_the_real_clock_there_is_a_ceiling_and_work_below_it(runs: dict[str, Run], images: Path) -> None:
    found = timing.measure(runs[CAM], runs[CAM], images, iterations=3, warmup=1)
    assert 0 < found.mfu < 1
    assert all(0 < low <= middle <= high for low, middle, high in [*found.seconds.values(), found.time_ratio])


def test_out_of_memory_halves_the_batch_and_says_so(
    runs: dict[str, Run], images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []
    real = timing._measure

    def scarce(run: Run, base: Run, *arguments: Any) -> timing.Timing:
        tried.append(run.recipe.batch_size)
        assert base.recipe.batch_size == run.recipe.batch_size
        if run.recipe.batch_size > 1:
            raise torch.OutOfMemoryError("no memory")
        return real(run, base, *arguments)

    monkeypatch.setattr(timing, "_measure", scarce)
    with caplog.at_level("INFO"):
        found = timing.measure(runs[CAM], runs[CAM], images, 1, 0)
    assert tried == [4, 2, 1]
    assert found.batch_size == 1
    assert "out of memory with a batch of 4: 2" in caplog.text
    monkeypatch.setattr(timing, "_measure", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        timing.measure(runs[CAM], runs[CAM], images, 1, 0)


def test_a_study_is_timed_into_tables_and_figures(content: dict[str, Any], tmp_path: Path) -> None:
    content["methods"] = {"cam": {}, "eil": {"gamma": [0.6, 0.8]}, "spg": {}}
    content["maps"] = ["nwc", "layercam"]
    study = parse(content, "s")
    run = study.runs()[0]
    cache.build(birds.read(**study.dataset.settings), tmp_path / "data" / run.cache, Frame(36, 32))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    command = ["time", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path / "r"), "--data", str(tmp_path / "data")]
    assert (
        cli.main([*command, "--batches", "2", "4", "--precisions", "fp32", "--iterations", "2", "--warmup", "1"]) == 0
    )
    of_maps, path = sorted((tmp_path / "r" / "timing").glob("*.csv"))
    frame = pd.read_csv(path)
    assert frame["method"].tolist() == ["cam", "cam", "eil", "eil", "spg", "spg"]  # the first settings of each
    assert frame["batch_size"].tolist() == [2, 4] * 3
    assert (frame["total q1 (ms)"] <= frame["total q3 (ms)"]).all()
    assert frame["operation ratio"][0] == 1
    assert "fp32-torch2" in path.name
    assert "| vgg_small | eil | 4 | fp32 |" in path.with_suffix(".md").read_text()
    assert {figure.suffix for figure in (tmp_path / "r" / "timing").glob(f"{path.stem}-time_ratio.*")} == {
        ".png",
        ".svg",
    }
    kept = json.loads((tmp_path / "r" / "timing" / "timing.json").read_text())
    assert len(kept["rows"]) == 6
    assert [row["extractor"] for row in kept["maps"]] == ["nwc", "layercam", map_timing.ALL]
    assert (pd.read_csv(of_maps)["ratio median"] > 0).all()
    assert "Cost of other maps of the same network" in (tmp_path / "r" / "timing" / "timing.html").read_text()


def test_the_ceiling_is_a_rate_that_the_machine_has() -> None:
    assert 1e9 < timing.ceiling(torch.device("cpu"), "fp32") < 1e14


def test_a_profile_names_what_bounds_the_run(content: dict[str, Any], tmp_path: Path) -> None:
    study = parse(content, "s")
    run = study.runs()[0]
    cache.build(birds.read(**study.dataset.settings), tmp_path / "data" / run.cache, Frame(36, 32))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    where = ["--results", str(tmp_path / "r"), "--data", str(tmp_path / "data"), "--iterations", "3"]
    assert cli.main(["profile", str(tmp_path / "tiny.yaml"), "--run", run.name, *where]) == 0
    folder = tmp_path / "r" / "profile" / run.name
    text = (folder / "profile.md").read_text()
    assert "conv" in text
    assert "bottleneck" in text
    with gzip.open(folder / "trace.json.gz") as file:
        assert len(json.load(file)["traceEvents"]) > 100
    assert (folder / "memory.png").stat().st_size > 1000
    found = json.loads((folder / "profile.json").read_text())
    assert 0 < found["busy"] <= 1
    assert 0 < found["waiting"] < 1


@pytest.mark.parametrize(
    ("waiting", "busy", "on_gpu", "name", "verdict"),
    [
        (0.3, 1.0, False, "aten::conv", "Loading data is the bottleneck: 30 % of an iteration waits"),
        (0.0, 0.4, True, "sm90_xmma_conv", "Launching work is the bottleneck: the device is idle for 60 % of the time"),
        (0.0, 0.4, False, "aten::conv", "Arithmetic is the bottleneck: convolutions and matrix products are 80 %"),
        (0.0, 0.9, True, "elementwise_kernel", "Memory bandwidth is the bottleneck: 100 % of the work"),
    ],
)
def test_verdicts(waiting: float, busy: float, on_gpu: bool, name: str, verdict: str) -> None:
    operations = [Operation(name, 1, 8.0), Operation("relu", 1, 2.0)]
    assert Profile(1.0, busy, waiting, operations, [], on_gpu).verdict.startswith(verdict)


def test_memory_over_time_ends_where_allocations_and_releases_leave_it(runs: dict[str, Run], images: Path) -> None:
    found = profile.profile(runs[CAM], images, images.parent / "trace.json.gz", iterations=2, warmup=1)
    seconds, held = zip(*found.memory, strict=True)
    assert list(seconds) == sorted(seconds)
    assert max(held) > 4 * 4 * 3 * 32 * 32  # at least a batch of four images, in fp32
    assert held[-1] < 0.5 * max(held)
