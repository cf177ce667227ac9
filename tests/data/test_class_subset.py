"""Ids are looked up, a part of a data set is chosen by name or id, and every place says that it is a part."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from miniatures import LAYOUTS, cub, ilsvrc, photo, wsoleval_cub

from eil import data
from eil.commands import cli
from eil.core.files import InputError
from eil.core.metric_definitions import MAIN, METRICS, SELECTION
from eil.core.records import Record, Score
from eil.data import class_subset
from eil.report import configurations, main_table, notes, provenance_tables
from eil.report.notes import Notes
from eil.study.study import Study, load, parse

CUB_20, LISTS = os.environ.get("EIL_CUB_20"), os.environ.get("EIL_WSOL_METADATA")
IDS = {"1": "40", "2": "7", "3": "112"}  # of the miniature's classes
CLASSES = ("003.Black_footed_Bird", "001.Black_footed_Bird", "002.Black_footed_Bird")


@pytest.fixture
def gaps(tmp_path: Path) -> Path:
    """CUB in small, class ids and image ids with gaps and in another order in each list."""
    root, _ = cub(tmp_path)
    for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes"):
        path = root / f"{name}.txt"
        lines = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
        found = [f"{1000 - 7 * int(number)} {rest}" for number, rest in lines]
        if name == "image_class_labels":
            found = [f"{line.split()[0]} {IDS[line.split()[1]]}" for line in found]
        path.write_text("\n".join(found if name == "images" else reversed(found)) + "\n")
    names = {name[:3].lstrip("0"): name for name in CLASSES}
    (root / "classes.txt").write_text("".join(f"{IDS[number]} {names[number]}\n" for number in ("3", "1", "2")))
    return root


def test_ids_are_looked_up(gaps: Path) -> None:
    dataset = data.read("cub", gaps, {"held_out": 1})
    assert dataset.classes == CLASSES
    assert dataset.class_ids == ("112", "40", "7")
    for split in dataset.splits.values():
        assert [dataset.classes[label] for label in split.labels] == [name.split("/")[0] for name in split.ids]
    assert {name: len(split.ids) for name, split in dataset.splits.items()} == {"train": 9, "val": 3, "test": 6}
    assert dataset.splits["test"].boxes[0].tolist() == [[10, 5, 39, 44]]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("image_class_labels", "5 40", r"image_class_labels.txt:19: image 5 is not in .*images.txt"),
        ("train_test_split", "5 1", r"train_test_split.txt:19: image 5 is not in .*images.txt"),
        ("bounding_boxes", "5 1 1 9 9", r"bounding_boxes.txt:19: image 5 is not in .*images.txt"),
        ("images", "5 x/a.jpg", r"image_class_labels.txt: has no line for image 5, x/a.jpg \(.*images.txt:19\)"),
    ],
)
def test_an_image_id_without_an_image_is_named(gaps: Path, name: str, line: str, message: str) -> None:
    with (gaps / f"{name}.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message):
        data.read("cub", gaps, {})


def test_a_class_id_without_a_class_is_named(gaps: Path) -> None:
    path = gaps / "image_class_labels.txt"
    lines = path.read_text().splitlines()
    lines[3] = f"{lines[3].split()[0]} 41"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"image_class_labels.txt:4: class 41 is not in .*classes.txt"):
        data.read("cub", gaps, {})


def test_labels_of_the_benchmarks_lists_may_have_gaps(tmp_path: Path) -> None:
    root, settings = wsoleval_cub(tmp_path)
    whole = data.read("wsoleval", root, settings)
    new = {"0": "3", "1": "180", "2": "199"}
    for split in ("train", "val", "test"):
        path = root / "metadata" / "CUB" / split / "class_labels.txt"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(f"{name},{new[label]}" for name, label in lines))
    found = data.read("wsoleval", root, settings)
    assert found.classes == whole.classes
    for split in ("train", "val", "test"):
        assert found.splits[split].labels.tolist() == whole.splits[split].labels.tolist()
    path.write_text(path.read_text().replace("test/c1/0.jpg,180", "test/c1/0.jpg,181"))
    with pytest.raises(InputError, match=r"test/class_labels.txt:3: label 181: no training photo has it"):
        data.read("wsoleval", root, settings)


def test_wordnet_ids_are_looked_up(photos: Path) -> None:
    listing = photos / "val" / "val_annotations.txt"
    (photos / "wnids.txt").write_text("n01641577\nn01443537\n")  # two of three, in another order
    dataset = data.read("tiny_imagenet", photos, {})
    assert dataset.class_ids == ("n01641577", "n01443537")
    assert dataset.splits["test"].ids == [f"val/images/val_{k}.JPEG" for k in (0, 1, 4, 5)]
    assert dataset.splits["test"].labels.tolist() == [1, 1, 0, 0]
    assert len(dataset.remarks) == 1
    assert dataset.remarks[0].startswith(f"2 photos of {listing} are of classes that wnids.txt does not have")
    listing.write_text(listing.read_text().replace("val_3.JPEG\tn01629819", "val_3.JPEG\tn01629818"))
    with pytest.raises(InputError, match=r"val_annotations.txt:4: class 'n01629818' is neither in wnids.txt"):
        data.read("tiny_imagenet", photos, {})
    (photos / "wnids.txt").write_text("n01641577\nn01443537\nn01641577\n")
    with pytest.raises(InputError, match=r"wnids.txt:3: n01641577 stands in line 1 too"):
        data.read("tiny_imagenet", photos, {})


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (["003.Black_footed_Bird", "001.Black_footed_Bird"], (0, 1)),
        (["002.Black_footed_Bird", "003.Black_footed_Bird"], (0, 2)),  # in the data set's order
        ([7, 40], (1, 2)),
        (["112", "007"], (0, 2)),
        ([40, "003.Black_footed_Bird", "7"], (0, 1, 2)),
    ],
)
def test_classes_are_kept_by_name_or_id(gaps: Path, wanted: list[Any], kept: tuple[int, ...]) -> None:
    whole = data.read("cub", gaps, {"held_out": 1})
    found = data.read("cub", gaps, {"held_out": 1, "classes": wanted})
    assert found.classes == tuple(CLASSES[k] for k in kept)
    assert found.class_ids == tuple(whole.class_ids[k] for k in kept)
    assert found.whole_classes == 200
    for name, split in found.splits.items():
        every = whole.splits[name]
        ids = [image for image, label in zip(every.ids, every.labels, strict=True) if label in kept]
        assert list(split.ids) == ids
        assert [found.classes[label] for label in split.labels] == [image.split("/")[0] for image in ids]
        assert sorted(set(split.labels.tolist())) == list(range(len(kept)))


def test_a_list_of_all_classes_that_have_photos_labels_them_anew(gaps: Path) -> None:
    (gaps / "classes.txt").write_text("5 005.None\n" + (gaps / "classes.txt").read_text())
    with pytest.raises(InputError, match="split train has no image of class 005.None"):
        data.read("cub", gaps, {"held_out": 1})
    found = data.read("cub", gaps, {"held_out": 1, "classes": [112, 40, 7]})
    assert found.classes == CLASSES
    assert set(found.splits["test"].labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["Black_footed_Bird", 7], r"dataset.classes\[0\] = Black_footed_Bird: cub has no such class; closest: 00"),
        ([7, 41], r"dataset.classes\[1\] = 41: cub has no such class; it has 3: 112, 40, 7"),
        ([7, "002.Black_footed_Bird"], r"dataset.classes\[1\] = 002.Black_footed_Bird: is the same class as 7"),
        ([7], "dataset.classes = .7.: expected a number of classes, or a list of their names or ids, 2 or more"),
        (1, "dataset.classes = 1: expected a number of classes, or a list"),
        ([True, 7], "dataset.classes = .*: expected a number of classes, or a list"),
        ("abc", "dataset.classes = 'abc': expected a number of classes, or a list"),
        (4, "dataset.classes = 4: cub has 3"),
    ],
)
def test_classes_that_are_not_there_are_named(gaps: Path, wanted: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.read("cub", gaps, {"held_out": 1, "classes": wanted})


def test_one_name_of_two_classes_is_told_apart_by_its_id(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)  # crane, the bird and the machine, have one name in ImageNet
    (root.parent / "LOC_synset_mapping.txt").write_text("n01440764 crane\nn01443537 crane\nn01484850 shark\n")
    with pytest.raises(InputError, match="2 classes have this name; their ids: n01440764, n01443537"):
        data.read("ilsvrc", root, settings | {"classes": ["crane", "shark"]})
    found = data.read("ilsvrc", root, settings | {"classes": ["n01443537", "shark"]})
    assert found.class_ids == ("n01443537", "n01484850")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_a_part_by_name(layout: str, tmp_path: Path) -> None:
    name, make = LAYOUTS[layout]
    root, settings = make(tmp_path)
    whole = data.read(name, root, settings)
    found = data.read(name, root, settings | {"classes": [whole.classes[2], whole.classes[0]]})
    assert found.classes == (whole.classes[0], whole.classes[2])
    assert set(found.splits["test"].labels.tolist()) == {0, 1}
    assert found.whole_classes == {
        "folder": 3,
        "ilsvrc": 1000,
        "wsoleval ILSVRC": 1000,
        "wsoleval OpenImages": 100,
    }.get(layout, 200)


def test_drawn_birds_have_a_part_by_name_too() -> None:
    found = data.read("birds", None, {"classes": ["bird 09", "bird 02"], "train_per_class": 2})
    assert (found.classes, found.whole_classes) == (("bird 02", "bird 09"), 10)
    np.testing.assert_array_equal(
        found.splits["train"].image(3), data.read("birds", None, {"train_per_class": 2}).splits["train"].image(17)
    )
    assert data.read("birds", None, {"classes": 5}).whole_classes == 5  # as many as asked for are drawn: no part


# CUBV2


@pytest.fixture
def cubv2(gaps: Path, tmp_path: Path) -> dict[str, str]:
    """CUBV2 in small beside :func:`gaps`: labels are positions among all classes, from 0."""
    lists = tmp_path / "metadata" / "CUB" / "val"
    lists.mkdir(parents=True)
    images = [
        ("001.Black_footed_Bird", 39),
        ("002.Black_footed_Bird", 6),
        ("003.Black_footed_Bird", 111),
        ("150.Other", 149),
    ]
    names = [f"{name}/{k}.jpg" for name, _ in images for k in range(2)]
    for k, name in enumerate(names):
        photo(tmp_path / "CUBV2" / name, 100 + k)
    text = {
        "image_ids": names,
        "class_labels": [f"{name}/{k}.jpg,{label}" for name, label in images for k in range(2)],
        "image_sizes": [f"{name},60,48" for name in names],
        "localization": [f"{name},{k},3,20,30" for k, name in enumerate(names)],
    }
    for key, lines in text.items():
        (lists / f"{key}.txt").write_text("\n".join(lines))
    return {"cubv2": str(tmp_path / "CUBV2"), "cubv2_lists": str(lists)}


def test_cubv2s_images_are_matched_by_their_folder(gaps: Path, cubv2: dict[str, str]) -> None:
    dataset = data.read("cub", gaps, cubv2)
    val = dataset.splits["val"]
    assert [dataset.classes[label] for label in val.labels] == [name.split("/")[0] for name in val.ids]
    assert [boxes.tolist() for boxes in val.boxes] == [[[k, 3, 20, 30]] for k in range(6)]
    assert dataset.remarks == ("2 of CUBV2's 8 images are of other classes and were left out",)
    assert len(dataset.splits["train"].ids) == 12
    part_of_it = data.read("cub", gaps, cubv2 | {"classes": [7, 40]})
    assert [part_of_it.classes[label][:3] for label in part_of_it.splits["val"].labels] == ["001", "001", "002", "002"]


def test_cubv2s_labels_must_be_those_of_the_folders(gaps: Path, cubv2: dict[str, str]) -> None:
    path = Path(cubv2["cubv2_lists"]) / "class_labels.txt"
    path.write_text(path.read_text().replace("002.Black_footed_Bird/1.jpg,6", "002.Black_footed_Bird/1.jpg,7"))
    with pytest.raises(InputError, match=r"class_labels.txt:4: label 7, but class 002.Black_footed_Bird is number 6"):
        data.read("cub", gaps, cubv2)


def test_lists_of_other_classes_alone_are_refused(gaps: Path, cubv2: dict[str, str]) -> None:
    for path in Path(cubv2["cubv2_lists"]).iterdir():
        path.write_text(path.read_text().replace("00", "10"))
    with pytest.raises(InputError, match=r"image_ids.txt: 101.Black_footed_Bird/0.jpg and all others are of none"):
        data.read("cub", gaps, cubv2)


@pytest.mark.skipif(CUB_20 is None or LISTS is None, reason="needs EIL_CUB_20 and EIL_WSOL_METADATA")
def test_real_lists_of_cubv2_fit_20_classes(tmp_path: Path) -> None:
    lists = Path(str(LISTS)) / "CUB" / "val"
    dataset = data.read("cub", Path(str(CUB_20)), {"cubv2": str(tmp_path), "cubv2_lists": str(lists)})
    assert len(dataset.splits["val"].ids) == 100
    assert np.bincount(dataset.splits["val"].labels).tolist() == [5] * 20
    assert dataset.remarks == ("900 of CUBV2's 1000 images are of other classes and were left out",)


# who says that it is a part


def test_check_and_plan_say_that_it_is_a_part(gaps: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "check"
    pairs = ["held_out=1", 'classes=[40, "002.Black_footed_Bird"]']
    assert cli.main(["data", "check", "cub", "--root", str(gaps), "--set", *pairs, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("cub: 2 of 200 classes")
    assert printed[1] == "classes by name (id), 2: 001.Black_footed_Bird (40), 002.Black_footed_Bird (7)"
    assert printed[2] == "8 official training photos, of which 2 are held out as val; 4 test photos"
    assert json.loads((out / "check.json").read_text())["whole_classes"] == 200
    content = {
        "name": "s",
        "dataset": {"name": "cub", "root": str(gaps), "held_out": 1, "classes": [40, 7]},
        "backbones": ["vgg_small"],
        "methods": ["cam"],
        "controls": [],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    assert cli.main(["plan", str(tmp_path / "s.yaml"), "--rates"]) == 0
    assert "6 + 2 + 4 images of 2 of 200 classes" in capsys.readouterr().out
    assert cli.main(["plan", str(tmp_path / "s.yaml"), "--rates", "--images", "6", "2", "4", "--classes", "2"]) == 0
    assert "6 + 2 + 4 images of 2 classes\n" in capsys.readouterr().out
    assert cli.main(["prepare", str(tmp_path / "s.yaml"), "--data", str(tmp_path / "data")]) == 0
    (found,) = (tmp_path / "data").glob("*/dataset.json")
    assert json.loads(found.read_text())["whole_classes"] == 200
    assert len(found.parent.name) < 40


def _study(**dataset: Any) -> Study:
    return parse(
        {
            "name": "s",
            "dataset": {"name": "cub", **dataset},
            "backbones": {"vgg16": {"pretrained": True}},
            "methods": {"cam": {"preset": "wsoleval-tuned", "layout": "wsoleval"}},
            "controls": [],
            "protocols": ["wsoleval-v2"],
            "seeds": 1,
        },
        "s",
    )


def _record(study: Study, **provenance: Any) -> Record:
    (run,) = study.runs()
    scores = [
        Score(
            split=key.split,
            protocol="wsoleval-v2",
            threshold_from=key.threshold_from or METRICS[key.metric].threshold_from or "oracle",
            metric=key.metric,
            value=50.0,
        )
        for key in (*MAIN, SELECTION)
    ]
    return Record(
        run=run,
        key=run.key,
        status="done",
        scores=scores,
        protocol="wsoleval-v2",
        threshold_from={"wsoleval-v2": "oracle"},
        curves={},
        provenance={"images": 5794, **provenance},
    )


def test_tables_say_that_it_is_a_part_and_stay_short() -> None:
    names = [f"{k:03d}.A_bird_with_a_long_name" for k in range(1, 101)]
    study = _study(classes=names, train_per_class=9)
    found = notes._of_the_data(study, [_record(study, classes=100, whole_classes=200)])
    assert found == ["data: cub, a part of it: 100 of 200 classes, train_per_class = 9"]
    assert notes._of_the_data(study, []) == ["data: cub, classes = 100 by name, train_per_class = 9"]
    rows = provenance_tables.settings(study, study.runs()).rows
    assert ["dataset.classes", f"100: {', '.join(names[:3])}, …", "all"] in rows
    assert len(study.runs()[0].name) < 40
    whole = _study()
    assert notes._of_the_data(whole, [_record(whole, classes=200, whole_classes=200)]) == []
    # a folder that holds some classes alone
    assert notes._of_the_data(whole, [_record(whole, classes=20, whole_classes=200)]) == [
        "data: cub, a part of it: 20 of 200 classes"
    ]


def test_published_scores_stand_beside_no_part() -> None:
    def published(study: Study, **provenance: Any) -> bool:
        found = configurations.group([_record(study, **provenance)])
        return any("published" in name for name in main_table.main_table(study, found, Notes()).header)

    assert published(_study())
    assert not published(_study(), images=585)  # a folder of 20 classes
    assert not published(_study(classes=["004.Groove_billed_Ani", "009.Brewer_Blackbird"]))
    assert not published(_study(classes=20))


def test_a_long_list_is_shortened() -> None:
    assert class_subset.abbreviated(["a", "b"]) == "2: a, b"
    assert class_subset.abbreviated([1, 2, 3, 4]) == "4: 1, 2, 3, …"
    assert class_subset.describe_count(20, 200) == "20 of 200 classes"
    assert class_subset.describe_count(200, 200) == class_subset.describe_count(200, None) == "200 classes"


def test_the_shipped_study_names_the_classes_of_the_real_folder() -> None:
    study = load(Path(__file__).parents[2] / "workflow" / "config" / "cub_20.yaml")
    assert len(study.dataset.settings["classes"]) == 20
    if CUB_20 is not None:
        dataset = data.read("cub", Path(CUB_20), study.dataset.settings)
        assert dataset.classes == tuple(study.dataset.settings["classes"])
        assert [len(split.ids) for split in dataset.splits.values()] == [500, 100, 585]
