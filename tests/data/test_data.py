"""Data sets, the cache, and what happens to an image on its way to the network."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eil import data
from eil.core.files import InputError
from eil.data import augment, cache
from eil.data.geometry import Frame
from eil.data.readers import birds, tiny_imagenet

# sha256 of the first bird of each kind in test, image and parts, seed 0
GOLDEN = "b11108c88049a8d9"


def test_birds_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for label in range(birds.MAX_CLASSES):
        for array in birds.draw(0, 2, label, 0):
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == GOLDEN


def test_birds_of_other_seeds_splits_and_numbers_differ() -> None:
    drawn = {birds.draw(*key)[0].tobytes() for key in [(0, 0, 1, 0), (1, 0, 1, 0), (0, 1, 1, 0), (0, 0, 1, 1)]}
    assert len(drawn) == 4


def test_birds_have_boxes_round_their_masks_and_every_part() -> None:
    test = birds.read(classes=4, train_per_class=1, val_per_class=1, test_per_class=12).splits["test"]
    seen = np.zeros(len(birds.PARTS))
    sides = []
    for index, true in enumerate(test.boxes):
        mask = test.mask(index)
        assert mask is not None
        ys, xs = np.nonzero(mask)
        assert true.tolist() == [[xs.min(), ys.min(), xs.max(), ys.max()]]
        seen += [(mask == part + 1).any() for part in range(len(birds.PARTS))]
        sides.append(max(xs.max() - xs.min(), ys.max() - ys.min()) / birds.SIDE)
    assert (seen > 0.9 * len(test.ids)).all()
    assert 0.15 < min(sides) < 0.35
    assert 0.55 < max(sides) < 0.75


def test_training_birds_come_without_boxes() -> None:
    splits = birds.read(classes=2, train_per_class=3, val_per_class=1, test_per_class=1).splits
    assert all(len(true) == 0 for true in splits["train"].boxes)
    assert all(len(true) == 1 for true in splits["val"].boxes)


def test_tiny_imagenet_is_split_by_file_number(photos: Path) -> None:
    dataset = tiny_imagenet.read(photos)
    assert {name: len(split.ids) for name, split in dataset.splits.items()} == {"train": 12, "val": 150, "test": 6}
    assert dataset.classes[0] == "name of n01443537"
    assert [Path(name).stem.split("_")[1] for name in dataset.splits["train"].ids[:4]] == ["0", "1", "2", "3"]
    assert dataset.splits["val"].ids[6].endswith("n01443537_10.JPEG")  # by number: 10 comes after 9
    assert dataset.splits["val"].boxes[6].tolist() == [[2, 2, 42, 63]]
    assert all(len(true) == 0 for true in dataset.splits["train"].boxes)
    assert dataset.splits["test"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.splits["test"].boxes[5].tolist() == [[5, 6, 50, 56]]
    assert dataset.splits["train"].image(3).shape == (64, 64, 3)  # a grey photo


def test_subsets_keep_the_first(photos: Path) -> None:
    dataset = data.read("tiny_imagenet", photos, {"classes": 2, "train_per_class": 3, "val_per_class": 10})
    assert {name: len(split.ids) for name, split in dataset.splits.items()} == {"train": 6, "val": 20, "test": 4}


def test_missing_photos_are_told_how_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no wnids.txt in .*dataset.root.*--data-root.*EIL_DATA"):
        tiny_imagenet.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG\tn01443537\t5\t6\t50", "val_annotations.txt:1: 5 tab-separated fields, expected 6"),
        ("val_0.JPEG\tn01443537\t5\t6\t50\tx", "val_annotations.txt:1: box 5 6 50 x: expected four numbers"),
        ("val_0.JPEG\tn01443538\t5\t6\t7\t7", "val_annotations.txt:1: class 'n01443538' is neither in wnids.txt nor"),
        ("val_0.JPEG\tn01443537\t50\t6\t5\t7", "val_annotations.txt:1: box 50 6 5 7: expected x0 <= x1"),
    ],
)
def test_bad_annotation_lines_are_named(photos: Path, line: str, message: str) -> None:
    (photos / "val" / "val_annotations.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        tiny_imagenet.read(photos)


def test_a_truncated_photo_is_named_and_leaves_no_cache(photos: Path, tmp_path: Path) -> None:
    broken = photos / "train" / "n01629819" / "images" / "n01629819_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(InputError, match=r"n01629819_1.JPEG: cannot be decoded"):
        cache.build(tiny_imagenet.read(photos), tmp_path / "cache", Frame(64, 64))
    assert not (tmp_path / "cache").exists()


def test_a_box_outside_its_image_is_named(tmp_path: Path) -> None:
    dataset = birds.read(classes=2, train_per_class=1, val_per_class=1, test_per_class=1)
    dataset.splits["test"].boxes[1][0] = (128, 3, 140, 9)  # type: ignore[index]
    with pytest.raises(InputError, match=r"test/01/0000: box .* lies outside the 128x128 photo: nothing of it is left"):
        cache.build(dataset, tmp_path / "cache", Frame(32, 32))


def test_a_class_without_images_is_named(photos: Path) -> None:
    text = (photos / "val" / "val_annotations.txt").read_text()
    (photos / "val" / "val_annotations.txt").write_text(
        "".join(x for x in text.splitlines(True) if "n01641577" not in x)
    )
    with pytest.raises(InputError, match="split test has no image of class name of n01641577"):
        data.read("tiny_imagenet", photos, {})


def test_cache_gives_back_what_was_read(photos: Path, tmp_path: Path) -> None:
    dataset = tiny_imagenet.read(photos)
    cache.build(dataset, tmp_path / "cache", Frame(64, 32))
    train, test = cache.open_split(tmp_path / "cache", "train"), cache.open_split(tmp_path / "cache", "test")
    np.testing.assert_array_equal(train.images[5], dataset.splits["train"].image(5))
    assert test.images.shape == (6, 32, 32, 3)
    assert test.boxes[5].tolist() == [[2, 3, 25, 28]]  # halved and truncated
    assert test.labels.tolist() == dataset.splits["test"].labels.tolist()
    assert test.ids == tuple(dataset.splits["test"].ids)


def test_cache_hash_follows_the_content(tmp_path: Path) -> None:
    hashes = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        dataset = birds.read(classes=2, train_per_class=1, val_per_class=1, test_per_class=1, seed=seed)
        cache.build(dataset, tmp_path / name, Frame(32, 32))
        hashes.append(cache.fingerprints(tmp_path / name))
    assert hashes[0] == hashes[1] != hashes[2]


@given(st.integers(0, 2**62), st.integers(0, 1000))
def test_draws_depend_on_seed_epoch_and_index_alone(seed: int, epoch: int) -> None:
    whole = augment.uniform(seed, epoch, 50, "top")
    assert torch.equal(augment.uniform(seed, epoch, 50, "top"), whole)
    assert torch.equal(augment.uniform(seed, epoch, 13, "top"), whole[:13])  # whatever the size of the split
    assert ((whole >= 0) & (whole < 1)).all()
    for other in (
        augment.uniform(seed + 1, epoch, 50, "top"),
        augment.uniform(seed, epoch + 1, 50, "top"),
        augment.uniform(seed, epoch, 50, "left"),
    ):
        assert not torch.equal(whole, other)


def test_draws_are_uniform_and_uncorrelated() -> None:
    draws = torch.stack([augment.uniform(3, 5, 100_000, draw) for draw in ("top", "left", "flip")])
    assert (draws.mean(dim=1) - 0.5).abs().max() < 0.005
    assert (draws.var(dim=1) - 1 / 12).abs().max() < 0.002
    assert (torch.corrcoef(draws) - torch.eye(3)).abs().max() < 0.01
    assert torch.corrcoef(torch.stack([draws[0, :-1], draws[0, 1:]]))[0, 1].abs() < 0.01
    epochs = torch.stack([augment.uniform(seed, epoch, 100_000, "top") for seed in (3, 4) for epoch in range(4)])
    assert (torch.corrcoef(epochs) - torch.eye(8)).abs().max() < 0.015


def test_an_images_crop_does_not_depend_on_batches_or_a_resume(images: Path) -> None:
    split = cache.open_split(images, "train")
    found: list[dict[int, torch.Tensor]] = []
    for size, start in ((4, 0), (8, 0), (4, 2)):
        batches = augment.Batches(split, size, 32, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
        seen = {}
        for batch in batches.training(3, 1, True, start):
            seen |= dict(zip(batch.index.tolist(), batch.images, strict=True))
        found.append(seen)
    whole, large, resumed = found
    assert whole.keys() == large.keys() >= resumed.keys()
    assert len(resumed) == len(whole) - 8
    assert all(torch.equal(whole[k], large[k]) for k in whole)
    assert all(torch.equal(whole[k], resumed[k]) for k in resumed)


def test_order_visits_every_image_once_an_epoch() -> None:
    first, second = augment.order(1, 0, 100), augment.order(1, 1, 100)
    assert first.sort().values.tolist() == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, augment.order(1, 0, 100))


@settings(deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_crop_and_flip_equals_slicing(top: int, left: int, flip: bool) -> None:
    image = torch.arange(10 * 10 * 3).reshape(1, 10, 10, 3)
    expected = image[0, top : top + 6, left : left + 6]
    found = augment.crop_and_flip(image, torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]), 6)
    assert torch.equal(found[0], expected.flip(1) if flip else expected)


def test_normalise_equals_the_definition() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    found = augment.normalise(images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert found.shape == (2, 3, 4, 5)
    for channel, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), strict=True)):
        torch.testing.assert_close(found[:, channel], (images[..., channel] / 255 - mean) / std)


def test_masks_follow_their_images(images: Path) -> None:
    split = cache.open_split(images, "train")
    batches = augment.Batches(split, 4, 32, (0.0,) * 3, (1 / 255,) * 3, torch.device("cpu"))
    for batch in batches.training(seed=1, epoch=2, flip=True):
        for image, mask, index in zip(batch.images, batch.masks, batch.index, strict=True):  # type: ignore[arg-type]
            windows = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (False, True)
                if np.array_equal(_window(split.images[index], top, left, flip), image.permute(1, 2, 0).round().numpy())
            ]
            assert len(windows) == 1
            np.testing.assert_array_equal(_window(split.masks[index], *windows[0]) > 0, mask[0].numpy())  # type: ignore[index]


def _window(image: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
    window = image[top : top + 32, left : left + 32]
    return window[:, ::-1] if flip else window


def test_an_epoch_leaves_out_a_last_batch_that_is_not_full(images: Path) -> None:
    split = cache.open_split(images, "train")  # 16 images
    for size, count in ((5, 15), (16, 16), (40, 16)):
        batches = augment.Batches(split, size, 32, (0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
        seen = torch.cat([batch.index for batch in batches.training(0, 0, False)])
        assert len(seen) == len(seen.unique()) == count
        assert torch.cat([batch.index for batch in batches.in_order()]).tolist() == list(range(16))


def test_birds_of_other_kinds_are_those_of_a_larger_set() -> None:
    whole, later = birds.read(classes=10, train_per_class=2), birds.read(classes=3, first_class=5, train_per_class=2)
    assert later.classes == whole.classes[5:8]
    assert later.splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    train = whole.splits["train"]
    assert np.array_equal(
        later.splits["train"].load(later.splits["train"].sources[3]), train.load(train.sources[2 * 6 + 1])
    )
    with pytest.raises(InputError, match="first_class = 8 and classes = 3: there are 10 kinds of birds"):
        birds.read(classes=3, first_class=8)
