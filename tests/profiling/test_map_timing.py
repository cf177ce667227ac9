"""What extractors cost beside a method's own maps, by a false clock and by the real one."""

from pathlib import Path
from typing import Any

import pytest

from eil.core.run import Run
from eil.profiling import map_timing
from eil.profiling.map_timing import ALL
from eil.profiling.stopwatch import Stopwatch
from eil.report import timing as report
from eil.study.study import parse


@pytest.fixture
def borrowing(content: dict[str, Any]) -> list[Run]:
    maps = ["pc1", "ddt", {"name": "bagcams", "at": "pool2"}]
    return parse(content | {"maps": maps, "seeds": 1}, "x").runs()


def test_ratios_are_of_the_same_batches(
    borrowing: list[Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / borrowing[0].cache).symlink_to(images)
    # Own maps, three extractors and all in one pass, in this order; every other batch runs on a slow machine.
    ticks = [
        start + taken * slow
        for slow in (1, 7, 1)
        for taken in (2, 4, 6, 8, 10)
        for start, taken in [(0, 0), (0, taken)]
    ]
    clock = iter(ticks)
    monkeypatch.setattr(map_timing, "stopwatch", lambda device: Stopwatch(now=lambda: next(clock)))
    found = map_timing.timings(borrowing, tmp_path, batches=2, warmup=1)
    assert [each.extractor for each in found] == ["pc1", "ddt", "bagcams (at=pool2)", ALL]
    assert [each.ratio for each in found] == [(r, r, r) for r in (2, 3, 4, 5)]
    assert {(each.backbone, each.method, each.batch_size, each.batches) for each in found} == {
        ("vgg_small", "cam", 4, 2)
    }
    slow, quick = 7 * 4 / 4, 4 / 4  # seconds an image of pc1 on either machine
    assert found[0].seconds[1] == (slow + quick) / 2
    assert report.map_row(found[0])["seconds median (ms/image)"] == 1000 * found[0].seconds[1]


def test_a_study_without_maps_has_nothing_to_time(runs: dict[str, Run], tmp_path: Path) -> None:
    assert map_timing.timings(list(runs.values()), tmp_path) == []
