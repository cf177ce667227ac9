"""Photos of every format and depth: pixels as stored or as EXIF turns them, values scaled or refused."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from miniatures import examined
from PIL import Image as PILImage
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from eil import data
from eil.core.files import InputError
from eil.data import check, image_formats, photos

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
# Where the stored row 0 and column 0 are shown, by the EXIF standard; an oracle that shares no code with Pillow's.
TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "TIFF": {},
    "TIFF LZW": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def corners() -> np.ndarray:
    """A photo of 24 rows and 40 columns whose corners have four colours."""
    image = np.full((24, 40, 3), 128, np.uint8)
    image[:8, :8], image[:8, -8:], image[-8:, :8], image[-8:, -8:] = COLOURS
    return image


def write(path: Path, pixels: np.ndarray, kind: str, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PILImage.fromarray(pixels)
    exif = image.getexif()
    exif[photos.TAGGED_ORIENTATION] = orientation
    image.save(path, format=kind.split(maxsplit=1)[0], exif=exif, **FORMATS[kind])


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_as_stored_or_turned_by_its_tag(kind: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    write(path, corners(), kind, orientation)
    stored, turned = photos.load(path), photos.load(path, "apply")
    assert np.abs(stored.astype(int) - corners()).max() < 30
    assert stored.shape == (24, 40, 3)
    expected = TURNED[orientation](corners())
    assert turned.shape == expected.shape
    inner = [(3, 3), (3, -4), (-4, 3), (-4, -4)]
    assert all(np.abs(turned[at].astype(int) - expected[at]).max() < 30 for at in inner)
    assert photos.is_turned(path) == (orientation != 1)


def folder_of(root: Path, kind: str, orientation: int) -> Path:
    lines = ["path,x0,y0,x1,y1"]
    for number, split in enumerate(("train", "val", "test")):
        for label in ("cat", "dog"):
            name = f"{split}/{label}/1.jpg"
            pixels = corners()
            pixels[12, 12 + number] = 10 + number
            write(root / name, pixels, kind, orientation)
            lines.append(f"{name},2,20,9,37")  # of the turned photo, which has 24 columns and 40 rows
    (root / "boxes.csv").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("kind", FORMATS)
def test_boxes_of_turned_photos_need_exif_apply(kind: str, tmp_path: Path) -> None:
    root = folder_of(tmp_path, kind, 6)
    stored = data.read("folder", root, {}).splits["test"]
    assert examined(stored, 0, scored=True).overhang.pixels == 13  # the stored photo has 24 rows
    turned = data.read("folder", root, {"exif": "apply"})
    found = examined(turned.splits["test"], 0, scored=True)
    assert found.image.shape == (40, 24, 3)
    assert found.boxes.tolist() == [[2, 20, 9, 37]]
    assert not [line for line in check.check_dataset(turned)["remarks"] if "EXIF" in line]


def test_a_mask_without_a_tag_is_of_the_turned_photo(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "JPEG", 6)
    (root / "boxes.csv").unlink()
    mask = np.zeros((40, 24), np.uint8)
    mask[20:38, 2:10] = 255
    for split in ("val", "test"):
        for label in ("cat", "dog"):
            path = root / "masks" / split / label / "1.png"
            path.parent.mkdir(parents=True)
            PILImage.fromarray(mask).save(path)
    found = examined(data.read("folder", root, {"exif": "apply"}).splits["test"], 0, scored=True)
    assert found.boxes.tolist() == [[2, 20, 9, 37]]
    with pytest.raises(InputError, match=r"test/cat/1.jpg: is 40x24, but its mask is 24x40: .*dataset.exif: apply"):
        examined(data.read("folder", root, {}).splits["test"], 0, scored=True)


def test_exif_is_one_of_two_words_and_needs_photos() -> None:
    assert data.problems("folder", {"exif": "turn"}) == ["dataset.exif = 'turn': Input should be 'ignore' or 'apply'"]
    with pytest.raises(InputError, match="dataset.exif = apply: birds has no photo files"):
        data.read("birds", None, {"exif": "apply", "classes": 2})


# Values beyond 8 bits


def tiff(values: np.ndarray, tags: dict[int, int] | None = None) -> bytes:
    directory = ImageFileDirectory_v2()
    for tag, value in (tags or {}).items():
        directory[tag] = value
    buffer = io.BytesIO()
    PILImage.fromarray(values).save(buffer, format="TIFF", tiffinfo=directory)
    return buffer.getvalue()


def encoded(suffix: str, values: np.ndarray) -> bytes:
    return cv2.imencode(suffix, values)[1].tobytes()


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
WIDE = RAMP.astype(np.uint16) * 257
SCALED: dict[str, tuple[bytes, np.ndarray]] = {
    "floats in [0, 1]": (tiff(RAMP.astype(np.float32) / 255), RAMP),
    "whole floats to 255": (tiff(RAMP.astype(np.float32)), RAMP),
    "black floats": (tiff(np.zeros((16, 16), np.float32)), np.zeros_like(RAMP)),
    "8 bits in 32": (tiff(RAMP.astype(np.int32)), RAMP),
    "16 bits in 32": (tiff(WIDE.astype(np.int32)), RAMP),
    "16 bits, TIFF": (tiff(WIDE), RAMP),
    "16 bits, PNG": (encoded(".png", WIDE), RAMP),
    "16 bits a channel, PNG": (encoded(".png", np.dstack([WIDE] * 3)), RAMP),
    "16 bits a channel, TIFF": (encoded(".tiff", np.dstack([WIDE] * 3)), RAMP),
    "12 bits in 16, declared": (tiff(RAMP.astype(np.uint16) * 16, {image_formats.LARGEST_SAMPLE: 4080}), RAMP),
    "12 bits in 16, PGM": (b"P5 16 16 4095\n" + (RAMP.astype(np.uint16) * 16 + 8).astype(">u2").tobytes(), RAMP),
    "black 16 bits": (encoded(".png", np.zeros((16, 16), np.uint16)), np.zeros_like(RAMP)),
}


@pytest.mark.parametrize("kind", SCALED)
def test_values_of_a_clear_range_are_scaled(kind: str, tmp_path: Path) -> None:
    content, expected = SCALED[kind]
    (tmp_path / "photo.tif").write_bytes(content)
    found = photos.load(tmp_path / "photo.tif")
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - expected[..., None]).max() <= 1


REFUSED: dict[str, tuple[bytes, str]] = {
    "12 bits in 16, TIFF": (tiff(RAMP.astype(np.uint16) * 16), "16-bit whole numbers from 0 to 4080"),
    "12 bits in 16, PNG": (encoded(".png", RAMP.astype(np.uint16) * 16), "16-bit whole numbers from 0 to 4080"),
    "14 bits in 16": (encoded(".png", RAMP.astype(np.uint16) * 64), "16-bit whole numbers from 0 to 16320"),
    "12 bits a channel": (encoded(".png", np.dstack([RAMP.astype(np.uint16) * 16] * 3)), "16 bits a channel from 0 to"),
    "floats beyond 1": (tiff(RAMP.astype(np.float32) / 64), "floats from 0 to 3.984375"),
    "negative floats": (tiff(RAMP.astype(np.float32) / 255 - 0.5), "floats from -0.5 to 0.5"),
    "not finite": (tiff(np.full((4, 4), np.nan, np.float32)), "values that are not finite"),
    "negative whole numbers": (tiff(RAMP.astype(np.int32) - 128), "32-bit whole numbers from -128 to 127"),
    "12 bits in 32": (tiff(RAMP.astype(np.int32) * 16), "32-bit whole numbers from 0 to 4080"),
    "24 bits in 32": (tiff(RAMP.astype(np.int32) * 65536), "32-bit whole numbers from 0 to 16711680"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_values_of_an_ambiguous_range_are_refused(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED[kind]
    (tmp_path / "photo.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"photo\.tif: ") as error:
        photos.load(tmp_path / "photo.tif")
    assert message in str(error.value)


def test_a_grey_float_photo_of_a_data_set_is_not_black(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (24, 1))
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            for k in range(2):
                path = tmp_path / split / label / f"{k}.TIFF"
                path.parent.mkdir(parents=True, exist_ok=True)
                PILImage.fromarray(ramp).save(path)
    split = data.read("folder", tmp_path, {"held_out": 1}).splits["train"]
    assert split.image(0)[0, :, 0].tolist() == np.rint(255 * ramp[0]).astype(int).tolist()
