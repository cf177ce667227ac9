"""Maps at the photos' size are resized as they are read."""

from pathlib import Path

from large_maps import scored


def test_large_maps_are_never_in_memory_together(tmp_path: Path) -> None:
    """24 maps have 1.15 GB as float64; a process without any takes about 200 MiB."""
    found = scored(tmp_path, 24)
    assert found["loc"] == 100
    assert found["peak"] < 600
