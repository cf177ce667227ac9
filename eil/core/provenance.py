"""What a result was made by and on: versions, commit, command, processor, GPU, memory, energy."""

import contextlib
import functools
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("eil", "torch", "torchvision", "numpy", "opencv-python-headless", "lightning-fabric")
_RAPL = "/sys/class/powercap/intel-rapl:*/energy_uj"  # of a whole processor each


def provenance() -> dict[str, Any]:
    """Versions, machine, commit ("+": changed since) and time, as far as they can be told."""
    torch = sys.modules.get("torch")
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "host": platform.node(),
        "processor": processor(),
        "threads": torch.get_num_threads() if torch else threads(),
        "gpu": gpu(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def threads() -> int:
    """How many threads this process may use: what its scheduler set, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


@functools.cache
def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def gpu() -> dict[str, str] | None:
    """Name, driver and CUDA version of the GPU that this process computes on; None if it computes on none."""
    torch = sys.modules.get("torch")  # who has not loaded it computes on none
    if torch is None or not torch.cuda.is_available():
        return None
    return {"name": torch.cuda.get_device_name(), "driver": _driver(), "cuda": str(torch.version.cuda)}


def device_name() -> str:
    """Name of the GPU, else of the processor."""
    found = gpu()
    return found["name"] if found else processor()


class Meter:
    """What a piece of work takes besides time, from here on: peak memory, and energy where the machine tells it.

    Energy is that of the whole GPUs and processors: others' work on them counts too.
    """

    def __init__(self) -> None:
        self._energy = _energy()

    def read(self) -> dict[str, int | float]:
        """``peak_bytes`` of the process, ``peak_gpu_bytes`` and ``joules`` where they are known."""
        kibibyte = 1 if sys.platform == "darwin" else 1024  # in which Linux counts
        found: dict[str, int | float] = {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibyte}
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        used = [last - first for first, last in zip(self._energy, _energy(), strict=False)]
        if used and min(used) >= 0:  # a processor's counter runs over
            found["joules"] = round(sum(used), 1)
        return found


def _energy() -> list[float]:
    """Counters of energy so far, in joules: of this process's GPU, and of the processors if it may read them."""
    found = []
    with contextlib.suppress(OSError):  # for root alone, on most machines
        found += [int(path.read_text()) / 1e6 for path in sorted(Path("/").glob(_RAPL[1:]))]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with contextlib.suppress(Exception):  # not installed, or a driver that does not count
            import pynvml

            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
            found.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3)
    return found


@functools.cache
def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


@functools.cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """Commit of the sources, with "+" if they were changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
