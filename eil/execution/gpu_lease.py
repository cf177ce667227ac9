"""Which GPU a job uses: leases, as locked files, so that a holder which is killed lets go by itself.

A workflow engine counts GPUs and names none. Jobs that share a GPU hold a place of it each; one that must have no
company (timing, or any job where ``runs_per_gpu`` is 1) holds it whole. Who comes first is served first, so that
a job of many GPUs does not starve behind jobs of one.
"""

import contextlib
import fcntl
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from eil.core import ranks
from eil.core.files import InputError

_log = logging.getLogger(__name__)
_POLL = 0.1  # seconds


def runs_per_gpu() -> int:
    """How many jobs may share a GPU: EIL_RUNS_PER_GPU, else 1.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    text = os.environ.get("EIL_RUNS_PER_GPU", "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"EIL_RUNS_PER_GPU (runs_per_gpu) = {text}: must be a whole number from 1 on")
    return int(text)


def gpus() -> list[str]:
    """The GPUs that this process may see, each by a name that no other on this machine has; none without CUDA.

    What a cluster's engine has allotted (CUDA_VISIBLE_DEVICES, control groups) is respected, and a GPU has the same
    name in every allotment: its UUID, or its number where no driver's tool tells it.
    """
    import torch

    # The driver's tool counts in the order of the bus, CUDA by speed unless told, and before it is started.
    in_order = os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID") == "PCI_BUS_ID"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        names = [str(number) for number in range(torch.cuda.device_count())]
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()][: torch.cuda.device_count()]
    uuids = _uuids() if in_order else {}
    return [uuids.get(name, name) for name in names]


@contextlib.contextmanager
def held(count: int = 1, alone: bool = False) -> Iterator[None]:
    """Compute on GPUs of one's own in the block, waiting for them, or on the CPU where there are none.

    Args:
        count: how many GPUs.
        alone: whether they must not be shared, whatever EIL_RUNS_PER_GPU says.
    """
    places = 1 if alone else runs_per_gpu()
    available = [] if ranks.started_from_outside() else gpus()  # whose starter has chosen the devices
    if not available:
        yield
        return
    with leased(available, count, places) as names:
        use(names, places)
        yield


@contextlib.contextmanager
def leased(
    available: Sequence[str], count: int = 1, places: int = 1, folder: Path | None = None
) -> Iterator[list[str]]:
    """Hold ``count`` of the GPUs, or a place on each; wait until there are so many.

    Args:
        available: their names (:func:`gpus`).
        count: how many.
        places: how many jobs may share one; 1 for none.
        folder: of the locked files (default: one for this user under the machine's temporary folder).

    Yields:
        The names of those that are held until the block ends.

    Raises:
        InputError: there are fewer.
    """
    if count > len(available):
        raise InputError(f"{count} GPUs are asked for, {len(available)} are to be seen")
    folder = folder or Path(tempfile.gettempdir()) / f"eil-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with (folder / "queue").open("w") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)  # while waiting too: the next in line waits here
            found = _gather(available, count, places, folder, held)
        yield found


def use(names: Sequence[str], places: int) -> None:
    """Let this process see these GPUs alone, and its share of their memory. Before anything is computed on them."""
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
            _log.info("waiting for a GPU: %s are taken", ", ".join(name for name in available if name not in found))
        waiting = True
        time.sleep(_POLL)


def _take(folder: Path, name: str, place: int, places: int, held: contextlib.ExitStack) -> bool:
    """Lock the GPU, shared if it has several places, and the place on it."""
    with contextlib.ExitStack() as taken:
        shared = fcntl.LOCK_SH if places > 1 else fcntl.LOCK_EX
        for path, kind in ((folder / name, shared), (folder / f"{name}.{place}", fcntl.LOCK_EX)):
            file: IO[str] = taken.enter_context(path.open("w"))
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        held.enter_context(taken.pop_all())
    return True


def _uuids() -> dict[str, str]:
    """UUIDs by number, as the driver's tool lists them."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(re.findall(r"^GPU (\d+): .*\(UUID: (GPU-[0-9a-f-]+)\)", listed, re.MULTILINE))
