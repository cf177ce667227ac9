"""Mask files of every kind, against masks that were painted by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest
from miniatures import examined, photo, wsoleval_openimages
from PIL import Image as PILImage

from eil import data
from eil.core.files import InputError
from eil.data import IGNORED, masks

OBJECT = np.zeros((12, 20), np.bool_)
OBJECT[3:9, 5:15] = True
VOID = np.zeros((12, 20), np.bool_)
VOID[0, :] = True


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_kinds", {})
    monkeypatch.setattr(masks, "_warned", set())


def palette(colours: list[tuple[int, int, int]], indices: np.ndarray) -> PILImage.Image:
    image = PILImage.new("P", indices.shape[::-1])
    image.putdata(indices.astype(np.uint8).ravel().tolist())
    image.putpalette([part for colour in colours for part in colour])
    return image


def rgb(background: tuple[int, ...], own: tuple[int, ...]) -> PILImage.Image:
    pixels = np.empty((*OBJECT.shape, len(background)), np.uint8)
    pixels[:] = background
    pixels[OBJECT] = own
    return PILImage.fromarray(pixels)


def soft(low: int, high: int) -> PILImage.Image:
    """Grey with soft edges: a border of one pixel round the object, below half, and one within it, above."""
    pixels = np.where(OBJECT, high, 0).astype(np.uint8)
    pixels[2, 5:15] = low
    pixels[3, 5:15] = 255 - low
    return PILImage.fromarray(pixels)


KINDS: dict[str, PILImage.Image] = {
    "white on black": PILImage.fromarray(OBJECT.astype(np.uint8) * 255),
    "0 and 1": PILImage.fromarray(OBJECT.astype(np.uint8)),
    "1 bit": PILImage.fromarray(OBJECT),
    "soft edges": soft(100, 255),
    "a grey object": PILImage.fromarray(np.where(OBJECT, 128, 127).astype(np.uint8)),
    "16 bits": PILImage.fromarray(OBJECT.astype(np.uint16) * 65535),
    "8 bits in 16": PILImage.fromarray(OBJECT.astype(np.uint16) * 255),
    "0 and 1 in 16 bits": PILImage.fromarray(OBJECT.astype(np.uint16)),
    "0 and 1 in 32 bits": PILImage.fromarray(OBJECT.astype(np.int32)),
    "equal channels": rgb((0, 0, 0), (255, 255, 255)),
    "equal channels of 0 and 1": rgb((0, 0, 0), (1, 1, 1)),
    "grey and opaque": rgb((0, 255), (204, 255)),
    "a dark green palette": palette([(0, 0, 0), (0, 100, 0)], OBJECT),
    "PASCAL VOC's palette": palette([(0, 0, 0), (128, 0, 0), (0, 128, 0)], OBJECT * 2),
    "a palette from white to black": palette([(255, 255, 255), (0, 0, 0)], OBJECT),
    "alpha over black": rgb((0, 0, 0, 0), (0, 0, 0, 255)),
    "alpha over white": rgb((255, 255, 255, 0), (255, 255, 255, 255)),
    "alpha over grey": rgb((77, 0), (77, 200)),
    "a white object, the rest transparent": rgb((0, 0, 0, 0), (255, 255, 255, 255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_masks_object_is_what_was_painted(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("mask.tif" if "bits" in kind and "1 bit" not in kind else "mask.png")
    KINDS[kind].save(path)
    found = masks.load_mask([path, None])
    np.testing.assert_array_equal(found, OBJECT.astype(np.uint8))


REFUSED: dict[str, tuple[PILImage.Image, str]] = {
    "red on black": (rgb((0, 0, 0), (200, 0, 0)), r"a mask of several colours: \[0, 0, 0\], \[200, 0, 0\]; say what"),
    "black on transparent white": (rgb((255, 255, 255, 0), (0, 0, 0, 255)), "alpha and brightness contradict"),
    "several visible colours": (
        PILImage.fromarray(np.dstack([np.arange(240).reshape(12, 20, 1)] * 3 + [OBJECT[..., None] * 255]).astype("u1")),
        "both its alpha and its visible colours vary",
    ),
    "classes 0, 1, 2": (PILImage.fromarray(OBJECT.astype(np.uint8) * 2), "grey values 0, 2, of which none is at least"),
    "classes with 255": (
        PILImage.fromarray(np.where(VOID, 255, OBJECT).astype(np.uint8)),
        r"grey values 0, 1, 255: classes, or brightness\?",
    ),
    "32 bits": (PILImage.fromarray(OBJECT.astype(np.int32) * 70_000), "values from 0 to 70000: expected 0 to 255 or"),
    "negative": (PILImage.fromarray(OBJECT.astype(np.float32) - 1), "values from -1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_mask_that_no_rule_covers_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    image, message = REFUSED[kind]
    image.save(tmp_path / "mask.tif")
    with pytest.raises(InputError, match=f"mask.tif: .*{message}"):
        masks.load_mask([tmp_path / "mask.tif", None])


PAINTED = np.where(VOID, 2, OBJECT)
COLOURED = np.array([[0, 0, 0], [200, 0, 0], [224, 224, 192]], np.uint8)[PAINTED]


@pytest.mark.parametrize(
    ("image", "settings"),
    [
        (PILImage.fromarray(COLOURED), {"object": [[200, 0, 0]], "ignore": ["#e0e0c0"]}),
        (PILImage.fromarray(np.array([0, 1, 255], np.uint8)[PAINTED]), {"object": [1], "ignore": [255]}),
        (palette([(0, 0, 0), (200, 0, 0), (224, 224, 192)], PAINTED), {"object": [1], "ignore": [2]}),
        (palette([(0, 0, 0), (200, 0, 0), (224, 224, 192)], PAINTED), {"object": ["#C80000"], "ignore": ["#E0E0C0"]}),
        (palette([(0, 0, 0), (200, 0, 0), (224, 224, 192)], PAINTED), {"ignore": [2]}),
        (PILImage.fromarray(np.array([0, 255, 100], np.uint8)[PAINTED]), {"ignore": [100]}),
        (PILImage.fromarray(np.array([9, 70, 100], np.uint8)[PAINTED]), {"object": [[70, 70, 70]], "ignore": [100]}),
    ],
)
def test_a_setting_says_what_colours_mean(image: PILImage.Image, settings: dict, tmp_path: Path) -> None:
    image.save(tmp_path / "mask.png")
    found = masks.load_mask([tmp_path / "mask.png", None], masks.MaskColours.model_validate(settings))
    np.testing.assert_array_equal(found, np.where(VOID, IGNORED, OBJECT))


def test_the_setting_reaches_every_layout_of_mask_files(tmp_path: Path) -> None:
    root, settings = wsoleval_openimages(tmp_path)
    for path in root.rglob("*_m1.png"):
        pixels = np.zeros((48, 60, 3), np.uint8)
        pixels[3:31, 3:21] = [0, 90, 0]
        PILImage.fromarray(pixels).save(path)
    with pytest.raises(InputError, match=r"0_m1.png: a mask of several colours: \[0, 0, 0\], \[0, 90, 0\]"):
        data.read("wsoleval", root, settings).splits["test"].mask(0)
    settings |= {"mask": {"object": ["#005a00", 255]}}
    assert data.problems("wsoleval", settings) == []
    found = examined(data.read("wsoleval", root, settings).splits["test"], 0, scored=True)
    assert found.boxes.tolist() == [[3, 3, 20, 30], [30, 20, 49, 35]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"object": ["red"]}, "dataset.mask.object"),
        ({"object": [[1, 2]]}, "dataset.mask.object"),
        ({"object": [-1]}, "dataset.mask.object"),
        ({}, "must name colours under object or ignore"),
        ({"background": [0]}, "dataset.mask.background: unknown key"),
    ],
)
def test_wrong_settings_of_masks_are_named(value: object, message: str) -> None:
    found = data.problems("cub", {"mask": value})
    assert found
    assert message in " ".join(found)


def test_masks_of_several_kinds_in_one_folder_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k, kind in enumerate(("white on black", "a dark green palette", "0 and 1", "a dark green palette")):
        KINDS[kind].save(tmp_path / f"{k}.png")
    with caplog.at_level(logging.WARNING):
        for k in (0, 0, 1, 1, 2):
            masks.load_mask([tmp_path / f"{k}.png", None])
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        "masks of several kinds: 0.png is grey, 1.png palette (docs/data.md)",
        "masks of several kinds: 0.png is grey, 2.png 0/1 (docs/data.md)",
    ]


def test_a_light_index_0_is_background_and_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    KINDS["a palette from white to black"].save(tmp_path / "mask.png")
    with caplog.at_level(logging.WARNING):
        masks.load_mask([tmp_path / "mask.png", None])
    assert "index 0 of its palette is the lightest colour, and background" in caplog.text


def test_a_blank_mask_is_found_out_where_there_are_boxes_too(tmp_path: Path) -> None:
    lines = ["path,x0,y0,x1,y1,mask"]
    PILImage.new("L", (60, 48)).save(tmp_path / "blank.png")
    for number, split in enumerate(("train", "val", "test")):
        for label in ("cat", "dog"):
            photo(tmp_path / split / label / "1.jpg", 2 * number + (label == "dog"))
            lines += [f"{split}/{label}/1.jpg,1,2,3,4,blank.png"] if number else []
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    split = data.read("folder", tmp_path, {}).splits["test"]
    with pytest.raises(InputError, match=r"test/cat/1.jpg: its mask shows no object"):
        examined(split, 0, scored=True)
