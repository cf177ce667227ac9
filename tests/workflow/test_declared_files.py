"""Through a storage nothing but declared files travels: each command must do with those of its rule."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workflows import finished, study

from eil.commands import cli

MACHINES = Path(__file__).parent / "machines"
STORAGE = ["--default-storage-provider", "empty", "--default-storage-prefix", "store", "--shared-fs-usage", "none"]
PLACE = ".snakemake/storage/empty/store/"
Jobs = list[tuple[str, dict[str, str], list[str], list[str]]]  # rule, wildcards, input, output


def declared(folder: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """The files that each job declares under a storage, relative to the study's folder there."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MACHINES), os.environ.get("PYTHONPATH", "")]))
    output = finished(folder, "--executor", "listing", *STORAGE, *study(folder, content))
    found: Jobs = []
    for line in output.splitlines():
        if line.startswith("["):
            try:
                rule, wildcards, *files = json.loads(line)
            except ValueError:  # the time of a job, in brackets
                continue
            read, written = ([path.removeprefix(PLACE) for path in each] for each in files)
            assert not any(path.startswith(".") for path in [*read, *written])
            found.append((rule, wildcards, read, written))
    return found


@pytest.fixture
def tiny(content: dict[str, Any]) -> dict[str, Any]:
    content["recipe"] |= {"epochs": 1}
    return content | {"methods": {"cam": {}}, "controls": ["oracle_box"], "maps": ["ddt"], "seeds": 1}


def test_rules_declare_what_lies_beside_their_files(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {
        (rule, wildcards.get("run", "")): files for rule, wildcards, *files in declared(tmp_path, tiny, monkeypatch)
    }
    fitted = "vgg_small-cam-ddt-seed0"
    own, control = "vgg_small-cam-seed0", "vgg_small-cam-oracle_box-seed0"
    (described,) = {path for path in jobs["prepare", ""][1] if path.endswith("dataset.json")}
    cache = described.removesuffix("/dataset.json")
    data = {name: f"{cache}/{name}" for name in ("train", "val", "test", "annotations")}

    def of(run: str, *names: str) -> set[str]:
        return {f"results/tiny/runs/{run}/{name}" for name in names}

    assert set(jobs["prepare", ""][1]) == {described, data["train"], data["val"], data["test"]}
    assert jobs["annotate", ""] == [jobs["prepare", ""][1], [data["annotations"]]]
    assert set(jobs["train", own][0]) == {described, data["annotations"], data["train"], data["val"]}
    scored = {described, data["annotations"], data["val"], data["test"]}
    assert set(jobs["localize", own][0]) == scored | of(own, "weights.safetensors")
    assert set(jobs["localize", control][0]) == scored | of(own, "weights.safetensors", "maps.npz")
    assert data["train"] in jobs["localize", fitted][0]
    written = ("record.json", "examples.npz", "curves.npz", "evaluate.benchmark.tsv")
    assert set(jobs["evaluate", own][1]) == of(own, *written)
    assert of(own, "train.benchmark.tsv") < set(jobs["train", own][1])
    assert set(jobs["localize", own][1]) == of(own, "maps.npz", "localize.benchmark.tsv")
    assert {described, data["val"], data["test"]} | of(own, "maps.npz", "curves.npz") <= set(jobs["figures", ""][0])
    assert described in jobs["tables", ""][0]


@pytest.mark.slow
def test_every_command_does_with_its_rules_files(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EIL_APART", "1")  # as the workflow sets it
    tiny["methods"] |= {"has": {}}  # two methods have a figure of images on which they differ
    jobs = declared(tmp_path, tiny, monkeypatch)
    commands = {
        "prepare": ["prepare", "--only", "photos"],
        "annotate": ["prepare", "--only", "annotations"],
        "tables": ["aggregate"],
    }
    bucket, figures = tmp_path / "bucket", set()
    for number, (rule, wildcards, read, written) in enumerate(jobs):
        if rule == "all":
            continue
        machine = tmp_path / f"machine{number}"
        machine.mkdir()
        for path in read:
            copy(bucket / path, machine / path)
        name, *options = commands.get(rule, [rule])
        options += ["--cache", wildcards["cache"]] if "cache" in wildcards else []
        arguments = [name, str(tmp_path / "tiny.yaml"), *([wildcards["run"]] if "run" in wildcards else []), *options]
        monkeypatch.chdir(machine)
        assert cli.main(arguments) == 0, arguments
        if rule == "train":  # what others have done is unknown here
            assert capsys.readouterr().out.splitlines()[-1] == f"{wildcards['run']}: trained"
        for path in written:
            copy(machine / path, bucket / path)
        if rule == "figures":
            figures = {path.stem for path in (machine / "results/tiny/figures").glob("examples_*.png")}
        shutil.rmtree(machine)
    assert "control: oracle box" in (bucket / "results/tiny/tables/main.md").read_text()
    assert len(figures) > 1  # these, too: they need maps, curves, photos and boxes


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


@pytest.fixture(autouse=True)
def _working_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave a machine's folder before it is removed."""
    monkeypatch.chdir(Path.cwd())
    yield
