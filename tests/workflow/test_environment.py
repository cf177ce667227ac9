"""The three lists of what the project needs agree; what it says of itself is true."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from setuptools import find_packages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "opencv-python-headless": "py-opencv",
    "snakemake": "snakemake-minimal",
    "torch": "pytorch",
    "types-PyYAML": "types-pyyaml",
}


# What `make test` and environment.yml install; the others are for those who need them.
EXTRAS = ["dev", "pretrained", "timm"]


def requirements(extras: list[str]) -> list[Requirement]:
    lists = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in PROJECT["dependencies"] + [text for name in extras for text in lists[name]]]


def test_conda_says_the_same_as_pyproject() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry for entry in content if isinstance(entry, dict))["pip"]
    theirs = {entry for entry in [*content, *pip] if isinstance(entry, str)} - {"pip", "--no-deps --editable ."}
    ours = {f"{CONDA_NAMES.get(r.name, r.name)}{r.specifier}" for r in requirements(EXTRAS)}
    assert theirs == ours | {f"python{PROJECT['requires-python']}"}


def test_every_requirement_is_pinned_and_met() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.lower().split("==") for line in lines)
    for requirement in requirements(list(PROJECT["optional-dependencies"])):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
    for requirement in requirements(EXTRAS):
        assert requirement.specifier.contains(version(requirement.name)), requirement


def test_torch_and_torchvision_are_pinned_as_a_pair() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "torch==2.12.0\n" in text
    assert "torchvision==0.27.0\n" in text


def test_every_package_is_shipped() -> None:
    find = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    shipped = set(find_packages(str(ROOT), include=find["include"]))
    folders = [path.parent for top in ("eil", "baselines") for path in (ROOT / top).rglob("__init__.py")]
    assert shipped == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("eil/**/*.py"), *ROOT.glob("baselines/*.py")]), ids=lambda p: p.stem
)
def test_a_file_is_short_and_opens_with_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 310


def test_nothing_branches_on_a_methods_name() -> None:
    names = "|".join([*PROJECT["entry-points"]["eil.methods"], *PROJECT["entry-points"]["eil.controls"]])
    for path in [*ROOT.glob("eil/**/*.py"), *ROOT.glob("workflow/**/*.smk")]:
        assert not re.search(rf"(==|\bin) *[\(\[]?[\"']({names})[\"']", path.read_text()), path


def test_an_installed_package_has_every_file_that_it_reads() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    found = [path.relative_to(ROOT) for path in (ROOT / "eil").rglob("*.yaml")]
    assert len(found) >= 3
    assert [path for path in found if path.name not in declared.get(".".join(path.parts[:-1]), [])] == []
