"""The cache: what photos become, how they are placed, and what a kill, a fault or other settings do to it."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import folder, photo
from PIL import Image as PILImage

from eil import data
from eil.core.files import InputError, remove
from eil.data import augment, cache, geometry, parallel, photo_cache, photos
from eil.data.geometry import Frame
from eil.data.readers import birds

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (48, 60, 3), dtype=np.uint8)


def _bytes(image: PILImage.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = PILImage.Exif()
    exif[photos.TAGGED_ORIENTATION] = 6
    return _bytes(PILImage.fromarray(PIXELS), "JPEG", exif=exif, quality=100, subsampling=0)


def _deep() -> bytes:
    return _bytes(PILImage.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG")


GREY = np.repeat(PIXELS[..., :1], 3, axis=2)
UNUSUAL: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "a PNG": (lambda: _bytes(PILImage.fromarray(PIXELS), "PNG"), PIXELS),
    "grey": (lambda: _bytes(PILImage.fromarray(PIXELS[..., 0]), "PNG"), GREY),
    "16 bits": (_deep, GREY),
    "transparent": (lambda: _bytes(PILImage.fromarray(PIXELS).convert("RGBA"), "PNG"), PIXELS),
    "one pixel": (lambda: _bytes(PILImage.fromarray(PIXELS[:1, :1]), "PNG"), PIXELS[:1, :1]),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_photos_become_rgb(kind: str, tmp_path: Path) -> None:
    make, expected = UNUSUAL[kind]
    (tmp_path / "photo.jpg").write_bytes(make())  # whatever it is, it is called a JPEG
    np.testing.assert_array_equal(photos.load(tmp_path / "photo.jpg"), expected)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = PILImage.new("CMYK", (8, 8), (0, 255, 255, 0))
    (tmp_path / "photo.jpg").write_bytes(_bytes(red, "JPEG", quality=100))
    found = photos.load(tmp_path / "photo.jpg")
    assert found.shape == (8, 8, 3)
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 8


def test_exif_rotation_is_told_and_not_carried_out(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_turned())
    assert photos.is_turned(path)
    assert photos.load(path).shape == (48, 60, 3)
    photo(path, 0)
    assert not photos.is_turned(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no photo", "cannot be decoded"),
        (_bytes(PILImage.fromarray(PIXELS), "JPEG")[:900], "cannot be decoded"),
        (_bytes(PILImage.fromarray(PIXELS), "PNG")[:900], "cannot be decoded"),
        (None, "cannot be decoded: .*No such file"),
    ],
)
def test_broken_photos_are_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"photo.jpg: {message}"):
        photos.load(path)


@settings(deadline=None, max_examples=200)
@given(
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    kind=st.sampled_from(["direct", "center-crop", "shorter-side"]),
    corners=st.tuples(*[st.floats(0, 0.99)] * 4),
)
def test_boxes_lie_where_their_objects_are_drawn(
    size: tuple[int, int], kind: geometry.Geometry, corners: tuple[float, ...]
) -> None:
    """A rectangle is painted, the photo placed, and the box compared with where the paint came to lie."""
    width, height = size
    x0, x1 = sorted((int(corners[0] * width), int(corners[1] * width)))
    y0, y1 = sorted((int(corners[2] * height), int(corners[3] * height)))
    image = np.zeros((height, width, 3), np.uint8)
    image[y0 : y1 + 1, x0 : x1 + 1] = 255
    for placed in (geometry.eval_frame(size, Frame(64, 56, kind)), geometry.train_frame(size, Frame(64, 56, kind))):
        found = placed.image(image)
        assert found.shape == (placed.side, placed.side, 3)
        ((left, top, right, bottom),) = placed.boxes(np.array([[x0, y0, x1, y1]], dtype=float), size)
        assert 0 <= left <= right < placed.side
        assert 0 <= top <= bottom < placed.side
        ys, xs = np.nonzero(found[..., 0] > 127)
        if len(xs) and (x1 - x0) * placed.width >= 3 * width and (y1 - y0) * placed.height >= 3 * height:
            # The last pixel's own width is not scaled, as in the benchmark: up to one scaled pixel is missing.
            slack = 1.5 + max(placed.width / width, placed.height / height)
            assert (
                np.abs(np.array([xs.min(), ys.min(), xs.max(), ys.max()]) - [left, top, right, bottom]).max() <= slack
            )
        mask = placed.mask(image[..., 0])
        assert np.mean((mask > 127) != (found[..., 0] > 127)) < 0.2


def test_geometries_place_as_their_names_say() -> None:
    box = np.array([[50.0, 20.0, 149.0, 79.0]])
    placed = geometry.eval_frame((200, 100), Frame(64, 56, "direct"))
    assert (placed.width, placed.height, placed.left, placed.top, placed.side) == (56, 56, 0, 0, 56)
    assert placed.boxes(box, (200, 100)).tolist() == [[14, 11, 41, 44]]
    placed = geometry.eval_frame((200, 100), Frame(64, 56, "center-crop"))
    assert (placed.width, placed.height, placed.left, placed.top, placed.side) == (64, 64, 4, 4, 56)
    assert placed.boxes(box, (200, 100)).tolist() == [[12, 8, 43, 46]]
    placed = geometry.eval_frame((200, 100), Frame(64, 56, "shorter-side"))
    assert (placed.width, placed.height, placed.left, placed.top, placed.side) == (128, 64, 36, 4, 56)
    assert placed.boxes(box, (200, 100)).tolist() == [[0, 8, 55, 46]]  # clipped: it sticks out of the crop
    placed = geometry.train_frame((100, 200), Frame(64, 56, "shorter-side"))
    assert (placed.width, placed.height, placed.left, placed.top, placed.side) == (64, 128, 0, 32, 64)


def test_ten_crops_are_the_corners_the_middle_and_their_mirrors() -> None:
    images = torch.arange(2 * 6 * 6 * 3).reshape(2, 6, 6, 3)
    found = list(augment.ten_crops(images, 4))
    assert len(found) == 10
    for k, (top, left) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))):
        expected = images[:, top : top + 4, left : left + 4]
        assert torch.equal(found[2 * k], expected)
        assert torch.equal(found[2 * k + 1], expected.flip(2))


def test_blocks_in_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = folder(tmp_path / "photos")
    dataset, frame = data.read("folder", root, {"held_out": 1}), Frame(40, 32, "center-crop", 10)
    cache.build(dataset, tmp_path / "one", frame)
    monkeypatch.setattr(parallel, "BLOCK", 4)  # two blocks of train and of test, one of val
    cache.build(dataset, tmp_path / "many", frame)
    assert cache.describe(tmp_path / "one") == cache.describe(tmp_path / "many")
    for name in dataset.splits:
        one, many = (cache.open_split(tmp_path / folder_name, name) for folder_name in ("one", "many"))
        np.testing.assert_array_equal(one.images, many.images)
        assert one.ids == many.ids
        assert [own.tolist() for own in one.boxes] == [own.tolist() for own in many.boxes]
        assert (one.large is None) == (name == "train")
        if one.large is not None and many.large is not None:
            assert one.large.shape[1:3] == (40, 40)
            np.testing.assert_array_equal(one.large, many.large)
    assert sorted(path.name for path in (tmp_path / "one" / "test").iterdir()) == [
        "images.npy",
        "index.parquet",
        "large.npy",
    ]


def test_a_fault_half_way_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "BLOCK", 3)  # two blocks of train and of test, one of val
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    root, _ = folder(tmp_path / "photos")
    dataset, broken = data.read("folder", root, {"held_out": 1}), root / "test" / "dog" / "photo, 1.JPG"
    whole = broken.read_bytes()
    broken.write_bytes(b"x")
    with pytest.raises(InputError, match="photo, 1.JPG: cannot be decoded"):
        cache.build(dataset, tmp_path / "cache", Frame(40, 32))
    assert not (tmp_path / "cache").exists()
    done = sorted((tmp_path / ".cache.partial").glob("*/blocks/*.json"))
    assert done
    before = {path: path.stat().st_mtime_ns for path in done}
    broken.write_bytes(whole)
    after: dict[Path, int] = {}
    monkeypatch.setattr(photo_cache, "remove", _noting(after))
    cache.build(dataset, tmp_path / "cache", Frame(40, 32))
    # The blocks of the first attempt were still there, untouched, in the end.
    assert {path: after[path] for path in before} == before
    assert len(after) > len(before)
    assert not (tmp_path / ".cache.partial").exists()
    monkeypatch.setattr(parallel, "BLOCK", 1000)
    cache.build(dataset, tmp_path / "afresh", Frame(40, 32))
    assert cache.describe(tmp_path / "cache")["photos_sha256"] == cache.describe(tmp_path / "afresh")["photos_sha256"]


def _noting(found: dict[Path, int]) -> Callable[[Path], None]:
    """``remove``, which first notes when the files in a folder of blocks were written."""

    def act(path: Path) -> None:
        if path.name == "blocks":
            found.update({each: each.stat().st_mtime_ns for each in path.iterdir()})
        remove(path)

    return act


def test_a_killed_preparation_goes_on(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from eil.data import cache, parallel; from eil.data.geometry import Frame\n"
        "from eil.data.readers import birds\n"
        "if __name__ == '__main__':\n"
        "    parallel.BLOCK = 20\n"
        "    dataset = birds.read(classes=2, train_per_class=150, val_per_class=2, test_per_class=2)\n"
        "    cache.build(dataset, Path('cache'), Frame(32, 32))\n"
    )
    (tmp_path / "make.py").write_text(code)
    command = [sys.executable, "make.py"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    blocks = tmp_path / ".cache.partial" / "train" / "blocks"
    deadline = time.monotonic() + 60
    while len(list(blocks.glob("[0-9]*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(blocks.glob("[0-9]*.json")))
    assert 2 <= done < 15
    assert not (tmp_path / "cache").exists()
    subprocess.run(command, cwd=tmp_path, check=True)
    dataset = birds.read(classes=2, train_per_class=150, val_per_class=2, test_per_class=2)
    cache.build(dataset, tmp_path / "afresh", Frame(32, 32))
    assert cache.describe(tmp_path / "cache") == cache.describe(tmp_path / "afresh")
    for name in dataset.splits:
        one, two = (cache.open_split(tmp_path / each, name) for each in ("cache", "afresh"))
        np.testing.assert_array_equal(one.images, two.images)


def test_a_cache_of_other_settings_or_files_is_outdated(tmp_path: Path) -> None:
    root, _ = folder(tmp_path / "photos")
    dataset = data.read("folder", root, {"held_out": 1})
    cache.build(dataset, tmp_path / "cache", Frame(40, 32))
    assert cache.outdated(dataset, tmp_path / "cache", Frame(40, 32)) == ""
    for other, frame in ((dataset, Frame(40, 30)), (data.read("folder", root, {"held_out": 2}), Frame(40, 32))):
        assert cache.outdated(other, tmp_path / "cache", frame) == "photos"
    text = (tmp_path / "cache" / "dataset.json").read_text()
    (tmp_path / "cache" / "dataset.json").write_text(text.replace('"format": 3', '"format": 1'))
    with pytest.raises(InputError, match="was made by another version of eil"):
        cache.open_split(tmp_path / "cache", "test")


def test_an_unfinished_cache_of_other_settings_is_begun_anew(tmp_path: Path) -> None:
    root, _ = folder(tmp_path / "photos")
    dataset, broken = data.read("folder", root, {"held_out": 1}), root / "test" / "dog" / "photo, 1.JPG"
    whole = broken.read_bytes()
    broken.write_bytes(b"x" * len(whole))
    with pytest.raises(InputError):
        cache.build(dataset, tmp_path / "cache", Frame(40, 32))
    broken.write_bytes(whole)
    cache.build(dataset, tmp_path / "cache", Frame(44, 32))
    assert cache.open_split(tmp_path / "cache", "train").images.shape[1] == 44


def test_batches_read_ahead_are_the_same_and_leave_no_thread(images: Path) -> None:
    import threading

    split = cache.open_split(images, "train")
    batches = augment.Batches(split, 4, 32, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    found = list(batches.training(3, 1, flip=True))
    for batch, index in zip(found, augment.order(3, 1, 16).split(4), strict=True):
        assert torch.equal(batch.index, index)
    before = threading.active_count()
    epoch = batches.training(3, 1, flip=True)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
