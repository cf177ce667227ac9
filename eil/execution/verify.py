"""Whether a finished run's numbers come out again: from its maps, or from scratch."""

import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eil.core import records
from eil.core.files import InputError
from eil.core.records import Record
from eil.core.run import Run
from eil.evaluation.evaluate import evaluate
from eil.execution import run_lock

TOLERANCE = 1e-6  # points of a percentage: what another machine's rounding may change
_log = logging.getLogger(__name__)


def verify(run: Run, data: Path, folder: Path, protocols: Sequence[str], retrain: bool = False) -> list[str]:
    """Compute a run's metrics again, elsewhere, and compare.

    Args:
        run: a finished one.
        data: folder of the decoded images.
        folder: the run's folder.
        protocols: the study's.
        retrain: from scratch, instead of from the maps that the run has kept.

    Returns:
        A line for each number that differs.

    Raises:
        InputError: no record of this run's present settings, or maps that are not kept any more.
    """
    recorded = records.read(folder / "record.json")
    if recorded.key != run.key:
        raise InputError(f"{folder / 'record.json'}: was made with different settings")
    if recorded.protocol != protocols[0]:
        raise InputError(f"{folder / 'record.json'}: is by protocol {recorded.protocol}, the study's is {protocols[0]}")
    if retrain and run.recipe.devices > 1:
        raise InputError(f"{run.name}: trains on several devices; train it anew into other --results, and compare")
    with run_lock.exclusive(run, folder), tempfile.TemporaryDirectory(prefix=".verify", dir=folder) as made:
        again = Path(made) / run.name
        again.mkdir()
        if retrain:
            _from_scratch(run, data, again, recorded)
        else:
            if not (folder / "maps.npz").exists():
                raise InputError(f"{folder / 'maps.npz'}: is not kept any more; `eil localize` makes it again")
            for name in ("maps.npz", "train.json"):
                if (folder / name).exists():
                    _link(folder / name, again / name)
        try:
            found = evaluate(run, data, again, protocols)
        except InputError as error:  # the run's own file is at fault, of which this one is gone in a moment
            raise InputError(str(error).replace(str(again), str(folder))) from None
    return differences(recorded, found)


def differences(recorded: Record, found: Record) -> list[str]:
    """Numbers of two records that differ, a line each; weights' hashes too, where both were trained."""
    one, other = ({row.identity: row.value for row in record.scores} for record in (recorded, found))
    nothing = math.nan
    lines = [
        f"{', '.join(filter(None, row))}: recorded {one.get(row, nothing):.9g}, now {other.get(row, nothing):.9g}"
        for row in sorted(one.keys() | other.keys())
        if not math.isclose(one.get(row, nothing), other.get(row, nothing), rel_tol=0, abs_tol=TOLERANCE)
    ]
    hashes = [record.training.get("weights_sha256") for record in (recorded, found)]
    if hashes[0] != hashes[1]:
        lines.append(f"weights: recorded {hashes[0]}, now {hashes[1]}")
    return lines


def _link(path: Path, place: Path) -> None:
    """Make a file appear at another place too; a copy where the system allows no links, as Windows does by default."""
    try:
        place.symlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, place)


def _from_scratch(run: Run, data: Path, folder: Path, recorded: Record) -> None:
    import torch

    from eil.training import localize, train

    # The number of threads decides the order in which sums are taken.
    torch.set_num_threads(recorded.training.get("provenance", recorded.provenance).get("threads", 1))
    train.train(run.training_run, data, folder.with_name(run.training_run.name))
    localize.localize(run, data, folder)
