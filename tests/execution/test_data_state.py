"""Data are inputs: corrected annotations are evaluated again, changed photos are trained again, nothing else is."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from miniatures import LAYOUTS, folder, mask, photo
from workflows import dry_run, finished

from eil import data
from eil.commands import cli
from eil.core import records
from eil.core.files import InputError, read_arrays
from eil.data import annotation_cache, cache, fingerprint, parallel, photo_cache
from eil.data.geometry import Frame
from eil.execution.data_state import content_hashes
from eil.study.study import parse

FRAME = Frame(40, 32)
RUN = "vgg_small-cam-seed0"


def _prepared(tmp_path: Path, layout: str) -> tuple[Path, data.Dataset, Path]:
    name, make = LAYOUTS[layout]
    root, settings = make(tmp_path / "data")
    dataset = data.read(name, root, settings)
    cache.build(dataset, tmp_path / "cache", FRAME)
    assert cache.outdated(dataset, tmp_path / "cache", FRAME) == ""
    return root, dataset, tmp_path / "cache"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_photo_of_the_same_size_with_other_content_is_noticed_in_every_layout(layout: str, tmp_path: Path) -> None:
    _, dataset, made = _prepared(tmp_path, layout)
    before = cache.fingerprints(made)
    for name in ("train", "test"):
        path = dataset.splits[name].sources[0]
        whole, stat = path.read_bytes(), path.stat()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a copy that keeps the time of modification
        assert cache.outdated(dataset, made, FRAME) == "photos"
        path.write_bytes(whole)
        assert cache.outdated(dataset, made, FRAME) == ""
    path.write_bytes(whole + b"x")
    cache.build(dataset, made, FRAME)
    now = cache.fingerprints(made)
    assert now.photos != before.photos
    assert now.annotations == before.annotations


@pytest.mark.parametrize("layout", ["cub", "wsoleval OpenImages"])
def test_a_changed_mask_changes_annotations_alone(layout: str, tmp_path: Path) -> None:
    _, dataset, made = _prepared(tmp_path, layout)
    before = cache.fingerprints(made)
    masks = dataset.splits["test"].masks
    assert masks is not None
    path = next(fingerprint.files_of(masks[0]))
    path.touch()
    assert cache.outdated(dataset, made, FRAME) == ""
    mask(path, (10, 5, 49, 44))
    assert cache.outdated(dataset, made, FRAME) == "annotations"
    stamp = (made / "test" / "images.npy").stat().st_mtime_ns
    cache.build(dataset, made, FRAME)
    assert cache.outdated(dataset, made, FRAME) == ""
    assert (made / "test" / "images.npy").stat().st_mtime_ns == stamp  # no photo was decoded
    assert cache.fingerprints(made).photos == before.photos
    assert cache.fingerprints(made).annotations != before.annotations
    found = cache.open_split(made, "test").masks
    assert found is not None
    shown = [[low <= i * side // 32 <= high for i in range(32)] for side, low, high in ((60, 10, 49), (48, 5, 44))]
    assert np.isin(found[0], [1, 2]).sum() == sum(shown[0]) * sum(shown[1])  # nearest; a second object lies within


def test_a_touched_photo_costs_one_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, dataset, made = _prepared(tmp_path, "folder")
    read: list[Any] = []
    whole = fingerprint.content_of
    monkeypatch.setattr(fingerprint, "content_of", lambda source: read.append(source) or whole(source))
    assert cache.outdated(dataset, made, FRAME) == ""
    assert read == []
    touched = dataset.splits["train"].sources[2]
    touched.touch()
    look = photo_cache.source_state(dataset, made, FRAME)
    assert cache.outdated(dataset, made, FRAME) == ""
    assert read == [touched]  # and never again
    assert look == cache.describe(made)["photos_look"]


def test_a_missing_photo_is_a_change(tmp_path: Path) -> None:
    root, dataset, made = _prepared(tmp_path, "folder")
    (root / "train" / "dog" / "photo, 1.JPG").unlink()
    assert cache.outdated(dataset, made, FRAME) == "photos"
    text = (root / "boxes.csv").read_text(encoding="utf-8").splitlines()
    left = [line for line in text if not line.startswith("train/dog/photo, 1.JPG")]
    (root / "boxes.csv").write_text("\n".join(left), encoding="utf-8")
    assert cache.outdated(data.read("folder", root, {"held_out": 1}), made, FRAME) == "photos"


def test_annotations_of_other_photos_are_refused(tmp_path: Path) -> None:
    root, dataset, made = _prepared(tmp_path, "folder")
    photo(root / "test" / "dog" / "photo, 1.JPG", 99)
    photo_cache.build(dataset, made, FRAME)
    with pytest.raises(InputError, match=r"annotations.json: no such file; eil prepare makes it"):
        cache.open_split(made, "test")
    annotation_cache.build(dataset, made, FRAME)
    described = json.loads((made / "dataset.json").read_text()) | {"photos_sha256": "0"}
    (made / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="annotations: belong to other photos; run `eil prepare`"):
        cache.open_split(made, "test")


def test_a_resumed_preparation_keeps_only_what_is_still_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One photo is broken; the user exports all of them again, otherwise than before."""
    monkeypatch.setattr(parallel, "BLOCK", 2)
    # To start processes takes seconds.
    monkeypatch.setattr(parallel, "map_in_processes", lambda act, tasks: (act(task) for task in tasks))
    root, settings = folder(tmp_path / "photos")
    broken = root / "test" / "dog" / "photo, 1.JPG"
    whole = broken.read_bytes()
    broken.write_bytes(b"x")
    dataset = data.read("folder", root, settings)
    with pytest.raises(InputError, match="cannot be decoded"):
        cache.build(dataset, tmp_path / "cache", FRAME)
    assert list((tmp_path / ".cache.partial" / "train" / "blocks").glob("*.json"))
    broken.write_bytes(whole)
    for number, path in enumerate(sorted(root.glob("*/*/*.*")), start=100):
        if path.parent.name != "a cat":
            photo(path, number)
    cache.build(dataset, tmp_path / "cache", FRAME)
    cache.build(dataset, tmp_path / "afresh", FRAME)
    for name in dataset.splits:
        one, other = (cache.open_split(tmp_path / each, name) for each in ("cache", "afresh"))
        np.testing.assert_array_equal(one.images, other.images)
    assert cache.fingerprints(tmp_path / "cache") == cache.fingerprints(tmp_path / "afresh")


