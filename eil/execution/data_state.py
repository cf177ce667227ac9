"""Check whether results were made from the present data.

A record has fingerprints of its photos and annotations. They are compared with those of the prepared data, and the
prepared data with the data set's files, by stat calls (:mod:`eil.data.fingerprint`).
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from eil import data
from eil.core import registry
from eil.core.files import InputError
from eil.core.records import Record
from eil.core.run import Run
from eil.data.geometry import Frame
from eil.execution import CHECKED_BY_WORKFLOW

if TYPE_CHECKING:
    from eil.data.cache import Fingerprints

_log = logging.getLogger(__name__)
CHANGED = "changed since"  # stands for a fingerprint that no record has


def frame_of(run: Run) -> Frame:
    """How the photos of a run are fitted into the network's square."""
    return Frame(run.recipe.resize, run.recipe.crop, run.recipe.geometry, run.recipe.crops)


def read_dataset(run: Run) -> data.Dataset:
    """Read the present data set of a run."""
    return data.read(run.dataset.name, run.dataset.folder(), run.dataset.settings)


def current_fingerprints(runs: Iterable[Run], folder: Path) -> dict[str, "Fingerprints"]:
    """Fingerprints of the present data of each run, by the name of the cache that the run reads.

    Photos or annotations that changed since they were prepared have :data:`CHANGED` instead. Data that were never
    prepared are left out. A data set that is missing is assumed to be unchanged, with a warning.

    Args:
        runs: runs of one study.
        folder: contains the caches.

    Raises:
        InputError: the data set exists and cannot be read.
    """
    from eil.data import cache

    caches = {run.cache: run for run in runs if (folder / run.cache / "dataset.json").exists()}
    found: dict[str, Fingerprints] = {}
    dataset: data.Dataset | None = None
    for name, run in caches.items():
        changed = ""
        if not registry.is_embedded(run.dataset.name) and not os.environ.get(CHECKED_BY_WORKFLOW):
            dataset = dataset or _at_hand(run)
            changed = cache.outdated(dataset, folder / name, frame_of(run)) if dataset else ""
        found[name] = _with_changes(folder / name, changed)
    return found


def content_hashes(runs: Iterable[Run], folder: Path) -> dict[str, dict[str, str]]:
    """Hashes of the photos and annotations from which each cache would be made now, by the cache's name.

    They depend on the content alone, whether it is prepared or not. Generated data have no hashes, nor have data that
    are missing and were never prepared.

    Args:
        runs: runs of one study.
        folder: contains the caches.

    Raises:
        InputError: the data set exists and cannot be read.
    """
    caches = {run.cache: run for run in runs if not registry.is_embedded(run.dataset.name)}
    if not caches:
        return {}  # a start of the workflow loads no pandas for drawn data: 0.6 s
    from eil.data import annotation_cache, photo_cache

    found: dict[str, dict[str, str]] = {}
    dataset: data.Dataset | None = None
    for name, run in caches.items():
        cache_folder = folder / name
        found[name] = _recorded(cache_folder)
        dataset = dataset or _at_hand(run, prepared=bool(found[name]))
        if dataset:
            photos = photo_cache.source_state(dataset, cache_folder, frame_of(run))
            found[name] = {"photos": photos, "annotations": annotation_cache.source_state(dataset, cache_folder)}
    return found


def made_from_changed_data(records: Iterable[Record], now: Mapping[str, "Fingerprints"]) -> list[Record]:
    """Records that were made from data that have changed since."""
    return [record for record in records if record.status == "done" and not is_current(record, now)]


def is_current(record: Record, now: Mapping[str, "Fingerprints"]) -> bool:
    """Whether a record was made from the present data; True if these are not prepared."""
    present = now.get(record.run.cache)
    return present is None or all(
        record.provenance.get(f"{what}_sha256") == value for what, value in present._asdict().items()
    )


def require_prepared(run: Run, folder: Path) -> None:
    """Refuse to compute with a cache that is outdated.

    Raises:
        InputError: photos or annotations changed since they were prepared, or the annotations were not prepared.
    """
    from eil.data import cache

    if (folder / run.cache / "dataset.json").exists():
        cache.fingerprints(folder / run.cache)
    present = current_fingerprints([run], folder).get(run.cache)
    if present is not None and CHANGED in present:
        what = "photos" if present.photos == CHANGED else "annotations"
        raise InputError(f"{run.dataset.name}: {what} changed since `eil prepare`; run it again")


def _at_hand(run: Run, prepared: bool = True) -> data.Dataset | None:
    """The data set of a run; None, with a warning, if its folder is missing."""
    folder = run.dataset.folder()
    if folder is None or not folder.exists():
        state = "assumed to be as it was prepared" if prepared else "and not prepared: give dataset.root, or EIL_DATA"
        _log.warning("%s: missing, %s", folder or run.dataset.name, state)
        return None
    return read_dataset(run)


def _recorded(folder: Path) -> dict[str, str]:
    """Hashes of the content from which a cache was made."""
    from eil.data import annotation_cache, cache

    try:
        made = cache.describe(folder) | annotation_cache.describe(folder)
    except InputError:
        return {}
    return {what: made[f"{what}_look"] for what in ("photos", "annotations")}


def _with_changes(folder: Path, changed: str) -> "Fingerprints":
    from eil.data import cache
    from eil.data.cache import Fingerprints

    try:
        recorded = cache.fingerprints(folder)
    except InputError:  # annotations are missing or belong to other photos
        return Fingerprints(CHANGED, CHANGED)
    if changed == "photos":
        return Fingerprints(CHANGED, CHANGED)
    return recorded._replace(annotations=CHANGED) if changed else recorded
