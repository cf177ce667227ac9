"""Batches on the device: crop, flip and normalise, with random draws that depend only on seed, epoch and image index.

A torch.Generator for each seed, epoch and purpose draws the numbers of all images at once, so they do not depend on the
batch size, the method, the device, or on whether a killed training was resumed.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eil.core.files import InputError
from eil.data import Image
from eil.data.cache import Cached

Draw = Literal["top", "left", "flip", "other_class"]
_OFFSETS: tuple[Draw, Draw] = ("top", "left")
_READ_AHEAD = 2  # batches
_BLOCK = 1000  # images
_RESIDENT_SHARE = 0.5  # of the device's free memory; the network needs the rest


def uniform(seed: int, epoch: int, count: int, draw: Draw) -> Tensor:
    """One random number in [0, 1) for each image of a split, a pure function of the arguments.

    The numbers of an epoch are drawn together on the CPU, so that those of an image do not depend on the batch size,
    the device, the method or a resume; nor do they depend on ``count``, since the generator draws them in turn.

    Args:
        seed: seed of the run.
        epoch: counted from 0.
        count: N, number of images in the split.
        draw: purpose of the numbers; different purposes are independent.

    Returns:
        (N,) float32 on the CPU, in the order of the split.
    """
    return torch.rand(count, generator=_generator(seed, epoch, draw))


def order(seed: int, epoch: int, count: int) -> Tensor:
    """The order in which an epoch visits the images, (count,) int64, a pure function of the arguments."""
    return torch.randperm(count, generator=_generator(seed, epoch, "order"))


def _generator(seed: int, epoch: int, draw: str) -> torch.Generator:
    """A generator of its own for each seed, epoch and purpose: hashing keeps nearby seeds and epochs independent."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{draw}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cut a window from each image and mirror it where asked.

    Args:
        images: (B, S, S, ...), channels last.
        top: first row of each window, (B,) int64.
        left: first column of each window, (B,) int64.
        flip: whether to mirror, (B,) bool.
        size: side of the windows.

    Returns:
        (B, size, size, ...).
    """
    steps = torch.arange(size, device=images.device)
    rows = top[:, None] + steps  # (B, size)
    columns = left[:, None] + torch.where(flip[:, None], steps.flip(0), steps)  # (B, size)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images[batch, rows[:, :, None], columns[:, None, :]]  # (B, size, size, ...)


def ten_crops(images: Tensor, size: int) -> Iterator[Tensor]:
    """Four corners and the middle of each image, and each of the five mirrored (Krizhevsky et al., 2012).

    Args:
        images: (B, S, S, 3).
        size: side of the crops.

    Yields:
        Ten times (B, size, size, 3).
    """
    slack = images.shape[1] - size
    for top, left in ((0, 0), (0, slack), (slack, 0), (slack, slack), (slack // 2, slack // 2)):
        crop = images[:, top : top + size, left : left + size]
        yield crop
        yield crop.flip(2)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W), ``(x / 255 - mean) / std``; the memory stays channels last."""
    scale = torch.tensor(std, device=images.device) * 255
    shift = torch.tensor(mean, device=images.device) * 255
    return ((images - shift) / scale).permute(0, 3, 1, 2)  # (B, 3, H, W)


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, S, S), labels (B,), positions in the split (B,), object masks (B, 1, S, S) or None."""

    images: Tensor
    labels: Tensor
    index: Tensor
    masks: Tensor | None


class Batches:
    """Batches of one cached split.

    Args:
        split: what the cache holds.
        batch_size: images a batch.
        crop: side of the network's input.
        mean: per-channel mean of the backbone's input, of values in [0, 1]; likewise ``std``.
        device: where the batches are made.
    """

    def __init__(
        self,
        split: Cached,
        batch_size: int,
        crop: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
    ) -> None:
        self.split, self.batch_size, self.crop, self.mean, self.std = split, batch_size, crop, mean, std
        self.device = device
        self.labels = torch.tensor(split.labels, device=device)
        resident = device.type == "cuda" and split.images.nbytes < _RESIDENT_SHARE * _free_memory(device)
        self.images = _on_device(split.images, device) if resident else None

    def __len__(self) -> int:
        """Batches in a training epoch."""
        return max(len(self.labels) // self.batch_size, 1)

    def images_in(self, steps: int) -> int:
        """Number of images in the first ``steps`` batches of a training epoch; a single batch may not be full."""
        return min(steps * self.batch_size, len(self.labels))

    def training(self, seed: int, epoch: int, flip: bool, start: int = 0) -> Iterator[Batch]:
        """An epoch in its own order from batch ``start`` on, cropped at random, mirrored half the time if ``flip``.

        An incomplete last batch is dropped unless it is the only one, so that shapes are static and batch norm never
        gets a single image.
        """
        count = len(self.labels)
        full = min(len(self) * self.batch_size, count)
        slack = self.split.images.shape[1] - self.crop
        if start >= len(self):
            return  # splitting an empty tensor would give one empty batch
        chosen = order(seed, epoch, count)[:full][start * self.batch_size :].split(self.batch_size)  # type: ignore[no-untyped-call]
        top_of, left_of = ((uniform(seed, epoch, count, draw) * (slack + 1)).long() for draw in _OFFSETS)  # (N,) each
        mirrored = uniform(seed, epoch, count, "flip") < (0.5 if flip else 0.0)  # (N,)
        draws = [each.to(self.device) for each in (top_of, left_of, mirrored)]
        for index, fetched, whole in self._prefetched(chosen):
            on_device = index.to(self.device, non_blocking=True)
            top, left, mirror = (each[on_device] for each in draws)
            images = crop_and_flip(fetched, top, left, mirror, self.crop)
            masks = None
            if whole is not None:
                masks = (crop_and_flip(whole, top, left, mirror, self.crop) > 0).unsqueeze(1)  # (B, 1, S, S)
            yield Batch(normalise(images, self.mean, self.std), self.labels[on_device], on_device, masks)

    def in_order(self) -> Iterator[Batch]:
        """All images without augmentation; the last batch may be smaller."""
        every = torch.arange(len(self.labels)).split(self.batch_size)  # type: ignore[no-untyped-call]
        for index, images, _ in self._prefetched(every, masked=False):
            yield self._whole(index, images)

    def by_class(self) -> Iterator[tuple[int, "ImagesOfClass"]]:
        """Each label with its images, in the order of the labels."""
        for label in np.unique(self.split.labels).tolist():
            yield label, ImagesOfClass(self, torch.from_numpy(np.flatnonzero(self.split.labels == label)))

    def crops_in_order(self) -> Iterator[Iterator[Tensor]]:
        """For each batch of :meth:`in_order` its ten crops, (B, 3, S, S) each.

        Raises:
            InputError: the images were prepared without those that crops are cut from.
        """
        if self.split.large is None:
            raise InputError("the cache has no images for ten crops")
        for index in torch.arange(len(self.labels)).split(self.batch_size):  # type: ignore[no-untyped-call]
            large = self._fetch(None, self.split.large, index)
            yield (normalise(crop, self.mean, self.std) for crop in ten_crops(large, self.crop))

    def at(self, index: Tensor) -> Batch:
        """The images at these positions, without augmentation."""
        return self._whole(index, self._fetch(self.images, self.split.images, index))

    def _whole(self, index: Tensor, images: Tensor) -> Batch:
        on_device = index.to(self.device, non_blocking=True)
        return Batch(normalise(images, self.mean, self.std), self.labels[on_device], on_device, None)

    def _prefetched(
        self, chosen: Iterable[Tensor], masked: bool = True
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Positions, images and masks of each batch; the next batches are read ahead by a thread."""

        def read(index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            masks = None if self.split.masks is None or not masked else self._fetch(None, self.split.masks, index)
            return index, self._fetch(self.images, self.split.images, index), masks

        if self.images is not None:  # on the device already
            yield from map(read, chosen)
            return
        with ThreadPoolExecutor(1) as reader:  # one: batches keep their order, and the disk is read sequentially
            coming: deque[Future[tuple[Tensor, Tensor, Tensor | None]]] = deque()
            for index in chosen:
                coming.append(reader.submit(read, index))
                if len(coming) > _READ_AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _fetch(self, resident: Tensor | None, mapped: Image, index: Tensor) -> Tensor:
        if resident is not None:
            return resident[index.to(self.device)]
        gathered = torch.from_numpy(mapped[index.numpy()])
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the computation
            gathered = gathered.pin_memory()
        return gathered.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class ImagesOfClass:
    """Batches of some images of a split, the middle of each in the network's size; they can be read more than once.

    Attributes:
        batches: of the split.
        index: positions in the split, (N,) int64.
    """

    batches: Batches
    index: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """(B, 3, S, S) each, normalised."""
        for index in self.index.split(self.batches.batch_size):  # type: ignore[no-untyped-call]
            images = self.batches.at(index).images
            margin = (images.shape[2] - self.batches.crop) // 2
            yield images[..., margin : margin + self.batches.crop, margin : margin + self.batches.crop]


def _on_device(images: Image, device: torch.device) -> Tensor:
    """Copy memory-mapped images to the device in blocks, so that the host holds one block at a time."""
    found = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _BLOCK):
        found[start : start + _BLOCK] = torch.from_numpy(np.array(images[start : start + _BLOCK])).to(device)
    return found


def _free_memory(device: torch.device) -> int:
    free, whole = torch.cuda.mem_get_info(device)
    return min(free, int(whole * torch.cuda.get_per_process_memory_fraction(device)))  # of a shared GPU, a share
