"""NVIDIA's management library (nvidia-ml-py, the extra ``nvidia``); None where the package or a driver is missing."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def uuids() -> dict[str, str]:
    """UUID of each GPU by its number in the order of the PCI bus; empty if they cannot be read."""

    def read(nvml: Any) -> dict[str, str]:
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        return {str(number): str(nvml.nvmlDeviceGetUUID(handle)) for number, handle in enumerate(handles)}

    return _query(read) or {}


def driver() -> str | None:
    """Version of the driver."""
    return _query(lambda nvml: str(nvml.nvmlSystemGetDriverVersion()))


def joules(uuid: str) -> float | None:
    """Energy that a GPU has used since its driver was loaded, in joules; older GPUs do not count it."""
    return _query(lambda nvml: nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByUUID(uuid)) / 1e3)


def _query(read: Callable[[Any], T]) -> T | None:
    """What ``read`` gets from pynvml; None if the package or the driver is missing, or refuses."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return read(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
