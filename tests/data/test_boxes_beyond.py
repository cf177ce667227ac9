"""Boxes beyond their photo: readers give the benchmark's clipped boxes, tell it once, and refuse one of no area."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import LAYOUTS, cub, examined, photo

from eil import data
from eil.commands import cli
from eil.core.files import InputError
from eil.data import cache, clipping, parallel
from eil.data.geometry import Frame
from eil.data.readers import wsoleval

CUB_20, LISTS = os.environ.get("EIL_CUB_20"), os.environ.get("EIL_WSOL_METADATA")


def _replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def _examined(split: data.Split) -> dict[str, list[list[float]]]:
    return {name: examined(split, k, scored=True).boxes.tolist() for k, name in enumerate(split.ids)}


# bounding_boxes.txt of one test image (60 x 48 pixels) -> the benchmark's box, by hand: x + width, y + height, then
# clipped to the last pixel.
OVERHANGS: dict[str, tuple[list[float], float]] = {
    "10.0 5.0 29.0 39.0": ([10, 5, 39, 44], 0),
    "10.0 5.0 50.0 43.0": ([10, 5, 59, 47], 0),  # ends at 60 and 48: a convention, no overhang
    "10.0 5.0 51.0 39.0": ([10, 5, 59, 44], 1),
    "-3.0 -2.5 20.0 30.0": ([0, 0, 17, 27.5], 3),
    "30.0 20.0 62.0 60.0": ([30, 20, 59, 47], 32),
    "-5000.0 5.0 5010.0 39.0": ([0, 5, 10, 44], 5000),
}


@pytest.mark.parametrize("line", OVERHANGS)
def test_cubs_boxes_are_clipped_to_their_photo(line: str, tmp_path: Path, caplog: Any) -> None:
    root, settings = cub(tmp_path)
    _replace(root / "bounding_boxes.txt", "\n18 10.0 5.0 29.0 39.0", f"\n18 {line}")
    expected, pixels = OVERHANGS[line]
    dataset = data.read("cub", root, settings)
    test = dataset.splits["test"]
    found = examined(test, 5, scored=True)
    assert found.boxes.tolist() == [expected]
    assert (found.overhang.boxes, found.overhang.beyond, found.overhang.pixels) == (1, int(pixels > 0), pixels)
    with caplog.at_level(logging.INFO):
        cache.build(dataset, tmp_path / "cache", Frame(48, 48))
    told = [record.getMessage() for record in caplog.records if "beyond the photo" in record.getMessage()]
    assert len(told) == int(pixels > 0)
    if told:
        assert told[0].startswith("cub: 1 of 9 boxes reaches beyond the photo and was clipped to it, the worst by ")
        assert f"{root / 'bounding_boxes.txt'}:18: 003.Black_footed_Bird/" in told[0]
        assert ("are x and y swapped?" in told[0]) == (pixels > 20)


def test_what_is_clipped_is_told_once_also_where_preparing_went_on(
    tmp_path: Path, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(parallel, "BLOCK", 2)
    monkeypatch.setattr(parallel, "map_in_processes", lambda act, tasks: (act(task) for task in tasks))
    root, settings = cub(tmp_path)
    for number in (5, 18):  # the first and the last test photo
        _replace(root / "bounding_boxes.txt", f"\n{number} 10.0 5.0 29.0 39.0", f"\n{number} 10.0 5.0 6{number}.0 39.0")
    dataset = data.read("cub", root, settings)
    broken = dataset.splits["test"].sources[3]
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        cache.build(dataset, tmp_path / "cache", Frame(48, 48))
    broken.write_bytes(whole)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        cache.build(dataset, tmp_path / "cache", Frame(48, 48))
    told = [record.getMessage() for record in caplog.records if "beyond" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(
        "cub: 2 of 9 boxes reach beyond the photo and were clipped to it, the worst by 568 pixels"
    )


def _xml_corner(root: Path) -> None:
    path = sorted((root / "Annotations" / "CLS-LOC" / "val").iterdir())[0]
    path.write_text(path.read_text().replace("<xmax>32</xmax>", "<xmax>75</xmax>"))


def _lists_corner(root: Path) -> None:
    path = root / "metadata" / "CUB" / "test" / "localization.txt"
    path.write_text(path.read_text().replace("test/c0/0.jpg,3,3,20,30", "test/c0/0.jpg,3,-3,75,30"))


def _csv_corner(root: Path) -> None:
    _replace(root / "boxes.csv", "test/dog/photo, 0.png,3,3,20,30", "test/dog/photo, 0.png,-3,3,75,30")


def _cub_corner(root: Path) -> None:
    _replace(root / "bounding_boxes.txt", "\n18 10.0 5.0 29.0", "\n18 10.0 5.0 65.0")


LAYOUTS_BEYOND: dict[str, Callable[[Path], None]] = {
    "cub": _cub_corner,
    "folder": _csv_corner,
    "ilsvrc": _xml_corner,
    "wsoleval CUB": _lists_corner,
}


@pytest.mark.parametrize("layout", LAYOUTS_BEYOND)
def test_every_reader_lets_boxes_reach_beyond_and_check_remarks_it(layout: str, tmp_path: Path, capsys: Any) -> None:
    name, make = LAYOUTS[layout]
    root, settings = make(tmp_path / "data")
    LAYOUTS_BEYOND[layout](root)
    pairs = [f"{key}={value}" for key, value in settings.items()]
    out = tmp_path / "check"
    assert cli.main(["data", "check", name, "--root", str(root), "--set", *pairs, "--out", str(out)]) == 0
    found = json.loads((out / "check.json").read_text())
    told = [line for line in found["remarks"] if "beyond the photo" in line]
    assert len(told) == 1
    assert "by 15 pixels" in told[0]
    assert f"remark: {told[0]}" in capsys.readouterr().out
    dataset = data.read(name, root, settings)
    for split in (dataset.splits["val"], dataset.splits["test"]):
        for boxes in _examined(split).values():
            assert np.array(boxes).min() >= 0
            assert (np.array(boxes)[:, 2:] <= (59, 47)).all()


def _xml_outside(root: Path) -> None:
    for path in (root / "Annotations" / "CLS-LOC" / "val").iterdir():
        _replace(path, "<xmin>20</xmin><ymin>4</ymin><xmax>50<", "<xmin>61</xmin><ymin>4</ymin><xmax>70<")


NOTHING_LEFT: dict[str, tuple[Callable[[Path], None], str]] = {
    "cub": (
        lambda root: _replace(root / "bounding_boxes.txt", "\n18 10.0 5.0 29.0", "\n18 60.0 5.0 29.0"),
        r"bounding_boxes.txt:18: 003.*_18.jpg: box \[60.0, 5.0, 89.0, 44.0\] lies outside the 60x48 photo: nothing",
    ),
    "wsoleval CUB": (
        lambda root: _replace(
            root / "metadata" / "CUB" / "test" / "localization.txt",
            "test/c0/1.jpg,30,20,49,35",
            "test/c0/1.jpg,30,-9,49,-1",
        ),
        r"localization.txt:4: test/c0/1.jpg: box \[30.0, -9.0, 49.0, -1.0\] lies outside the 60x48 photo",
    ),
    "ilsvrc": (
        _xml_outside,
        r"val_\d+_\d.xml: val/ILSVRC2012_val_.*JPEG: box \[61.0, 4.0, 70.0, 48.0\] lies outside the 60x48 photo",
    ),
}


@pytest.mark.parametrize("layout", NOTHING_LEFT)
def test_a_box_of_which_nothing_is_left_is_an_error_by_file_and_line(layout: str, tmp_path: Path) -> None:
    name, make = LAYOUTS[layout]
    root, settings = make(tmp_path / "data")
    spoil, message = NOTHING_LEFT[layout]
    spoil(root)
    dataset = data.read(name, root, settings)
    with pytest.raises(InputError, match=message):
        cache.build(dataset, tmp_path / "cache", Frame(48, 48))


def test_boxes_drawn_at_another_size_are_scaled_before_they_are_clipped(tmp_path: Path) -> None:
    root, settings = LAYOUTS["ilsvrc"][1](tmp_path)
    path = sorted((root / "Annotations" / "CLS-LOC" / "val").iterdir())[0]
    text = path.read_text().replace("<width>60</width><height>48</height>", "<width>120</width><height>96</height>")
    path.write_text(text.replace("<xmax>32</xmax>", "<xmax>125</xmax>"))
    test = data.read("ilsvrc", root, settings).splits["test"]
    index = [Path(name).stem for name in test.ids].index(path.stem)
    found = examined(test, index, scored=True)
    assert found.boxes.tolist() == [[1, 2, 59, 24], [10, 2, 25, 24]]
    assert found.overhang.pixels == 2.5


def test_tiny_imagenets_photos_at_another_size_have_their_boxes_scaled(photos: Path) -> None:
    photo(photos / "val" / "images" / "val_0.JPEG", 1, (128, 128))  # the annotations are of 64 x 64
    text = (photos / "val" / "val_annotations.txt").read_text()
    (photos / "val" / "val_annotations.txt").write_text(
        text.replace("val_1.JPEG\tn01443537\t5", "val_1.JPEG\tn01443537\t-4")
    )
    test = data.read("tiny_imagenet", photos, {}).splits["test"]
    assert examined(test, 0, scored=True).boxes.tolist() == [[10, 12, 100, 102]]
    assert examined(test, 1, scored=True).boxes.tolist() == [[0, 6, 50, 52]]
    assert examined(test, 1, scored=True).overhang.pixels == 4


def test_the_worst_of_several_boxes_is_named() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, 14, 9], [-9, 0, 5, 9]], dtype=np.float64)
    clipped, found = clipping.clip(boxes, (10, 10), ["a:1", "a:2", "a:3"])
    assert clipped.tolist() == [[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 5, 9]]
    assert (found.boxes, found.beyond, found.pixels, found.where) == (3, 2, 9, "a:3")
    with pytest.raises(InputError, match=r"a:2: box .* lies outside the 10x10 photo"):
        clipping.clip(np.array([[0, 0, 9, 9], [0, 10, 9, 12]], dtype=np.float64), (10, 10), ["a:1", "a:2"])
    with pytest.raises(InputError, match="a:1: box .*: expected x0 <= x1"):
        clipping.clip(np.array([[np.nan, 0, 9, 9]]), (10, 10), ["a:1"])


def test_a_size_that_is_swapped_in_the_lists_is_told(tmp_path: Path) -> None:
    root, settings = LAYOUTS["wsoleval CUB"][1](tmp_path)
    _replace(root / "metadata" / "CUB" / "test" / "image_sizes.txt", "test/c0/1.jpg,60,48", "test/c0/1.jpg,48,60")
    test = data.read("wsoleval", root, settings).splits["test"]
    with pytest.raises(InputError, match=r"test/c0/1.jpg: is 60x48, .* at 48x60: .*width and height swapped"):
        examined(test, 1, scored=True)


@pytest.mark.skipif(CUB_20 is None or LISTS is None, reason="needs EIL_CUB_20 and EIL_WSOL_METADATA")
def test_the_boxes_of_real_photos_are_the_benchmarks() -> None:
    dataset = data.read("cub", Path(str(CUB_20)), {"held_out": 29})  # of 30, so that nearly every photo has its box
    listed = {name: wsoleval.lists(Path(str(LISTS)) / "CUB" / name) for name in ("train", "test")}
    wanted: dict[str, list[list[float]]] = {}
    for each in listed.values():
        assert each.boxes is not None
        wanted |= {name: own.tolist() for name, own in zip(each.ids, each.boxes, strict=True)}
    for name in ("val", "test"):
        found = _examined(dataset.splits[name])
        assert found == {key: wanted[key] for key in found}
    assert set(dataset.splits["test"].ids) == {
        name for name in listed["test"].ids if Path(name).parent.name in dataset.classes
    }


@pytest.mark.skipif(CUB_20 is None, reason="needs EIL_CUB_20")
def test_real_photos_are_checked_readably(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["data", "check", "cub", "--root", str(CUB_20), "--out", str(tmp_path / "check")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("cub: 20 of 200 classes")
    assert printed[2] == "600 official training photos, of which 100 are held out as val; 585 test photos"
    assert sum("EXIF" in line for line in printed) == 1
    assert any("remark: 2 of 685 boxes reach beyond the photo" in line and "by 5 pixels" in line for line in printed)
    assert len(printed) < 12
