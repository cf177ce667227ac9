"""Every layout's reader, on its miniature: what is read, checked, trained on and evaluated; and what is refused."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from miniatures import (
    LAYOUTS,
    cub,
    examined,
    folder,
    ilsvrc,
    mask,
    photo,
    wsoleval_cub,
    wsoleval_ilsvrc,
    wsoleval_openimages,
)

from eil import data
from eil.commands import cli
from eil.core import records
from eil.core.files import InputError
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Run
from eil.data import cache, check, decode
from eil.data.geometry import Frame
from eil.data.readers import wsoleval
from eil.study.study import parse

LISTS = os.environ.get("EIL_WSOL_METADATA")
Layout = tuple[str, Path, dict[str, Any]]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    name, make = LAYOUTS[request.param]
    return name, *make(tmp_path / "data")


def test_every_layout_has_three_splits_without_training_boxes(layout: Layout) -> None:
    dataset = data.read(*layout)
    assert [len(split.ids) for split in dataset.splits.values()] == [2 * 3 if layout[0] == "folder" else 3 * 3, 3, 6]
    for name, split in dataset.splits.items():
        assert sorted(set(split.labels.tolist())) == [0, 1, 2]
        assert all(split.image(i).shape == (48, 60, 3) for i in range(len(split.ids)))
        assert all(len(own) == 0 for own in split.boxes) == (
            name == "train" or layout[2].get("benchmark") == "OpenImages"
        )
    assert not set(dataset.splits["train"].ids) & set(dataset.splits["val"].ids)


def test_every_layout_is_checked_trained_and_evaluated(layout: Layout, tmp_path: Path, capsys: Any) -> None:
    name, root, settings = layout
    pairs = [f"{key}={value}" for key, value in settings.items()]
    assert (
        cli.main(["data", "check", name, "--root", str(root), "--set", *pairs, "--out", str(tmp_path / "check")]) == 0
    )
    printed = capsys.readouterr().out
    assert "no problems" in printed
    assert "test: 6 images, 2 to 2 a class, median object" in printed
    assert (tmp_path / "check" / "sheet.png").stat().st_size > 1000
    study = {
        "name": "mini",
        "dataset": {"name": name, "root": str(root), **settings},
        "backbones": ["vgg_small"],
        "methods": ["cam"],
        "controls": ["oracle_box"],
        "seeds": 1,
        "recipe": {"epochs": 1, "batch_size": 4, "resize": 36, "crop": 32},
    }
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(study))
    where = ["--results", str(tmp_path / "results"), "--data", str(tmp_path / "cache")]
    for step in ("prepare", "train", "localize", "evaluate"):
        run = [] if step == "prepare" else ["vgg_small-cam-seed0"]
        assert cli.main([step, str(tmp_path / "mini.yaml"), *run, *where]) == 0
    for step in ("localize", "evaluate"):
        assert cli.main([step, str(tmp_path / "mini.yaml"), "vgg_small-cam-oracle_box-seed0", *where]) == 0
    runs = tmp_path / "results" / "runs"
    record = records.read(runs / "vgg_small-cam-seed0" / "record.json")
    assert record.provenance["data_sha256"] == json.loads((tmp_path / "check" / "check.json").read_text())["sha256"]
    assert record.run.dataset.name == name
    with_masks = settings.get("benchmark") == "OpenImages" or name == "cub"
    assert (record.value(ScoreKey("px_ap")) is not None) == with_masks
    oracle = records.read(runs / "vgg_small-cam-oracle_box-seed0" / "record.json")
    assert oracle.value(ScoreKey("gt_known_loc")) == 100


def test_cub_boxes_are_the_benchmarks(tmp_path: Path) -> None:
    root, settings = cub(tmp_path)
    dataset = data.read("cub", root, settings)
    assert dataset.splits["test"].boxes[0].tolist() == [[10, 5, 39, 44]]  # x + width, y + height
    assert dataset.classes[1] == "002.Black_footed_Bird"
    assert dataset.splits["val"].ids[0].endswith("_0003_4.jpg")  # the last training photo of the first class
    found = dataset.splits["test"].mask(0)
    assert found is not None
    assert decode.boxes_of_mask(found).tolist() == [[10, 5, 39, 44]]
    shutil.rmtree(root / "segmentations")
    assert data.read("cub", root.parent, settings).splits["test"].masks is None  # the folder above will do


def test_a_box_that_ends_one_pixel_beyond_is_kept_inside(tmp_path: Path) -> None:
    root, _ = cub(tmp_path)
    text = (root / "train_test_split.txt").read_text().replace("\n2 1\n", "\n2 0\n")
    (root / "train_test_split.txt").write_text(text)
    test = data.read("cub", root, {"held_out": 1}).splits["test"]
    assert test.boxes[0].tolist() == [[10, 5, 60, 44]]  # of 60 columns
    assert examined(test, 0, scored=True).boxes.tolist() == [[10, 5, 59, 44]]


def test_boxes_of_training_photos_are_never_read(tmp_path: Path) -> None:
    root, settings = cub(tmp_path)
    _replace(root / "bounding_boxes.txt", "\n3 10.0 5.0 29.0 39.0", "\n3 10.0 5.0 0.0 0.0")  # a training photo
    assert not len(data.read("cub", root, settings).splits["train"].boxes[2])


def test_boxes_drawn_at_another_size_are_scaled_and_another_photo_is_found_out(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    path = next((root / "Annotations" / "CLS-LOC" / "val").iterdir())
    _replace(path, "<width>60</width><height>48</height>", "<width>120</width><height>96</height>")
    test = data.read("ilsvrc", root, settings).splits["test"]
    index = [Path(name).stem for name in test.ids].index(path.stem)
    assert examined(test, index, scored=True).boxes.tolist() == [
        [1, 2, 16, 24],
        [10, 2, 25, 24],
    ]
    _replace(path, "<width>120</width>", "<width>96</width>")
    test = data.read("ilsvrc", root, settings).splits["test"]
    with pytest.raises(
        InputError, match=r"val_.*JPEG: is 60x48, but its boxes were drawn at 96x96: is it another photo"
    ):
        examined(test, index, scored=True)


def test_imagenetv2_in_another_order_is_found_out(tmp_path: Path) -> None:
    root, settings = wsoleval_ilsvrc(tmp_path)
    photo(root / "ILSVRC" / "val2" / "0" / "0.jpeg", 5, (48, 60))
    found = check.check_dataset(data.read("wsoleval", root, settings))
    assert found["problems"] == [
        "val: val2/0/0.jpeg: is 48x60, but its boxes were drawn at 60x48: is it another photo, or are width and height "
        "swapped in the list of sizes?"
    ]


def test_ilsvrc_annotations_with_breeds_and_other_classes(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    folder_ = root / "Annotations" / "CLS-LOC" / "train" / "n01440764"
    one, two, three = (folder_ / f"n01440764_{k}.xml" for k in (1, 2, 3))
    three.write_text(three.read_text().replace("<name>n01440764</name>", "<name>n01443537</name>"))  # another class
    two.write_text(two.read_text().replace("<name>n01440764</name>", "<name>Scottish_deerhound</name>", 1))
    val = data.read("ilsvrc", root, settings).splits["val"]
    assert val.ids[0] == "train/n01440764/n01440764_2.JPEG"  # the last one has no box of its class
    assert val.labels[0] == 0
    assert len(val.boxes[0]) == 2
    two.write_text(two.read_text().replace("<xmin>2</xmin>", "<xmin>40</xmin>"))  # ends before it begins
    assert data.read("ilsvrc", root, settings).splits["val"].boxes[0].tolist() == [[20, 4, 50, 48]]
    assert one.exists()


def test_masks_that_overlap_keep_their_boxes_and_blank_ones_are_found_out(tmp_path: Path) -> None:
    root, settings = wsoleval_openimages(tmp_path)
    stem = root / "OpenImages" / "test" / "c0"
    mask(stem / "0_m1.png", (3, 3, 10, 10))
    mask(stem / "0_m2.png", (3, 3, 20, 30))
    test = data.read("wsoleval", root, settings).splits["test"]
    assert examined(test, 0, scored=True).boxes.tolist() == [
        [3, 3, 10, 10],
        [3, 3, 20, 30],
    ]
    for k in (1, 2):
        mask(stem / f"0_m{k}.png", (0, 0, -1, -1))
    found = check.check_dataset(data.read("wsoleval", root, settings))
    assert found["problems"] == ["test: test/c0/0.jpg: its mask shows no object"]


def test_other_photos_have_another_cache_and_the_same_ones_elsewhere_the_same_key(tmp_path: Path) -> None:
    def run(root: str, **settings: str) -> Run:
        content = {"name": "s", "dataset": {"name": "cub", "root": root, **settings}, "backbones": ["vgg_small"]}
        return parse(content | {"methods": ["cam"]}, "s").runs()[0]

    one, two = run("/a", cubv2="/a/v2"), run("/b", cubv2="/b/v2")
    assert one.cache != two.cache
    assert one.key == two.key
    assert run("/a").key != one.key


def test_drawn_images_have_one_cache_wherever_photos_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    def cached() -> str:
        content = {"name": "s", "dataset": {"name": "birds"}, "backbones": ["vgg_small"], "methods": ["cam"]}
        return parse(content, "s").runs()[0].cache

    monkeypatch.delenv("EIL_DATA", raising=False)
    before = cached()
    monkeypatch.setenv("EIL_DATA", "/photos")
    assert cached() == before


def test_cubv2_is_val_where_it_is_given(tmp_path: Path) -> None:
    root, _ = cub(tmp_path)
    lists, _ = wsoleval_cub(tmp_path / "lists")
    for path in (lists / "metadata" / "CUB" / "val").iterdir():  # a class is known by its folder, as in CUBV2
        path.write_text(re.sub(r"val/c(\d)/", lambda m: f"00{int(m[1]) + 1}.Black_footed_Bird/", path.read_text()))
    settings = {"cubv2": str(lists / "CUB"), "cubv2_lists": str(lists / "metadata" / "CUB" / "val")}
    splits = data.read("cub", root, settings).splits
    assert [len(split.ids) for split in splits.values()] == [12, 3, 6]
    assert splits["val"].ids[0] == "001.Black_footed_Bird/0.jpg"
    assert splits["val"].boxes[0].tolist() == [[3, 3, 20, 30], [30, 20, 49, 35]]


def test_openimages_masks_are_united_and_ignored_and_boxed(tmp_path: Path) -> None:
    root, settings = wsoleval_openimages(tmp_path)
    dataset = data.read("wsoleval", root, settings)
    found = dataset.splits["test"].mask(0)
    assert found is not None
    assert found.shape == (48, 60)
    assert {int(value): int((found == value).sum()) for value in np.unique(found)} == {
        0: 48 * 60 - 18 * 28 - 20 * 16 - 10 * 11,
        1: 18 * 28,
        2: 20 * 16,  # half the sides of the larger file's
        data.IGNORED: 10 * 11,
    }
    cache.build(dataset, tmp_path / "cache", Frame(30, 30))
    test = cache.open_split(tmp_path / "cache", "test")
    assert test.boxes[0].tolist() == [[1, 1, 10, 18], [15, 12, 24, 21]]  # truncated at half and 5/8 of the size
    assert test.masks is not None
    assert set(np.unique(test.masks[0])) == {0, 1, 2, data.IGNORED}
    assert dataset.name == "openimages"


def test_renamed_imagenetv2_is_explained(tmp_path: Path) -> None:
    root, settings = wsoleval_ilsvrc(tmp_path)
    for path in sorted((root / "ILSVRC" / "val2").glob("*/*.jpeg")):
        path.rename(path.with_name("5f3a2b.jpeg"))
    with pytest.raises(
        InputError, match=r"val2/0/0.jpeg: no such file, but 5f3a2b.jpeg is there: ImageNetV2 was released"
    ):
        data.read("wsoleval", root, settings)


def test_ilsvrc_takes_val_from_annotated_training_photos(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    dataset = data.read("ilsvrc", root, settings)
    assert dataset.classes == ("tench", "goldfish", "great white shark")
    assert dataset.splits["val"].ids[0] == "train/n01440764/n01440764_3.JPEG"
    test = dataset.splits["test"]
    assert test.boxes[0].tolist() == [[2, 4, 32, 48], [20, 4, 50, 48]]
    assert examined(test, 0, scored=True).boxes.tolist() == [
        [2, 4, 32, 47],
        [20, 4, 50, 47],
    ]  # 48 rows: 0 to 47
    with pytest.raises(InputError, match=r"train/n01440764: 3 annotated training photos, 4 are needed for val"):
        data.read("ilsvrc", root, {"held_out": 4})


def test_folder_without_boxes_stops_at_the_evaluation(tmp_path: Path, capsys: Any) -> None:
    root, settings = folder(tmp_path)
    (root / "boxes.csv").unlink()
    dataset = data.read("folder", root, settings)
    assert all(len(own) == 0 for split in dataset.splits.values() for own in split.boxes)
    assert check.check_dataset(dataset)["splits"]["test"]["median_object"] is None
    study = {
        "name": "bare",
        "dataset": {"name": "folder", "root": str(root), **settings},
        "backbones": ["vgg_small"],
        "methods": ["cam"],
        "controls": [],
        "seeds": 1,
        "recipe": {"epochs": 1, "batch_size": 4, "resize": 36, "crop": 32},
    }
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(study))
    where = ["--results", str(tmp_path / "results"), "--data", str(tmp_path / "cache")]
    assert cli.main(["prepare", str(tmp_path / "bare.yaml"), *where]) == 0
    for step, code in (("train", 0), ("localize", 0), ("evaluate", 1)):
        assert cli.main([step, str(tmp_path / "bare.yaml"), "vgg_small-cam-seed0", *where]) == code
    assert "has neither box nor mask and cannot be scored; its map is in maps.npz" in capsys.readouterr().err


def test_subsets_are_the_first_of_each_class(tmp_path: Path) -> None:
    root, settings = cub(tmp_path)
    whole = data.read("cub", root, settings).splits
    part = data.read("cub", root, settings | {"classes": 2, "images_per_class": 2, "test_per_class": 1})
    assert {name: len(split.ids) for name, split in part.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert part.splits["train"].ids == [whole["train"].ids[i] for i in (0, 1, 3, 4)]
    assert part.splits["train"].sources == [whole["train"].sources[i] for i in (0, 1, 3, 4)]
    assert len(part.classes) == 2
    with pytest.raises(InputError, match="dataset.classes = 4: cub has 3"):
        data.read("cub", root, settings | {"classes": 4})


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text().rstrip("\n") + "\n" + text)


def _cub_lines(name: str, line: str) -> Callable[[Path], None]:
    return lambda root: _append(root / name, line)


FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no such root": ("cub", shutil.rmtree, "cub: no images.txt.* name the unpacked CUB_200_2011"),
    "traversal": (
        "cub",
        _cub_lines("images.txt", "19 ../../etc/passwd"),
        r"images.txt:19: '../../etc/passwd': expected a path",
    ),
    "absolute": (
        "cub",
        _cub_lines("images.txt", "19 /etc/passwd"),
        r"images.txt:19: '/etc/passwd': expected a path below",
    ),
    "doubled": ("cub", _cub_lines("images.txt", "3 a.jpg"), r"images.txt:19: number 3 is listed twice"),
    "no label": (
        "cub",
        _cub_lines("images.txt", "19 a.jpg"),
        r"image_class_labels.txt: has no line for image 19, a.jpg",
    ),
    "a class too many": (
        "cub",
        lambda root: (root / "image_class_labels.txt").write_text(
            (root / "image_class_labels.txt").read_text().replace("\n18 3\n", "\n18 9\n")
        ),
        r"image_class_labels.txt:18: class 9 is not in .*classes.txt",
    ),
    "no area": (
        "cub",
        lambda root: (root / "bounding_boxes.txt").write_text(
            (root / "bounding_boxes.txt").read_text().replace("18 10.0 5.0 29.0", "18 10.0 5.0 0.0")
        ),
        r"bounding_boxes.txt:18: box 10.0 5.0 0.0 39.0: a box without an area",
    ),
    "latin1": (
        "cub",
        lambda root: (root / "classes.txt").write_bytes(b"1 a\n2 \xe9\n3 c\n"),
        r"classes.txt:2: not UTF-8",
    ),
    "a class without photos": (
        "folder",
        lambda root: [path.unlink() for path in (root / "train" / "dog").iterdir()],  # type: ignore[func-returns-value]
        r"train/dog: no photos",
    ),
    "a class in train alone": (
        "folder",
        lambda root: shutil.rmtree(root / "test" / "dog"),
        r"class dog is in one of train",
    ),
    "no box": (
        "folder",
        lambda root: photo(root / "test" / "dog" / "new.jpg", 1),
        r"boxes.csv: has no line for test/dog/new",
    ),
    "no photo": (
        "folder",
        lambda root: _append(root / "boxes.csv", "test/dog/x.jpg,1,2,3,4"),
        r"boxes.csv:32: no photo test/dog",
    ),
    "a wrong box": (
        "folder",
        lambda root: _append(root / "boxes.csv", "test/dog/photo, 1.JPG,9,2,3,4"),
        r"boxes.csv:32: box 9 2 3 4: expected x0 <= x1",
    ),
    "a loop of links": (
        "folder",
        lambda root: (root / "test" / "dog" / "a.jpg").symlink_to("a.jpg"),
        r"test/dog/a.jpg: not a file, or a broken link",
    ),
    "a photo without annotation": (
        "ilsvrc",
        lambda root: photo(root / "Data" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000099.JPEG", 1),
        r"ILSVRC2012_val_00000099.xml: not an annotation of ILSVRC",
    ),
    "broken XML": (
        "ilsvrc",
        lambda root: next((root / "Annotations" / "CLS-LOC" / "val").iterdir()).write_text("<annotation><object>"),
        r"val_.*.xml: not an annotation of ILSVRC",
    ),
    "a mask outside": (
        "wsoleval OpenImages",
        lambda root: _replace(
            root / "metadata" / "OpenImages" / "test" / "localization.txt", "test/c2/1_m2", "../../x"
        ),
        r"localization.txt: '../../x.png': expected a path below",
    ),
}


def _replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str, tmp_path: Path) -> None:
    layout, spoil, message = FAULTS[fault]
    name, make = LAYOUTS[layout]
    root, settings = make(tmp_path)
    spoil(root)
    with pytest.raises(InputError, match=message):
        data.read(name, root, settings)


def test_check_tells_everything_that_is_wrong(tmp_path: Path, capsys: Any) -> None:
    root, settings = folder(tmp_path / "data")
    photos = sorted((root / "test" / "dog").iterdir())
    shutil.copy(root / "train" / "dog" / "photo, 1.JPG", photos[0])  # the same photo in train and test
    (root / "test" / "a cat" / "photo, 1.JPG").write_bytes(b"")
    _replace(root / "boxes.csv", "test/émeu/photo, 0.png,3,3,20,30", "test/émeu/photo, 0.png,3,48,20,49")
    out = tmp_path / "check"
    arguments = ["data", "check", "folder", "--root", str(root), "--set", "held_out=1", "--out", str(out)]
    assert cli.main(arguments) == 1
    found = json.loads((out / "check.json").read_text())
    assert len(found["problems"]) == 3
    assert "photo, 1.JPG: is empty" in found["problems"][0]
    assert "photo, 0.png: box [3.0, 48.0, 20.0, 49.0] lies outside the 60x48 photo: nothing" in found["problems"][1]
    assert found["problems"][2].startswith("same content: train/dog/photo, 1.JPG of train and test/dog/photo")
    assert any(line.startswith("same look") for line in found["remarks"])
    assert found["sha256"] is None
    assert not (out / "sheet.png").exists()  # a photo that it would show cannot be decoded
    captured = capsys.readouterr()
    assert "problem: 2 images cannot be used; the first: test: " in captured.out
    assert "3 problems, all listed in" in captured.err
    assert cli.main(["data", "check", "folder", "--set", "held_out=["]) == 1
    assert "not KEY=VALUE in YAML" in capsys.readouterr().err
    assert settings == {"held_out": 1}


def test_near_copies_have_the_same_difference_hash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    brighter = np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)
    assert check.difference_hash(image) == check.difference_hash(brighter)
    assert check.difference_hash(image) != check.difference_hash(image[:, ::-1].copy())
    mask(tmp_path / "m.png", (0, 0, 1, 1))


@pytest.mark.skipif(LISTS is None, reason="needs EIL_WSOL_METADATA")
@pytest.mark.parametrize(
    ("where", "images", "boxes"),
    [
        ("CUB/train", 5994, 5994),
        ("CUB/val", 1000, 1000),
        ("CUB/test", 5794, 5794),
        ("ILSVRC/val", 10_000, 18_532),
        ("ILSVRC/test", 50_000, 80_477),
    ],
)
def test_the_benchmarks_real_lists_are_read_whole(where: str, images: int, boxes: int) -> None:
    found = wsoleval.lists(Path(str(LISTS)) / where)
    assert len(found.ids) == images
    assert found.boxes is not None
    assert sum(map(len, found.boxes)) == boxes


@pytest.mark.skipif(LISTS is None, reason="needs EIL_WSOL_METADATA")
@pytest.mark.parametrize(
    ("split", "images", "masks"), [("train", 29_819, None), ("val", 2500, 3854), ("test", 5000, 7632)]
)
def test_openimages_real_lists_are_read_whole(split: str, images: int, masks: int | None) -> None:
    found = wsoleval.lists(Path(str(LISTS)) / "OpenImages" / split, located=split != "train")
    assert len(found.ids) == images
    assert (sum(len(own) - 1 for own in found.masks) if found.masks is not None else None) == masks
