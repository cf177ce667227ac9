"""One's own photos: masks, COCO, PASCAL VOC and a CSV of labels, each in small, and what is wrong with each."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from miniatures import examined, mask, photo
from own_photos import CLASSES, SPLITS, coco_of, painted, photos_of, voc_of, xml_of
from PIL import Image as PILImage
from pycocotools import mask as pycocotools

from eil import data
from eil.commands import cli
from eil.core import records
from eil.core.files import InputError
from eil.core.metric_definitions import ScoreKey
from eil.data import IGNORED, Split
from eil.data.annotation_formats import coco, voc
from eil.data.annotation_formats.objects import Polygons, Rle


def boxes_of(split: Split) -> list[list[list[float]]]:
    return [examined(split, i, scored=True).boxes.tolist() for i in range(len(split.ids))]


# Masks


def test_a_folder_of_masks_makes_boxes(tmp_path: Path) -> None:
    for k, name in enumerate(photos_of(tmp_path)):
        mask(tmp_path / "masks" / Path(name).with_suffix(".png"), (5 + k, 6, 30, 40))
    mask(tmp_path / "masks" / "test" / "dog" / "other.png", (0, 0, 1, 1))
    dataset = data.read("folder", tmp_path, {})
    assert boxes_of(dataset.splits["test"]) == [[[7, 6, 30, 40]], [[8, 6, 30, 40]]]
    assert dataset.splits["train"].masks is None
    assert dataset.remarks == ("left out: 1 files in masks of no photo: masks/test/dog/other.png",)
    (tmp_path / "masks" / "val" / "dog" / "0.png").unlink()
    with pytest.raises(InputError, match="masks: has no mask for val/dog/0.jpg, of val or test"):
        data.read("folder", tmp_path, {})


def test_masks_beside_boxes_leave_the_boxes(tmp_path: Path) -> None:
    names = photos_of(tmp_path)
    for name in names:
        mask(tmp_path / "masks" / Path(name).with_suffix(".png"), (5, 6, 30, 40))
    (tmp_path / "boxes.csv").write_text(f"path,x0,y0,x1,y1\n{names[2]},1,2,3,4\n")
    test = data.read("folder", tmp_path, {}).splits["test"]
    assert boxes_of(test) == [[[1, 2, 3, 4]], [[5, 6, 30, 40]]]


def test_a_column_of_masks(tmp_path: Path) -> None:
    names = photos_of(tmp_path)
    mask(tmp_path / "m" / "a.png", (5, 6, 30, 40))
    mask(tmp_path / "m" / "b.png", (35, 6, 40, 40))
    lines = ["path,x0,y0,x1,y1,mask"]
    lines += [f"{name},,,,,m/{each}.png" for name in names[:3] for each in "ab"]
    lines += [f"{names[3]},1,2,9,10,m/a.png", f"{names[3]},11,12,13,14,m/a.png"]  # one mask of two boxes
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    test = data.read("folder", tmp_path, {}).splits["test"]
    assert boxes_of(test) == [[[5, 6, 30, 40], [35, 6, 40, 40]], [[1, 2, 9, 10], [11, 12, 13, 14]]]
    assert [int((np.asarray(test.mask(i)) > 0).sum()) for i in (0, 1)] == [26 * 35 + 6 * 35, 26 * 35]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("test/cat/0.jpg,1,2,3,4", r"boxes.csv:2: expected path, x0, y0, x1, y1, mask: found test"),
        ("test/cat/0.jpg,,,,,no.png", r"boxes.csv:2: no mask no.png"),
        ("test/cat/0.jpg,,,,,../a.png", r"boxes.csv:2: '../a.png': expected a path below"),
        ("test/cat/0.jpg,,,,,", r"boxes.csv:2: box    : expected four numbers"),
        ("test/cat/0.jpg,1,2,3,4,a.png\ntest/cat/0.jpg,1,2,3,4,", "test/cat/0.jpg: a mask for some of its lines"),
        ("test/cat/0.jpg,1,2,3,4,a.png\ntest/cat/0.jpg,,,,,a.png", "test/cat/0.jpg: corners for some of its lines"),
        ("test/cat/0.jpg,,,,,a.png", "boxes.csv: has no mask for val/cat/0.jpg and 2 more, of val or test"),
    ],
)
def test_wrong_lines_of_masks_are_named(line: str, message: str, tmp_path: Path) -> None:
    photos_of(tmp_path)
    mask(tmp_path / "a.png", (5, 6, 30, 40))
    (tmp_path / "boxes.csv").write_text(f"path,x0,y0,x1,y1,mask\n{line}\n")
    with pytest.raises(InputError, match=message):
        data.read("folder", tmp_path, {})


def test_columns_of_another_kind_are_refused(tmp_path: Path) -> None:
    photos_of(tmp_path)
    (tmp_path / "boxes.csv").write_text("path,x,y,w,h\ntest/cat/0.jpg,1,2,3,4\n")
    with pytest.raises(InputError, match=r"boxes.csv:1: columns path, x, y, w, h: expected path, x0, y0, x1, y1"):
        data.read("folder", tmp_path, {})


# COCO


def test_coco_gives_boxes_and_masks_of_the_photos_class(tmp_path: Path) -> None:
    coco_of(tmp_path)
    dataset = data.read("folder", tmp_path, {})
    val, test = dataset.splits["val"], dataset.splits["test"]
    assert boxes_of(val) == [[[10, 5, 29, 34]], [[10, 5, 29, 34]]]
    assert boxes_of(test) == [[[10, 5, 29, 34], [40, 5, 45, 9]], [[0, 0, 19, 19]]]
    for i in range(2):  # the polygon and the runs are of the same rectangle
        np.testing.assert_array_equal(val.mask(i), painted(10, 5, 29, 34))
    expected = painted(10, 5, 29, 34) + 2 * painted(40, 5, 45, 9) + IGNORED * painted(50, 0, 59, 47)
    np.testing.assert_array_equal(test.mask(0), expected)
    np.testing.assert_array_equal(test.mask(1), painted(0, 0, 19, 19))
    assert dataset.remarks == ("1 objects of another class than their photo's are left out",)
    assert dataset.splits["train"].sizes is None
    assert test.sizes is not None
    assert test.sizes.tolist() == [[60, 48]] * 2
    (tmp_path / "masks").mkdir()
    again = data.read("folder", tmp_path, {})
    assert again.remarks[1:] == (f"left out: the folder masks, since {tmp_path / 'annotations.json'} has the masks",)
    assert boxes_of(again.splits["test"]) == boxes_of(test)


def test_coco_in_several_files_and_other_spellings_of_names(tmp_path: Path) -> None:
    content = coco_of(tmp_path, "annotations/all.json")
    for split, images in (("val", (0, 1)), ("test", (2, 3))):
        part = copy.deepcopy(content)
        part["images"] = [each for each in part["images"] if each["id"] in images]
        part["annotations"] = [each for each in part["annotations"] if each["image_id"] in images]
        for each in part["images"]:  # from another folder, with Windows' separators
            each["file_name"] = "photos\\" + each["file_name"].replace("/", "\\")
        part["images"].append({"id": 99, "file_name": "elsewhere.jpg", "width": 5, "height": 5})
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(part))
    dataset = data.read("folder", tmp_path, {"coco": ["annotations/val.json", "annotations/test.json"]})
    assert boxes_of(dataset.splits["test"])[1] == [[0, 0, 19, 19]]
    assert "val.json, test.json: 2 images that are no photos here: elsewhere.jpg, elsewhere.jpg" in dataset.remarks


def test_coco_without_shapes_has_boxes_alone_and_with_some_says_so(tmp_path: Path) -> None:
    content = coco_of(tmp_path)
    content["annotations"][0]["segmentation"] = []
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    dataset = data.read("folder", tmp_path, {})
    assert dataset.splits["test"].masks is None
    assert any("4 of 5 objects have a shape, " in line and "has none: no masks" in line for line in dataset.remarks)
    for each in content["annotations"]:
        each["segmentation"] = None
        each["category_id"] = 7
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    dataset = data.read("folder", tmp_path, {})
    assert boxes_of(dataset.splits["test"])[0] == [[10, 5, 29, 34], [40, 5, 45, 9], [30, 10, 39, 20]]
    assert dataset.remarks == ("objects are called person, which is no class: every object counts for its photo",)


def test_coco_boxes_beyond_their_photo_are_clipped_and_told(tmp_path: Path) -> None:
    content = coco_of(tmp_path)
    content["annotations"][6] |= {"bbox": [-4, 0, 24, 20], "segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    dataset = data.read("folder", tmp_path, {})
    assert boxes_of(dataset.splits["test"])[1] == [[0, 0, 19, 19]]
    assert any("1 of" in line and "beyond the photo and was clipped" in line for line in dataset.remarks)


@pytest.mark.parametrize("seed", range(30))
def test_runs_are_decoded_as_pycocotools_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 400)), int(rng.integers(1, 400)))
    found = rng.random((size[1], size[0])) < rng.random()
    if seed % 3 == 0:  # long runs have several characters each
        found = np.sort(found, axis=0)
    encoded = pycocotools.encode(np.asfortranarray(found.astype(np.uint8)))
    np.testing.assert_array_equal(coco.draw(Rle(encoded["counts"].decode()), size, "x"), found)


def test_polygons_are_drawn_as_pycocotools_does() -> None:
    rings = ((3.5, 2.0, 50.2, 7.7, 30.0, 40.1), (1.0, 30.0, 9.0, 30.0, 9.0, 44.0, 1.0, 44.0))
    expected = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects([list(ring) for ring in rings], 48, 60)))
    np.testing.assert_array_equal(coco.draw(Polygons(rings), (60, 48), "x"), expected)
    assert expected.sum() > 500


Change = Callable[[dict[str, Any]], object]
COCO_FAULTS: dict[str, tuple[Change, str]] = {
    "no images": (lambda c: c.pop("images"), "annotations.json: images: expected a list"),
    "no id": (lambda c: c["annotations"][0].pop("id"), r"annotations\[0\]: expected an object with an id"),
    "an id twice": (lambda c: c["images"][1].update(id=0), r"images\[1\]: id 0 is listed twice"),
    "a photo twice": (
        lambda c: c["images"].append(dict(c["images"][0], id=9)),
        r"images\[4\]: val/cat/0.jpg is listed twice",
    ),
    "an unknown photo": (lambda c: c["annotations"][0].update(image_id=99), r"annotations\[0\]: image_id = 99"),
    "an unknown category": (lambda c: c["annotations"][0].update(category_id=3), r"annotations\[0\]: category_id = 3"),
    "a category without a name": (lambda c: c["categories"][0].pop("name"), r"categories\[0\]: name = None"),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\]: bbox = None: expected x, y, width"),
    "three numbers": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"bbox = \[1, 2, 3\]"),
    "text": (lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4]), r"bbox = \['1', 2, 3, 4\]"),
    "no area": (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), r"bbox = \[1, 2, 0, 4\]"),
    "a negative width": (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), r"bbox = \[1, 2, -3, 4\]"),
    "absurd": (lambda c: c["annotations"][0].update(bbox=[1, 2, 10**400, 4]), r"annotations\[0\]: bbox"),
    "outside": (lambda c: c["annotations"][0].update(bbox=[70, 2, 3, 4]), r"annotations\[0\]: box .* lies outside"),
    "no size": (lambda c: c["images"][0].pop("width"), r"images\[0\]: width, height = None, 48: expected a photo's"),
    "a huge size": (lambda c: c["images"][0].update(width=65535, height=65535), r"images\[0\]: width, height"),
    "a photo without annotation": (lambda c: c["images"].pop(), r"annotations\[6\]: image_id = 3: no entry"),
    "no object": (lambda c: c["annotations"].pop(), "test/dog/0.jpg: no object of its class, dog"),
    "a photo that is not listed": (
        lambda c: (c["images"].pop(), c["annotations"].pop()),
        "annotations.json: has no annotation for test/dog/0.jpg, of val or test",
    ),
    "another class alone": (
        lambda c: c["annotations"][6].update(category_id=7),
        r"test/dog/0.jpg: no object of its class, dog \(found: person\)",
    ),
    "a short name of several": (lambda c: c["images"][0].update(file_name="0.jpg"), "file_name = '0.jpg': may be "),
    "none of the photos": (
        lambda c: [each.update(file_name=f"x{each['id']}.jpg") for each in c["images"]],
        "none of its 4 images is a photo here: x0.jpg, x1.jpg",
    ),
    "runs of another size": (
        lambda c: c["annotations"][1]["segmentation"].update(size=[60, 48]),
        r"annotations\[1\]: segmentation = .*expected polygons .* size \[48, 60\]",
    ),
    "runs of a wrong sum": (
        lambda c: c["annotations"][1]["segmentation"].update(counts=[3, 4]),
        r"annotations\[1\]: runs of 7 pixels, but the image has 60x48",
    ),
    "negative runs": (
        lambda c: c["annotations"][1]["segmentation"].update(counts=[-1, 2881]),
        r"annotations\[1\]: runs of 2880 pixels",
    ),
    "an empty mask": (
        lambda c: c["annotations"][1]["segmentation"].update(counts=[2880]),
        r"annotations\[1\]: segmentation: a mask without a pixel",
    ),
    "broken compressed runs": (
        lambda c: c["annotations"][2]["segmentation"].update(counts="\u00e9"),
        r"annotations\[2\]: 'é': not COCO's compressed runs",
    ),
    "cut compressed runs": (
        lambda c: c["annotations"][2]["segmentation"].update(counts="P"),
        r"annotations\[2\]: 'P': not COCO's compressed runs",
    ),
    "endless compressed runs": (
        lambda c: c["annotations"][2]["segmentation"].update(counts="o" * 100),
        r"annotations\[2\]: .*: not COCO's compressed runs",
    ),
    "two points": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
        r"annotations\[0\]: segmentation",
    ),
    "an odd number": (lambda c: c["annotations"][0].update(segmentation=[[1] * 7]), r"annotations\[0\]: segmentation"),
    "a line": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 1, 5, 5, 9, 9]]),
        r"annotations\[0\]: segmentation: a polygon without an area",
    ),
    "a polygon far outside": (
        lambda c: c["annotations"][0].update(segmentation=[[1e9, 1, 3, 1, 3, 3]]),
        r"annotations\[0\]: segmentation: a polygon .* beyond the 60x48 image",
    ),
    "a crowd that is none": (lambda c: c["annotations"][0].update(iscrowd="yes"), r"iscrowd = 'yes': expected 0 or 1"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
@pytest.mark.usefixtures("bounded_memory")
def test_wrong_coco_is_named(fault: str, tmp_path: Path) -> None:
    content = coco_of(tmp_path)
    spoil, message = COCO_FAULTS[fault]
    spoil(content)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        data.read("folder", tmp_path, {})
    assert "annotations.json" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "annotations.json: not JSON"),
        ("[]", "annotations.json: expected a JSON object"),
        ('{"images": [NaN]}', "annotations.json: not JSON: NaN"),
        ("[" * 100_000, "annotations.json: not JSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "images: expected a list"),
        ('{"images": [1], "annotations": [], "categories": []}', r"images\[0\]: expected an object with an id"),
    ],
)
def test_what_is_no_coco_is_named(text: str, message: str, tmp_path: Path) -> None:
    photos_of(tmp_path)
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(InputError, match=message):
        data.read("folder", tmp_path, {})


def test_a_file_of_more_than_2_gb_is_not_read(tmp_path: Path) -> None:
    photos_of(tmp_path)
    with (tmp_path / "annotations.json").open("wb") as file:
        file.truncate(2_100_000_000)
    with pytest.raises(InputError, match=r"annotations.json: has 2.1 GB, more than an annotation file may have"):
        data.read("folder", tmp_path, {})


@pytest.mark.parametrize("name", ["../x.json", "/etc/passwd", "no.json"])
def test_annotations_lie_below_the_root(name: str, tmp_path: Path) -> None:
    photos_of(tmp_path)
    with pytest.raises(InputError, match="dataset.coco: .*expected a path below|no.json: no such file"):
        data.read("folder", tmp_path, {"coco": name})


def test_annotations_of_another_photo_are_found_out(tmp_path: Path) -> None:
    content = coco_of(tmp_path)
    for each in content["images"]:
        each.update(width=96, height=96)
    for each in content["annotations"]:
        each["segmentation"] = None
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    test = data.read("folder", tmp_path, {}).splits["test"]
    with pytest.raises(InputError, match=r"test/cat/0.jpg: is 60x48, but its boxes were drawn at 96x96"):
        examined(test, 0, scored=True)


def test_boxes_in_two_places_are_refused(tmp_path: Path) -> None:
    coco_of(tmp_path)
    (tmp_path / "boxes.csv").write_text("path,x0,y0,x1,y1\n")
    with pytest.raises(InputError, match=r"boxes stand both in boxes.csv and in annotations.json: keep one"):
        data.read("folder", tmp_path, {})


def test_polygons_without_pycocotools_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_of(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    splits = data.read("folder", tmp_path, {}).splits
    np.testing.assert_array_equal(splits["val"].mask(1), painted(10, 5, 29, 34))  # runs need no package
    with pytest.raises(InputError, match=r"polygons need pycocotools: pip install 'eil\[coco\]'"):
        splits["val"].mask(0)


# PASCAL VOC


@pytest.mark.parametrize("folder", ["", "Annotations"])
def test_voc_counts_from_1(folder: str, tmp_path: Path) -> None:
    voc_of(tmp_path, folder)
    dataset = data.read("folder", tmp_path, {"voc": folder} if folder else {})
    assert boxes_of(dataset.splits["test"]) == [[[10, 5, 29, 34], [0, 0, 59, 47]]] * 2
    assert dataset.remarks == ()


def test_voc_from_0_and_objects_of_other_classes_are_told(tmp_path: Path) -> None:
    path = voc_of(tmp_path)
    other = xml_of("dog", [(5, 5, 9, 9)]).partition("</size>")[2]
    path.write_text(xml_of("cat", [(0, 0, 9, 9)]).replace("</annotation>", other))
    dataset = data.read("folder", tmp_path, {})
    assert boxes_of(dataset.splits["test"])[0] == [[0, 0, 8, 8]]
    assert "1 objects begin at pixel 0, but VOC counts from 1" in dataset.remarks[0]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
VOC_FAULTS = {
    "no XML": ("nothing", "0.xml: not an annotation in PASCAL VOC's format: syntax error"),
    "cut": ("<annotation><object>", "0.xml: not an annotation in PASCAL VOC's format: no element found"),
    "empty": ("", "0.xml: not an annotation in PASCAL VOC's format"),
    "an entity": (xml_of("cat", [(1, 2, 3, 4)], extra=BOMB), "0.xml: not an annotation .*: it declares an entity"),
    "another root": ("<kml></kml>", r"0.xml: not an annotation in PASCAL VOC's format: its root is <kml>"),
    "no object": (xml_of("cat", []), r"test/cat/0.jpg: no object of its class, cat \(found: none\)"),
    "another class": (xml_of("dog", [(1, 2, 3, 4)]), r"test/cat/0.jpg: no object of its class, cat \(found: dog\)"),
    "no size": (xml_of("cat", [(1, 2, 3, 4)], "0,48"), "0.xml: size/width, size/height = 0, 48: expected a photo's"),
    "NaN": (xml_of("cat", [("nan", 2, 3, 4)]), "0.xml: object 1: bndbox nan 2 3 4: expected xmin <= xmax"),  # type: ignore[list-item]
    "text": (xml_of("cat", [("a", 2, 3, 4)]), "0.xml: object 1: bndbox a 2 3 4: expected numbers"),  # type: ignore[list-item]
    "an end before its start": (
        xml_of("cat", [(9, 2, 3, 4)]),
        "0.xml: object 1: bndbox 9 2 3 4: expected xmin <= xmax",
    ),
    "outside": (xml_of("cat", [(90, 2, 93, 4)]), r"0.xml: object 1: box .* lies outside the 60x48 photo"),
    "no name": (xml_of("", [(1, 2, 3, 4)]), "0.xml: object 1: has no name"),
}


@pytest.mark.parametrize("fault", VOC_FAULTS)
def test_wrong_voc_is_named(fault: str, tmp_path: Path) -> None:
    content, message = VOC_FAULTS[fault]
    voc_of(tmp_path).write_text(content)
    with pytest.raises(InputError, match=message):
        data.read("folder", tmp_path, {})


def test_a_photo_without_its_xml_and_one_xml_of_two_photos_are_named(tmp_path: Path) -> None:
    path = voc_of(tmp_path, "Annotations")
    path.unlink()
    with pytest.raises(InputError, match=r"XML files: has no annotation for test/cat/0.jpg, of val or test"):
        data.read("folder", tmp_path, {"voc": "Annotations"})
    shutil.copy(path.parent.parent / "dog" / "0.xml", tmp_path / "Annotations" / "0.xml")
    (path.parent.parent / "dog" / "0.xml").unlink()
    with pytest.raises(InputError, match=r"0.xml: does it belong to test/cat/0.jpg or to test/dog/0.jpg\?"):
        data.read("folder", tmp_path, {"voc": "Annotations"})
    with pytest.raises(InputError, match=r"dataset.voc = none: .* has no XML file of a photo of val or test"):
        data.read("folder", tmp_path, {"voc": "none"})


def test_a_huge_xml_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    with path.open("wb") as file:
        file.truncate(voc.LARGEST_FILE + 1)
    with pytest.raises(InputError, match=r"x.xml: not an annotation .*: more than 20 MB"):
        voc.annotation(path)


# Photos by a CSV


def labels_of(root: Path) -> Path:
    """Photos named by class prefix in one folder, and a list of them."""
    lines = ["split,path,class,note"]
    for k, (split, label) in enumerate((s, c) for s in (*SPLITS, "train") for c in CLASSES):
        photo(root / "all" / f"{label}_{k}.jpg", k)
        lines.append(f"{split},all/{label}_{k}.jpg,{label},")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def test_photos_by_a_csv(tmp_path: Path) -> None:
    labels_of(tmp_path)
    photo(tmp_path / "all" / "mouse_1.jpg", 99)
    dataset = data.read("folder", tmp_path, {"labels": "labels.csv"})
    assert dataset.classes == CLASSES
    assert dataset.splits["train"].ids == ["all/cat_0.jpg", "all/cat_6.jpg", "all/dog_1.jpg", "all/dog_7.jpg"]
    assert dataset.splits["test"].ids == ["all/cat_4.jpg", "all/dog_5.jpg"]
    assert dataset.splits["test"].labels.tolist() == [0, 1]
    assert dataset.remarks == ("left out: 1 photos that labels.csv does not list: all/mouse_1.jpg",)
    (tmp_path / "boxes.csv").write_text(
        "".join(f"{name},1,2,3,4\n" for split in ("val", "test") for name in dataset.splits[split].ids)
    )
    assert boxes_of(data.read("folder", tmp_path, {"labels": "labels.csv"}).splits["test"]) == [[[1, 2, 3, 4]]] * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split,path,class,note", "split,file,class,note", r"labels.csv:1: no column path: expected a header with"),
        ("split,path,class,note\n", "", r"labels.csv:1: no column path"),
        ("val,all/cat_2.jpg", "dev,all/cat_2.jpg", r"labels.csv:4: split = dev: expected train, val or test"),
        ("all/cat_2.jpg", "all/cat_9.jpg", r"labels.csv:4: no photo all/cat_9.jpg"),
        ("all/cat_2.jpg", "all/cat_0.jpg", r"labels.csv:4: all/cat_0.jpg is listed twice"),
        ("all/cat_2.jpg", "../cat.jpg", r"labels.csv:4: '../cat.jpg': expected a path below"),
        ("all/cat_2.jpg,cat", "all/cat_2.jpg,", r"labels.csv:4: a photo without a class"),
        ("all/cat_2.jpg,cat", "all/cat_2.jpg", r"labels.csv:4: 3 fields, but the header has 4"),
        ("test,all/cat_4.jpg,cat", "test,all/cat_4.jpg,dog", "split test has no image of class cat"),
    ],
)
def test_wrong_labels_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = labels_of(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        data.read("folder", tmp_path, {"labels": "labels.csv"})


# From one's own photos to the tables


def test_a_study_of_own_photos_with_masks_has_px_ap_in_its_tables(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "photos"
    coco_of(root)
    (root / "train" / "cat" / "notes.txt").write_text("mine")
    assert cli.main(["data", "check", "folder", "--root", str(root), "--out", str(tmp_path / "check")]) == 0
    printed = capsys.readouterr().out
    assert "remark: left out: 1 files without a photo's suffix (.txt): train/cat/notes.txt" in printed
    assert "remark: 1 objects of another class than their photo's are left out" in printed
    assert "no problems" in printed
    study = {
        "name": "own",
        "dataset": {"name": "folder", "root": str(root)},
        "backbones": ["vgg_small"],
        "methods": ["cam"],
        "controls": [],
        "seeds": 1,
        "recipe": {"epochs": 1, "batch_size": 2, "resize": 36, "crop": 32},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(study))
    where = ["--results", str(tmp_path / "results"), "--data", str(tmp_path / "cache")]
    for step in ("prepare", "train", "localize", "evaluate", "aggregate"):
        run = ["vgg_small-cam-seed0"] if step in ("train", "localize", "evaluate") else []
        assert cli.main([step, str(path), *run, *where]) == 0
    table = (tmp_path / "results" / "tables" / "masks.md").read_text()
    assert "PxAP" in table
    record = records.read(tmp_path / "results" / "runs" / "vgg_small-cam-seed0" / "record.json")
    assert 0 < (record.value(ScoreKey("px_ap")) or 0) <= 100
    assert 0 < (record.value(ScoreKey("pixel_iou")) or 0) <= 100


def test_photos_of_other_suffixes_are_photos(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in CLASSES:
            for k, suffix in enumerate((".JPG", ".jfif", ".ppm", ".PGM", ".tiff")):
                path = tmp_path / split / label / f"{k}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                kind = {".JPG": "JPEG", ".jfif": "JPEG", ".tiff": "TIFF"}.get(suffix, "PPM")
                PILImage.fromarray(pixels[..., 0] if suffix == ".PGM" else pixels).save(path, format=kind)
    dataset = data.read("folder", tmp_path, {"held_out": 1})
    assert [len(split.ids) for split in dataset.splits.values()] == [8, 2, 10]
    assert dataset.splits["test"].image(2).shape == (8, 8, 3)
