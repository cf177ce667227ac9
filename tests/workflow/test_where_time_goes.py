"""The table of where a study's time goes, by hand."""

from pathlib import Path

import numpy as np
import pytest
import where_time_goes


def a_run(folder: Path, train: float, epochs: list[tuple[float, float]], images: tuple[int, int] = (4, 8)) -> None:
    """A run's measured jobs: training, 10 s of localizing, 5 s of evaluating.

    Args:
        folder: of the run.
        train: seconds of the whole training.
        epochs: seconds of each epoch's steps, and of its pass over val.
        images: of val and of test.
    """
    folder.mkdir(parents=True)
    for step, seconds in {"train": train, "localize": 10.0, "evaluate": 5.0}.items():
        (folder / f"{step}.benchmark.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    lines = ["epoch,seconds,val_seconds", *(f"{k},{a},{b}" for k, (a, b) in enumerate(epochs, 1))]
    (folder / "history.csv").write_text("\n".join(lines))
    np.savez(
        folder / "maps.npz", **{f"{s}_logits": np.zeros((n, 2)) for s, n in zip(("val", "test"), images, strict=True)}
    )


def test_the_shares_of_training_and_of_forward_passes(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "cam", 85.0, [(30, 1), (40, 1), (10, 1)])
    rows = [line.strip("| ").split(" | ") for line in where_time_goes.table(tmp_path).splitlines()]
    found = {row[0]: row[-2:] for row in rows}
    assert found["train"] == ["85", "85.0 %"]
    assert found["all"] == ["100", "100.0 %"]
    assert found["of it training steps"] == ["80", "80.0 %"]
    assert found["of it forward passes over val after each epoch"] == ["3", "3.0 %"]
    assert found["of it forward passes of localizing, at their rate"] == ["3", "3.0 %"]  # 4 + 8 images at 1 s for 4
    assert found["of it all three"] == ["86", "86.0 %"]


def test_a_resumed_training_is_left_out_since_its_last_start_alone_is_measured(tmp_path: Path) -> None:
    a_run(tmp_path / "runs" / "cam", 85.0, [(80, 1)])
    alone = where_time_goes.table(tmp_path)
    a_run(tmp_path / "runs" / "eil", 20.0, [(30, 1), (15, 1)])
    assert where_time_goes.table(tmp_path) == alone


def test_a_folder_without_measured_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must be a study that Snakemake has run"):
        where_time_goes.table(tmp_path)
