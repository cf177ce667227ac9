"""Provenance of a result: versions, commit, command, processor, GPU, memory, energy."""

import contextlib
import functools
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eil.core import nvml

_LIBRARIES = ("eil", "torch", "torchvision", "numpy", "opencv-python-headless", "lightning-fabric")
_RAPL = "/sys/class/powercap/intel-rapl:*/energy_uj"  # one counter for each processor


def provenance() -> dict[str, Any]:
    """Versions, machine, command, commit and time; None for what is unknown, "+" after a commit with local changes."""
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
    """How many threads this process may use: OMP_NUM_THREADS if a scheduler set it, else all cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


@functools.cache
def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if platform.system() == "Darwin":  # where platform.processor() is "arm" or "i386"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return platform.processor()


def gpu() -> dict[str, str] | None:
    """Name, driver and CUDA version of the GPU that this process computes on; None without a GPU."""
    torch = sys.modules.get("torch")  # a process that has not imported torch uses no GPU
    if torch is None or not torch.cuda.is_available():
        return None
    return {"name": torch.cuda.get_device_name(), "driver": nvml.driver() or "unknown", "cuda": str(torch.version.cuda)}


def device_name() -> str:
    """Name of the GPU if there is one, else of the processor."""
    found = gpu()
    return found["name"] if found else processor()


class ResourceMeter:
    """Measures peak memory, and energy where the machine reports it, from its construction on.

    Energy is that of whole GPUs and processors, so other processes' work on them counts too.
    """

    def __init__(self) -> None:
        self._energy = _energy()

    def read(self) -> dict[str, int | float]:
        """``peak_bytes`` of the process, ``peak_gpu_bytes`` and ``joules``, each where it is known."""
        found: dict[str, int | float] = {}
        with contextlib.suppress(ImportError):  # Windows
            import resource

            unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes, Linux KiB
            found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        used = [last - first for first, last in zip(self._energy, _energy(), strict=False)]
        if used and min(used) >= 0:  # a processor's counter wraps around
            found["joules"] = round(sum(used), 1)
        return found


def _energy() -> list[float]:
    """Energy counters in joules: of the processors if this process may read them, and of its GPU."""
    found = []
    with contextlib.suppress(OSError):  # only root may read them on most machines
        found += [int(path.read_text(encoding="ascii")) / 1e6 for path in sorted(Path("/").glob(_RAPL[1:]))]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        used = nvml.joules(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        found += [] if used is None else [used]
    return found


@functools.cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """Commit of the sources, with "+" if they have local changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