def _study(tmp_path: Path) -> tuple[Path, Path]:
    """A study on one's own photos, and the folder of the photos."""
    root, settings = folder(tmp_path / "photos")
    study = {
        "name": "own",
        "dataset": {"name": "folder", "root": str(root), **settings},
        "backbones": ["vgg_small"],
        "methods": {"cam": None},
        "controls": [],
        "seeds": 1,
        "recipe": {"epochs": 1, "batch_size": 3, "learning_rate": 0.01, "resize": 36, "crop": 32},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    return tmp_path / "own.yaml", root


def _eil(study: Path, *words: str) -> int:
    where = ["--results", str(study.parent / "results/own"), "--data", str(study.parent / "results/data")]
    return cli.main([words[0], str(study), *words[1:], *where])


def _double_a_box(root: Path) -> None:
    text = (root / "boxes.csv").read_text(encoding="utf-8")
    assert "test/dog/photo, 1.JPG,3,3,20,30" in text
    text = text.replace("test/dog/photo, 1.JPG,3,3,20,30", "test/dog/photo, 1.JPG,1,1,58,46")
    (root / "boxes.csv").write_text(text, encoding="utf-8")


def test_by_hand_changed_data_are_refused_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, root = _study(tmp_path)
    for words in (["prepare"], ["train", RUN], ["localize", RUN], ["evaluate", RUN], ["verify", RUN]):
        assert _eil(study, *words) == 0
    run = tmp_path / "results/own/runs" / RUN
    before = records.read(run / "record.json")
    capsys.readouterr()

    _double_a_box(root)
    for words in (["evaluate", RUN], ["localize", RUN], ["train", RUN]):
        assert _eil(study, *words) == 1
        assert "annotations changed since `eil prepare`" in capsys.readouterr().err
    for words in (["verify", RUN], ["show", RUN], ["boxes", RUN]):
        assert _eil(study, *words) == 1
        assert f"{RUN}: was made from data that have changed since" in capsys.readouterr().err
    assert _eil(study, "status") == 0
    told = capsys.readouterr().out
    assert "0 of 1 runs done, 0 running, 0 failed, 1 to do" in told
    assert f"made from data that have changed since: 1 runs, first {RUN}" in told
    assert _eil(study, "aggregate") == 0
    assert "0 of 1 runs done" in capsys.readouterr().out
    assert not list((tmp_path / "results/own/tables").glob("main.*"))

    weights = (run / "weights.safetensors").stat().st_mtime_ns
    assert _eil(study, "prepare") == 0
    assert _eil(study, "verify", RUN) == 1  # prepared, and not evaluated yet
    assert _eil(study, "evaluate", RUN) == 0  # of the old maps: no photo changed
    assert _eil(study, "verify", RUN) == 0
    after = records.read(run / "record.json")
    assert after.provenance["photos_sha256"] == before.provenance["photos_sha256"]
    assert after.provenance["annotations_sha256"] != before.provenance["annotations_sha256"]
    assert (run / "weights.safetensors").stat().st_mtime_ns == weights
    assert _curve_of(run, before) != _curve_of(run, after) or before.scores != after.scores
    capsys.readouterr()

    photo(root / "train" / "dog" / "photo, 1.JPG", 77)
    assert _eil(study, "localize", RUN) == 1
    assert "photos changed since `eil prepare`" in capsys.readouterr().err
    assert _eil(study, "prepare") == 0
    assert _eil(study, "localize", RUN) == 1
    assert "weights.safetensors: was trained on photos that have changed since" in capsys.readouterr().err
    assert _eil(study, "evaluate", RUN) == 1
    assert "maps.npz: was made from other photos" in capsys.readouterr().err
    for words in (["train", RUN], ["localize", RUN], ["evaluate", RUN], ["verify", RUN]):
        assert _eil(study, *words) == 0


def _curve_of(run: Path, record: records.Record) -> list[float]:
    assert read_arrays(run / "curves.npz")
    return record.curves["gt_known_loc"]


def _jobs(study: Path) -> set[str]:
    """Rules that the workflow would run for the tables, by a dry run."""
    code, output = dry_run(study.parent, "tables", "--configfile", str(study), cwd=study.parent)
    assert code == 0, output
    lines = output.splitlines()
    names = ("prepare", "annotate", "train", "localize", "evaluate", "tables")
    return {line.split()[0] for line in lines if line.split() and line.split()[0] in names}


def test_the_workflow_runs_again_what_changed_data_ask_for(tmp_path: Path) -> None:
    study, root = _study(tmp_path)
    everything = {"prepare", "annotate", "train", "localize", "evaluate", "tables"}
    assert _jobs(study) == everything
    finished(tmp_path, "tables", "--configfile", str(study), forks=True)
    assert _jobs(study) == set()
    kept = (root / "boxes.csv").read_text(encoding="utf-8")

    _double_a_box(root)
    assert _jobs(study) == {"annotate", "evaluate", "tables"}
    (root / "boxes.csv").write_text(kept, encoding="utf-8")
    assert _jobs(study) == set()
    (root / "train" / "dog" / "photo, 1.JPG").touch()
    time.sleep(0.01)
    assert _jobs(study) == set()

    whole = (root / "test" / "dog" / "photo, 1.JPG").read_bytes()
    (root / "test" / "dog" / "photo, 1.JPG").write_bytes(whole + b"\0")
    assert _jobs(study) == everything
    (root / "test" / "dog" / "photo, 1.JPG").write_bytes(whole)
    assert _jobs(study) == set()
    for name in ("train", "test"):
        shutil.copytree(root / name / "dog", root / name / "fox")
    (root / "boxes.csv").write_text(kept + "\n" + kept[kept.index("\n") + 1 :].replace("/dog/", "/fox/"), "utf-8")
    assert _jobs(study) == everything

    _double_a_box(root)
    for name in ("train", "test"):
        shutil.rmtree(root / name / "fox")
    (root / "boxes.csv").write_text(kept.replace("1.JPG,3,3,20,30", "1.JPG,1,1,58,46"), encoding="utf-8")
    weights = tmp_path / "results/own/runs" / RUN / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    finished(tmp_path, "tables", "--configfile", str(study), forks=True)
    assert weights.stat().st_mtime_ns == before
    assert _jobs(study) == set()
    shutil.rmtree(root)  # results are there; without the data nothing is to do
    assert _jobs(study) == set()


def test_a_data_set_that_is_missing_is_told_from_one_that_was_prepared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study, root = _study(tmp_path)
    runs = parse(yaml.safe_load(study.read_text()), "own").runs()
    kept = root.rename(tmp_path / "elsewhere")
    assert content_hashes(runs, tmp_path / "results/data") == {runs[0].cache: {}}
    assert f"{root}: missing, and not prepared: give dataset.root, or EIL_DATA" in caplog.text
    kept.rename(root)
    assert _eil(study, "prepare") == 0
    root.rename(kept)
    caplog.clear()
    assert set(content_hashes(runs, tmp_path / "results/data")[runs[0].cache]) >= {"photos", "annotations"}
    assert f"{root}: missing, assumed to be as it was prepared" in caplog.text


def test_photos_that_were_prepared_alone_are_not_called_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = _study(tmp_path)
    assert _eil(study, "prepare", "--only", "photos") == 0
    capsys.readouterr()
    assert _eil(study, "train", RUN) == 1
    told = capsys.readouterr().err
    assert "annotations.json: no such file; eil prepare makes it" in told
    assert "changed" not in told
