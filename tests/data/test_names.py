"""File names as they come: what is no photo is told, bytes that are not UTF-8 are named, normal forms are matched."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from miniatures import examined, mask, photo, wsoleval_cub

from eil import data
from eil.commands import cli
from eil.core.files import InputError
from eil.data import names

NFC, NFD = (unicodedata.normalize(form, "gänsesäger é") for form in ("NFC", "NFD"))
CLASSES = ("cat", NFC)


def folder_of(root: Path, form: str, label: str = NFC) -> list[str]:
    """Photos whose names, and one class's, are in a normal form on disk; those of val and test, in the composed one."""
    found = []
    for number, (split, each) in enumerate((s, c) for s in ("train", "val", "test") for c in ("cat", label)):
        name = f"{split}/{each}/{NFC}.jpg"
        photo(root / unicodedata.normalize(form, name), number)
        found += [] if split == "train" else [name]
    return found


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_both_spellings_of_a_name_are_one(disk: str, listed: str, tmp_path: Path) -> None:
    found = folder_of(tmp_path, disk)
    text = "path,x0,y0,x1,y1\n" + "".join(f"{name},1,2,3,4\n" for name in found)
    (tmp_path / "boxes.csv").write_text(unicodedata.normalize(listed, text), encoding="utf-8")
    dataset = data.read("folder", tmp_path, {})
    assert dataset.classes == CLASSES
    test = dataset.splits["test"]
    assert test.ids == found[2:]
    assert [examined(test, i, scored=True).boxes.tolist() for i in range(2)] == [[[1, 2, 3, 4]]] * 2


def test_a_class_may_be_spelt_differently_in_each_split(tmp_path: Path) -> None:
    for number, (split, label) in enumerate((("train", NFC), ("test", NFD), ("train", "cat"), ("test", "cat"))):
        for k in range(2):
            photo(tmp_path / split / label / f"{k}.jpg", 2 * number + k)
    assert data.read("folder", tmp_path, {"held_out": 1}).classes == CLASSES


def test_the_order_of_classes_and_photos_is_the_same_on_every_disk(tmp_path: Path) -> None:
    orders = []
    for form in ("NFC", "NFD"):
        for split in ("train", "val", "test"):
            for label in ("fox", "émeu"):
                for k, name in enumerate(("f.jpg", "é.jpg")):
                    path = unicodedata.normalize(form, f"{split}/{label}/{name}")
                    photo(tmp_path / form / path, hash((split, label, k)) % 1000)
        dataset = data.read("folder", tmp_path / form, {})
        orders.append((dataset.classes, dataset.splits["train"].ids))
    assert orders[0] == orders[1]


def test_masks_and_lists_of_the_benchmark_are_matched_too(tmp_path: Path) -> None:
    for name in folder_of(tmp_path / "own", "NFC"):
        mask(tmp_path / "own" / "masks" / unicodedata.normalize("NFD", name.replace(".jpg", ".png")), (1, 2, 3, 4))
    test = data.read("folder", tmp_path / "own", {}).splits["test"]
    assert examined(test, 1, scored=True).boxes.tolist() == [[1, 2, 3, 4]]
    root, settings = wsoleval_cub(tmp_path / "lists")
    for path in sorted((root / "CUB" / "test").rglob("*.jpg")):
        path.rename(path.with_name(f"{NFD}{path.name}"))
    for path in (root / "metadata" / "CUB" / "test").iterdir():
        text = path.read_text()
        for label in range(3):
            text = text.replace(f"test/c{label}/", f"test/c{label}/{NFC}")
        path.write_text(text, encoding="utf-8")
    test = data.read("wsoleval", root, settings).splits["test"]
    assert test.ids[0] == f"test/c0/{NFC}0.jpg"
    assert test.image(0).shape == (48, 60, 3)


def test_two_files_that_differ_in_normal_form_alone_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "NFC")
    photo(tmp_path / "test" / "cat" / f"{NFD}.jpg", 99)
    with pytest.raises(InputError, match=r"test/cat: .* is there twice, in Unicode's composed and decomposed form"):
        data.read("folder", tmp_path, {})
    with pytest.raises(InputError, match=r"x: .* is there twice, in Unicode's .*\\xe4.*\\u0308.*: remove one"):
        names.require_distinct(["a", NFC, NFD], "x")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_name_that_is_not_utf_8_is_named_at_the_check(tmp_path: Path, capsys: Any) -> None:
    folder_of(tmp_path, "NFC")
    path = os.fsencode(tmp_path / "train" / "cat") + b"/caf\xe9.jpg"
    photo(tmp_path / "x.jpg", 5)
    try:
        (tmp_path / "x.jpg").rename(os.fsdecode(path))
    except OSError:
        pytest.skip("this file system has no such names")
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "train/cat: caf\\xe9.jpg: the file's name, b'caf\\xe9.jpg', is not UTF-8" in captured.err
    Path(os.fsdecode(path)).rename(os.fsdecode(path[:-4] + b".txt"))  # left out, and told all the same
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "(.txt): train/cat/caf\\xe9.txt" in capsys.readouterr().out


def test_whatever_is_left_out_is_counted_and_named(tmp_path: Path, capsys: Any) -> None:
    folder_of(tmp_path, "NFC")
    for k in range(4):
        photo(tmp_path / "train" / "cat" / "more" / f"{k}.jpg", k)
    photo(tmp_path / "test" / "cat" / "._1.jpg", 1)
    photo(tmp_path / "test" / "lost.jpg", 1)
    photo(tmp_path / "valid" / "cat" / "1.jpg", 1)
    for name in ("train/cat/Thumbs.db", "train/cat/1.heic", "train/cat/2.heic", "train/cat/LICENSE", "notes.md"):
        (tmp_path / name).write_text("x")
    dataset = data.read("folder", tmp_path, {})
    assert dataset.remarks == (
        "left out: 4 files in sub-folders of a class: train/cat/more/0.jpg, train/cat/more/1.jpg, "
        "train/cat/more/2.jpg, …",
        "left out: 1 files outside of class folders: test/lost.jpg",
        "left out: 2 files without a photo's suffix (.heic): train/cat/1.heic, train/cat/2.heic",
        "left out: 1 files without a photo's suffix (none): train/cat/LICENSE",
        "left out: 2 hidden and system files: test/cat/._1.jpg, train/cat/Thumbs.db",
        "left out: 1 photos in valid, which is none of train, val and test",
    )
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "remark: left out: 4 files in sub-folders of a class" in capsys.readouterr().out
