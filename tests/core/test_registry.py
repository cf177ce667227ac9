"""Names to modules and classes, without importing what is not asked for."""

import subprocess
import sys

import pytest

from eil.core import registry


def loaded(code: str) -> set[str]:
    """Modules that a fresh interpreter has after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_eil_loads_neither_torch_nor_a_room() -> None:
    found = loaded("import eil")
    assert "torch" not in found
    assert not {name for name in found if name.startswith("eil.")}


def test_names_are_found_without_importing_anything() -> None:
    found = loaded(
        "from eil.core import registry\n"
        "assert 'resnet50' in registry.available(registry.BACKBONES)\n"
        "assert registry.module(registry.BACKBONES, 'vgg16') == 'eil.backbones.networks.vgg16'\n"
        "assert registry.module(registry.METHODS, 'eil') == 'eil.methods.eil'\n"
        "assert registry.module(registry.BACKBONES, 'vgg17') is None"
    )
    assert "torch" not in found
    assert not {name for name in found if name.startswith(("eil.backbones", "eil.methods", "eil.data"))}


def test_classes_are_imported_from_their_package_one_by_one() -> None:
    found = loaded(
        "from eil.methods import EIL, MEIL\n"
        "from baselines import CAM, HaS\n"
        "assert (EIL.__module__, MEIL.__module__) == ('eil.methods.eil', 'eil.methods.meil')\n"
        "assert (CAM.__module__, HaS.__module__) == ('baselines.cam', 'baselines.has')"
    )
    assert not found & {"baselines.acol", "baselines.spg", "baselines.cutmix"}


@pytest.mark.parametrize("name", registry.available(registry.METHODS))
def test_every_method_of_the_project_is_in_the_file_of_its_name(name: str) -> None:
    cls = registry.load(registry.METHODS, name)
    package, _, file = cls.__module__.rpartition(".")
    if package in ("eil.methods", "baselines"):
        assert file == cls.__name__.lower() == name
        assert getattr(sys.modules[package], cls.__name__) is cls


@pytest.mark.parametrize("name", ["Cam", "cam_", "Controls", "NoSuch"])
def test_other_names_are_refused(name: str) -> None:
    import baselines

    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(baselines, name)
