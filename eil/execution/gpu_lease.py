"""Choose GPUs for a job by file locks; the lock of a killed process is released by the system.

A workflow engine counts GPUs but does not choose them. Jobs that share a GPU hold one of its places each; a job that
must be alone (timing, or any job if ``runs_per_gpu`` is 1) holds the whole GPU. Jobs are served in the order in
which they came, so a job that needs many GPUs does not starve behind jobs that need one.
"""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from eil.core import nvml, ranks
from eil.core.files import InputError, locked
from eil.core.user_cache import user_id

_log = logging.getLogger(__name__)
_POLL = 0.1  # seconds


def runs_per_gpu() -> int:
    """How many jobs may share a GPU: EIL_RUNS_PER_GPU, else 1.

    Raises:
        InputError: the variable is not a positive integer.
    """
    text = os.environ.get("EIL_RUNS_PER_GPU", "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"EIL_RUNS_PER_GPU (runs_per_gpu) = {text}: must be a positive integer")
    return int(text)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each by a name that is unique on this machine; empty without CUDA.

    GPUs that a scheduler allotted (CUDA_VISIBLE_DEVICES, control groups) are respected. The name is the UUID, which
    is the same in every allotment; without nvidia-ml-py (the extra ``nvidia``) it is the number.
    """
    import torch

    # NVML counts GPUs in the order of the bus; CUDA sorts them by speed unless this is set before CUDA starts.
    in_order = os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID") == "PCI_BUS_ID"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [str(number) for number in range(torch.cuda.device_count())]
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()][: torch.cuda.device_count()]
    uuids = nvml.uuids() if in_order else {}
    return [uuids.get(name, name) for name in names]


@contextlib.contextmanager
def lease(count: int = 1, exclusive: bool = False) -> Iterator[None]:
    """Use leased GPUs in the block, after waiting for them; use the CPU if the machine has no GPU.

    Args:
        count: how many GPUs.
        exclusive: do not share them, whatever EIL_RUNS_PER_GPU says.
    """
    places = 1 if exclusive else runs_per_gpu()
    available = [] if ranks.launched_externally() else visible_gpus()  # an external launcher has chosen the devices
    if not available:
        yield
        return
    with lease_from(available, count, places) as names:
        _use(names, places)
        yield


@contextlib.contextmanager
def lease_from(
    available: Sequence[str], count: int = 1, places: int = 1, folder: Path | None = None
) -> Iterator[list[str]]:
    """Hold ``count`` of the GPUs, or a place on each; wait until enough are free.

    Args:
        available: names of the GPUs (:func:`visible_gpus`).
        count: how many to hold.
        places: how many jobs may share a GPU; 1 for exclusive use.
        folder: where the lock files are (default: one for this user in the machine's temporary folder).

    Yields:
        Names of the GPUs that are held until the block ends.

    Raises:
        InputError: more GPUs are requested than there are.
    """
    if count > len(available):
        raise InputError(f"{count} GPUs are requested, {len(available)} are visible")
    folder = folder or Path(tempfile.gettempdir()) / f"eil-gpus-{user_id()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with _turn(folder):
            found = _gather(available, count, places, folder, held)
        yield found


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Enter the block after every process that came earlier has left it.

    Each process locks a numbered ticket and waits for the lower numbers: a lock alone would admit waiting processes
    in any order. Only the process in the block takes locks of GPUs.
    """
    with locked(folder / "queue"):
        earlier = sorted(folder.glob("ticket-*"))
        number = int(earlier[-1].name.removeprefix("ticket-")) + 1 if earlier else 1
        ticket = folder / f"ticket-{number:09d}"
        lock = FileLock(ticket)
        lock.acquire()
    try:
        busy = f"waiting for a GPU after {len(earlier)} jobs that came earlier"
        for other in earlier:
            with locked(other, busy if other == earlier[0] else ""):  # its process has GPUs now, or was killed
                _remove(other)
        yield
    finally:
        _remove(ticket)  # before the release: afterwards the file may be another process's ticket of this number
        lock.release()


def _remove(ticket: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot remove open files; there filelock removes them
        ticket.unlink(missing_ok=True)


def _use(names: Sequence[str], places: int) -> None:
    """Show only these GPUs to this process, and limit it to its share of their memory; call it before using CUDA."""
    import torch

    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    if places > 1:
        for device in range(len(names)):
            torch.cuda.set_per_process_memory_fraction(1 / places, device)


def _gather(available: Sequence[str], count: int, places: int, folder: Path, held: contextlib.ExitStack) -> list[str]:
    found: dict[str, None] = {}
    waiting = False
    while True:
        # Place by place, so that jobs spread over the GPUs before they share one.
        for place in range(places):
            for name in available:
                if len(found) < count and name not in found and _take(folder, name, place, places, held):
                    found[name] = None
        if len(found) == count:
            return list(found)
        if not waiting:
            _log.info("waiting for a GPU: %s in use", ", ".join(name for name in available if name not in found))
        waiting = True
        time.sleep(_POLL)


def _take(folder: Path, name: str, place: int, places: int, held: contextlib.ExitStack) -> bool:
    """Lock the whole GPU if it has one place, else a place on it, unless somebody holds the other kind of lock."""
    whole = folder / f"{name}.lock"
    if places == 1:
        others = sorted(folder.glob(f"{name}.place-*.lock"))
        return not any(map(_is_held, others)) and _acquire(whole, held)
    return not _is_held(whole) and _acquire(folder / f"{name}.place-{place}.lock", held)


def _acquire(path: Path, held: contextlib.ExitStack) -> bool:
    try:
        held.enter_context(FileLock(path, blocking=False))
    except Timeout:
        return False
    return True


def _is_held(path: Path) -> bool:
    """Whether another process, or this one, holds a lock; asked only by the process whose turn it is."""
    with contextlib.ExitStack() as probe:
        return path.exists() and not _acquire(path, probe)
