"""The container files agree with the project and with each other, and Snakemake runs each step in the container."""

import re
from pathlib import Path
from typing import Any

import pytest
from workflows import PROGRAMS, ROOT, finished, study

DOCKERFILE = (ROOT / "containers/Dockerfile").read_text()
DEFINITION = (ROOT / "containers/eil.def").read_text()
FAKE = """#!/bin/bash
# As apptainer: "--version", or "exec OPTIONS IMAGE bash -c COMMAND", without a container.
if [ "$1" = --version ]; then echo apptainer version 1.4.0; exit; fi
echo "$@" >> "$(dirname "$0")/calls"
exec bash -c "${@: -1}"
"""


def copied() -> dict[str, set[str]]:
    """What each of the files copies, relative to the top of the clone."""
    lines = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    files = DEFINITION.split("%files\n")[1].split("%post")[0]
    ignored = (ROOT / "containers/Dockerfile.dockerignore").read_text()
    return {
        "Dockerfile": {name for line in lines for name in line.split()},
        "eil.def": {line.split()[0] for line in files.strip().splitlines()},
        "Dockerfile.dockerignore": set(re.findall(r"^!(\S+)$", ignored, re.MULTILINE)),
    }


def test_what_is_copied_exists_and_is_the_same_in_all() -> None:
    found = copied()
    for names in found.values():
        assert [name for name in names if not list(ROOT.glob(name))] == []
    tops = {file: {name.split("/")[0] for name in names} for file, names in found.items()}
    assert tops["Dockerfile"] == tops["eil.def"] == tops["Dockerfile.dockerignore"]
    assert {"eil", "baselines", "workflow", "results", "Snakefile", "pyproject.toml"} <= tops["eil.def"]


def test_both_install_the_same_on_the_same_image() -> None:
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)
    assert f"Bootstrap: docker\nFrom: {base}\n" in DEFINITION
    wanted = re.compile(r'-c /eil/constraints.txt ("/eil\[[\w,]+\]")')
    assert wanted.findall(DOCKERFILE) == wanted.findall(DEFINITION) == ['"/eil[nvidia,pretrained,storage]"']


@pytest.mark.slow
def test_snakemake_runs_every_step_in_the_container(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(FAKE)
    (tmp_path / "bin/apptainer").chmod(0o755)
    (tmp_path / "eil.sif").touch()
    monkeypatch.setattr("workflows.PROGRAMS", f"{tmp_path / 'bin'}:{PROGRAMS}")
    content["recipe"] |= {"epochs": 1}
    arguments = study(tmp_path, content | {"methods": {"cam": {}}, "seeds": 1})
    finished(tmp_path, "--sdm", "apptainer", *arguments, "--config", "container=eil.sif")
    calls = (tmp_path / "bin/calls").read_text().splitlines()
    steps = [re.search(r"eil\.sif bash -c .*?eil (\w+)", call) for call in calls]
    assert sorted(step[1] for step in steps if step) == [
        "aggregate", "evaluate", "figures", "localize", "prepare", "prepare", "train"
    ]  # fmt: skip
    assert "| vgg_small | cam" in (tmp_path / "results/tiny/tables/main.md").read_text()
