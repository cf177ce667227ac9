"""Find and remove files of a study that can be made again; records are never removed."""

from collections.abc import Iterable
from pathlib import Path

from eil.core import records
from eil.core.files import InputError, remove
from eil.core.run import Run
from eil.execution import ahead
from eil.execution.run_lock import is_busy
from eil.training import checkpoint

MAPS = ("maps.npz", "curves.npz", ahead.FOLDER)
WEIGHTS = ("weights.safetensors",)
LEFT = (".*.part*", ".verify*")  # left by killed processes


def removable(runs: Iterable[Run], folder: Path, maps: bool = False, weights: bool = False) -> list[Path]:
    """Files that can be made again: leftovers of killed processes, checkpoints of finished runs, optionally more.

    Args:
        runs: of the study.
        folder: contains the runs' folders; folders of runs that are no longer in the study are included.
        maps: include maps of finished runs; `eil localize` makes them again.
        weights: include weights of finished runs; only training makes them again.
    """
    known = {run.name: run for run in runs}
    networks_in_use = {run.training_run.name for run in known.values() if not _done(folder / run.name, run)}
    found: list[Path] = []
    for run_folder in sorted(path for path in folder.glob("*") if path.is_dir() and not is_busy(path)):
        found += [path for pattern in LEFT for path in run_folder.glob(pattern)]
        if not _done(run_folder, known.get(run_folder.name)):
            continue
        names = (checkpoint.LAST, checkpoint.PREVIOUS, *(MAPS if maps else ()))
        names += (
            WEIGHTS if weights and run_folder.name not in networks_in_use else ()
        )  # a control or an extractor may still need them
        found += [run_folder / name for name in names if (run_folder / name).exists()]
    return found


def clean(paths: Iterable[Path]) -> int:
    """Remove files and folders; return how many bytes that frees."""
    freed = 0
    for path in paths:
        inside = [path, *path.rglob("*")] if path.is_dir() else [path]
        freed += sum(each.lstat().st_size for each in inside if not each.is_dir())
        remove(path)
    return freed


def _done(folder: Path, run: Run | None) -> bool:
    """Whether the folder has a record; with the run's present settings, if the run is still in the study."""
    path = folder / "record.json"
    try:
        return path.exists() and (run is None or records.read(path).key == run.key)
    except InputError:
        return False
