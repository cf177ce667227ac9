"""`eil data check` on photos as they come: findings in few lines, the contact sheet, and ILSVRC's sorted val photos."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import cub, folder, ilsvrc, mask, photo
from PIL import Image as PILImage

from eil import data
from eil.commands import cli
from eil.core.files import InputError
from eil.data import check


def test_findings_of_a_kind_are_one_line(tmp_path: Path, capsys: Any) -> None:
    root, settings = cub(tmp_path / "data")
    dataset = data.read("cub", root, settings)
    turned = PILImage.Exif()
    turned[0x0112] = 6
    for path in dataset.splits["test"].sources[:4]:
        with PILImage.open(path) as image:
            image.save(path, exif=turned)
    out = tmp_path / "check"
    assert cli.main(["data", "check", "cub", "--root", str(root), "--set", "held_out=1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    told = [line for line in printed if "EXIF" in line]
    assert len(told) == 1
    assert told[0].startswith("remark: 4 photos have an EXIF orientation; their pixels are used as stored")
    assert f"the first: EXIF asks to turn test: {dataset.splits['test'].ids[0]}; all: {out / 'check.json'}" in told[0]
    assert sum("EXIF" in line for line in json.loads((out / "check.json").read_text())["remarks"]) == 4
    assert "12 official training photos, of which 3 are held out as val; 6 test photos" in printed


def test_one_photo_in_two_classes_of_a_split_is_told(tmp_path: Path) -> None:
    root, settings = folder(tmp_path)
    shutil.copy(root / "train" / "dog" / "photo, 1.JPG", root / "train" / "a cat" / "photo, 1.JPG")
    shutil.copy(root / "train" / "dog" / "photo, 0.png", root / "train" / "dog" / "photo, 1.JPG")  # one class: no word
    shutil.copy(root / "test" / "dog" / "photo, 1.JPG", root / "test" / "émeu" / "photo, 1.JPG")
    found = check.check_dataset(data.read("folder", root, settings))
    assert found["problems"] == []
    assert found["kinds"]["remarks"]["classes"] == [
        "same content in two classes of test: test/dog/photo, 1.JPG (dog) and test/émeu/photo, 1.JPG (émeu)"
    ]
    shutil.copy(root / "train" / "dog" / "photo, 0.png", root / "train" / "a cat" / "photo, 1.JPG")
    found = check.check_dataset(data.read("folder", root, settings))
    assert len(found["kinds"]["remarks"]["classes"]) == 3
    assert "remark: 3 images have the content of one of another class of their split; the first: same" in "\n".join(
        check.lines(found, Path("check.json"))
    )


def test_the_sheet_shows_the_boxes_that_are_used(tmp_path: Path, monkeypatch: Any) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    from eil.report import contact_sheet

    root, settings = cub(tmp_path)
    path = root / "bounding_boxes.txt"
    path.write_text(path.read_text().replace("\n18 10.0 5.0 29.0 39.0", "\n18 -10.0 5.0 900.0 39.0"))
    photo(root / "images" / (root / "images.txt").read_text().splitlines()[4].split()[1], 3, (30, 90))
    path.write_text(path.read_text().replace("\n5 10.0 5.0 29.0 39.0", "\n5 10.0 5.0 10.0 39.0"))
    mask(next((root / "segmentations").glob("001*/*_5.png")), (10, 5, 19, 44), (30, 90))
    monkeypatch.setattr(plt, "close", lambda figure: None)
    contact_sheet.write(data.read("cub", root, settings), tmp_path / "sheet.png")
    figure = plt.gcf()
    shown = [axes for axes in figure.axes if axes.get_images()]
    assert len(shown) == 6 + 6  # with masks; no image twice
    boxes = [patch for axes in shown for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(box.get_x(), box.get_width()) for box in boxes][-1] == (-0.5, 60)
    sides = {(abs(np.diff(axes.get_xlim())[0]), abs(np.diff(axes.get_ylim())[0])) for axes in shown}
    assert sides == {(60, 60), (90, 90)}  # squares of the longer side: nothing is distorted
    assert shown[0].get_title() == "001.Black footed\nBird"
    monkeypatch.undo()
    plt.close(figure)


# ILSVRC's validation photos in class folders


def _sorted(root: Path, annotations: bool) -> None:
    flat, xml = root / "Data" / "CLS-LOC" / "val", root / "Annotations" / "CLS-LOC" / "val"
    for path in sorted(flat.iterdir()):
        wnid = (xml / f"{path.stem}.xml").read_text().split("<name>")[1].split("<")[0]
        (flat / wnid).mkdir(exist_ok=True)
        path.rename(flat / wnid / path.name)
        if annotations:
            (xml / wnid).mkdir(exist_ok=True)
            (xml / f"{path.stem}.xml").rename(xml / wnid / f"{path.stem}.xml")


@pytest.mark.parametrize("annotations", [False, True])
def test_ilsvrcs_sorted_photos_are_the_flat_ones(annotations: bool, tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    before = data.read("ilsvrc", root, settings)
    hashes = check.check_dataset(before)["sha256"]
    _sorted(root, annotations)
    after = data.read("ilsvrc", root, settings)
    old, new = before.splits["test"], after.splits["test"]
    assert new.ids == old.ids
    assert new.labels.tolist() == old.labels.tolist()
    assert all(path.is_file() for path in new.sources)
    assert check.check_dataset(after)["sha256"] == hashes


def test_an_ilsvrc_photo_in_the_folder_of_another_class_is_named(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    _sorted(root, False)
    val = root / "Data" / "CLS-LOC" / "val"
    photo_path = next((val / "n01440764").iterdir())
    photo_path.rename(val / "n01443537" / photo_path.name)
    with pytest.raises(InputError, match=r"lies in the folder of n01443537, but .*\.xml says n01440764"):
        data.read("ilsvrc", root, settings)


def test_ilsvrc_photos_of_classes_that_are_not_trained_on_are_counted(tmp_path: Path) -> None:
    root, settings = ilsvrc(tmp_path)
    shutil.rmtree(root / "Data" / "CLS-LOC" / "train" / "n01443537")
    dataset = data.read("ilsvrc", root, settings)
    assert dataset.class_ids == ("n01440764", "n01484850")
    assert len(dataset.splits["test"].ids) == 4
    assert dataset.remarks[0].startswith("2 photos of ")
    (root.parent / "LOC_synset_mapping.txt").unlink()  # then nobody says that it is a class
    with pytest.raises(InputError, match=r"xml: expected objects of one class of the training photos"):
        data.read("ilsvrc", root, settings)
