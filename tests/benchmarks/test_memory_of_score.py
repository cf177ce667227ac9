"""Memory of `eil score` with maps at the photos' size: 256 of 3000 x 2000 pixels, 12 GB as float64.

make bench
"""

import time
from pathlib import Path

from large_maps import scored
from pytest_benchmark.fixture import BenchmarkFixture
from saving import save


def test_256_large_maps_in_a_gigabyte(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    start = time.perf_counter()
    found = benchmark.pedantic(scored, (tmp_path, 256), rounds=1)
    took = time.perf_counter() - start
    text = f"{took:.0f} s, peak resident memory {found['peak']:.0f} MiB"
    save("score-memory", "eil score with maps at the photos' size", ("what", "measured"), [
        ("256 float64 maps of 3000 x 2000 pixels, wsoleval-v2", text)
    ])  # fmt: skip
    benchmark.extra_info["peak MiB"] = found["peak"]
    assert found["loc"] == 100
    assert found["peak"] < 1000
