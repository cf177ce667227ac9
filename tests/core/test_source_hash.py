"""A change of code is stale for the steps that use it, and for no others."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eil.core import source_files, source_hash
from eil.core.run import Run


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Hashes are kept for a process; a test changes files in between."""
    forget()
    yield
    forget()


def forget() -> None:
    source_files.forget()
    source_hash.digest.cache_clear()
    source_hash._path.cache_clear()


def change(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a file of the project count as edited."""
    path = Path(source_hash.__file__).parents[2].joinpath(*name.split(".")).with_suffix(".py")
    assert path.is_file()
    source_hash.digest.cache_clear()
    monkeypatch.setitem(source_files._parsed, path, source_files.parse(path)._replace(meaning="edited"))


def of(runs: dict[str, Run], **changes: str) -> dict[str, str]:
    run = runs["vgg_small-eil-gamma0.6-sigma1-seed0"].model_copy(update=changes)
    return {step: source_hash.of_step(step, run) for step in source_hash.STEPS}


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("eil.methods.eil", {"train", "localize"}),
        ("eil.methods.streams", {"train", "localize"}),
        ("eil.backbones.networks.vgg_small", {"train", "localize"}),
        ("eil.backbones.blocks", {"train", "localize"}),
        ("eil.backbones.base", {"train", "localize"}),
        ("eil.training.localize", {"localize"}),
        ("eil.methods.meil", set()),
        ("eil.backbones.networks.resnet50", set()),
        ("baselines.cam", set()),
        ("eil.report.tables", set()),
    ],
)
def test_an_edit_is_stale_for_its_users(
    edited: str, stale: set[str], runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(runs)
    change(monkeypatch, edited)
    after = of(runs)
    assert {step for step in before if before[step] != after[step]} - {"evaluate"} == stale


def test_a_run_depends_on_its_own_method_and_backbone(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(runs, method="cam", backbone="resnet50")
    change(monkeypatch, "baselines.cam")
    assert of(runs, method="cam", backbone="resnet50")["train"] != before["train"]
    change(monkeypatch, "eil.methods.eil")
    between = of(runs, method="meil")["train"]
    assert between != of(runs, method="cam")["train"]


def test_a_data_sets_reader_is_part_of_its_preparation() -> None:
    assert source_hash.of_prepare("birds") != source_hash.of_prepare("cub")
    assert source_hash.of_annotate("birds") != source_hash.of_prepare("birds")


def test_a_plugin_depends_on_what_it_imports_by_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin.py").write_text("from baselines import CAM\n\nclass Mine(CAM):\n    '''A method.'''\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = source_hash.digest("plugin")
    change(monkeypatch, "baselines.cam")
    assert source_hash.digest("plugin") != before


def test_comments_and_docstrings_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = []
    for text in ("x = 1\n", '"""New."""\n\nx = 1  # one\n', "x = 2\n"):
        (tmp_path / "module.py").write_text(text)
        forget()
        found.append(source_hash.digest("module"))
    assert found[0] == found[1] != found[2]
