"""Localizing and evaluating ahead, in the process of a training or of another extractor, for the steps that follow.

To load torch costs more CPU time than a small run's localizing and evaluating together, and the extractors of a network
share a pass. A workflow engine deletes a step's outputs before it starts the step, so that what was made ahead waits in
the folder ``ahead``, with a note of what it was made from. The step takes it if the note still holds, and computes
otherwise.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from eil.core import source_hash
from eil.core.files import InputError, read_json, remove, write_json
from eil.core.run import Run

Step = Literal["localize", "evaluate"]
FOLDER: Final = "ahead"
# Longest training, in seconds, after which its process goes on: a kill while it does so loses the training.
LONGEST_TRAINING: Final = 600.0
_CURVES: Final = "curves.npz"  # no output of the workflow; localizing on a GPU leaves it
_PROTOCOLS: Final = Path(__file__).parents[1] / "evaluation" / "protocols.yaml"
_OUTPUTS: Final[dict[Step, tuple[str, ...]]] = {
    "localize": ("maps.npz",),
    "evaluate": ("record.json", "examples.npz"),
}


def inputs_of(step: Step, run: Run, data: Path, folder: Path, protocols: Sequence[str]) -> dict[str, Any]:
    """All that the outputs of a step depend on, as JSON: settings, sources, protocols, data, files of earlier steps.

    Only files are read, and no module that is slow to import, such as pandas and numba: else little time was saved.

    Args:
        step: which one.
        run: the run.
        data: folder of the decoded images.
        folder: the run's folder.
        protocols: names of the study's protocols.
    """
    # train.json names the hash of the weights. Times tell nothing: a workflow engine touches what a step has written.
    files = [_PROTOCOLS, data / "dataset.json", data / "annotations" / "annotations.json"]
    files += [folder.with_name(run.training_run.name) / "train.json"]
    files += [folder / "maps.npz"] if step == "evaluate" else []
    return {
        "key": run.key,
        "sources": source_hash.of_step(step, run),
        "protocols": list(protocols),
        "files": {path.name: _hash(path) for path in files},
    }


def store(step: Step, folder: Path, note: dict[str, Any]) -> None:
    """Move the outputs of a step to the folder where they wait; ``note`` is from :func:`inputs_of`."""
    aside = folder / FOLDER
    aside.mkdir(exist_ok=True)
    for name in _OUTPUTS[step]:
        (folder / name).replace(aside / name)
    mark_ready(step, folder, note)


def mark_ready(step: Step, folder: Path, note: dict[str, Any]) -> None:
    """Let outputs that were written to the folder :data:`FOLDER` wait there."""
    write_json(folder / FOLDER / f"{step}.json", note)


def is_ready(step: Step, folder: Path, note: dict[str, Any]) -> bool:
    """Whether the outputs of a step wait and were made from what ``note`` says."""
    aside = folder / FOLDER
    try:
        waiting = read_json(aside / f"{step}.json") if aside.is_dir() else None
    except InputError:
        return False
    return waiting == note and all((aside / name).exists() for name in _OUTPUTS[step])


def restore(step: Step, folder: Path, note: dict[str, Any]) -> bool:
    """Move the outputs of a step into place if they wait and were made from what ``note`` says; whether they were."""
    if not is_ready(step, folder, note):
        return False
    aside = folder / FOLDER
    (aside / f"{step}.json").unlink()
    curves = [_CURVES] if step == "localize" and (aside / _CURVES).exists() else []
    for name in (*curves, *_OUTPUTS[step]):
        (aside / name).replace(folder / name)
    if not any(aside.iterdir()):
        aside.rmdir()
    return True


def discard(folder: Path) -> None:
    """Remove what waits in a run's folder."""
    remove(folder / FOLDER)


def _hash(path: Path) -> str | None:
    """SHA-256 of a file; None if it does not exist."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
