"""NVIDIA's management library, by a made-up pynvml: what it tells, and silence where it is missing or refuses."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from eil.core import nvml, provenance


class NVMLError(Exception):
    pass


def fake(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> list[str]:
    """Install a pynvml with these functions; a list of its starts and ends."""
    calls: list[str] = []
    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: calls.append("start"),
        nvmlShutdown=lambda: calls.append("end"),
        **functions,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return calls


def refuse(*_: object) -> None:
    raise NVMLError("Not Supported")


def test_what_the_driver_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(
        monkeypatch,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: f"handle {number}",
        nvmlDeviceGetHandleByUUID=lambda uuid: f"handle of {uuid}",
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle[-1]}",
        nvmlSystemGetDriverVersion=lambda: "570.1",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 2500 if handle == "handle of GPU-1" else 0,
    )
    assert nvml.uuids() == {"0": "GPU-0", "1": "GPU-1"}
    assert nvml.driver() == "570.1"
    assert nvml.joules("GPU-1") == 2.5
    assert calls == ["start", "end"] * 3


def test_a_driver_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByUUID", "nvmlSystemGetDriverVersion")
    energy = {"nvmlDeviceGetTotalEnergyConsumption": refuse}
    calls = fake(monkeypatch, **dict.fromkeys(names, refuse), **energy)
    assert (nvml.uuids(), nvml.driver(), nvml.joules("GPU-1")) == ({}, None, None)
    assert calls == ["start", "end"] * 3
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", refuse)  # no driver
    assert (nvml.uuids(), nvml.driver(), nvml.joules("GPU-1")) == ({}, None, None)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (nvml.uuids(), nvml.driver(), nvml.joules("GPU-1")) == ({}, None, None)


def test_a_gpus_energy_is_counted_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([10.0, 12.5])
    torch = SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: True,
            max_memory_allocated=lambda: 7,
            get_device_properties=lambda _: SimpleNamespace(uuid="1"),
        )
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(nvml, "joules", lambda uuid: next(counter) if uuid == "GPU-1" else None)
    monkeypatch.setattr(provenance, "_RAPL", "/none/*")
    found = provenance.ResourceMeter().read()
    assert (found["joules"], found["peak_gpu_bytes"]) == (2.5, 7)
