"""Data sets: one file per layout, each a function ``read(root, **settings) -> Dataset``.

A reader lists images, labels, boxes and masks and decodes nothing; :mod:`eil.data.cache` decodes each
image once. Only val and test have boxes, because WSOL trains on image labels alone.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from eil.core import registry
from eil.core import settings as settings_
from eil.core.files import InputError
from eil.core.settings import schema
from eil.data import class_subset, names

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]
Count = Annotated[int, Field(ge=1)]
NO_BOX: Boxes = np.empty((0, 4))
IGNORED = 255  # in a mask: neither object nor background


@dataclass(frozen=True)
class Split:
    """One split of a data set, not decoded; it can be pickled for another process.

    Attributes:
        ids: unique name of each image.
        labels: class of each image, (N,).
        boxes: per image, (K, 4) as x0, y0, x1, y1 in its own pixels, inclusive corners; K = 0 in train. In val and
            test, an image without boxes gets one box around each object of its mask.
        sources: argument of ``load`` for each image; the path of a photo.
        sizes: width and height at which the boxes were drawn, (N, 2), if known. If an image has another size and the
            same aspect ratio, its boxes are scaled; another aspect ratio is an error.
        load: source -> image, (H, W, 3) RGB; must be picklable.
        masks: argument of ``load_mask`` for each image, or None.
        box_sources: per image, where each of its boxes was read (``FILE:LINE``), for messages; or None.
        load_mask: -> (H, W): 0 off the object, :data:`IGNORED` where it is to be ignored, else k for
            ``Dataset.parts[k - 1]``, or for the k-th object if the data set has no parts.
    """

    ids: Sequence[str]
    labels: npt.NDArray[np.int64]
    boxes: Sequence[Boxes]
    sources: Sequence[Any]
    load: Callable[[Any], Image]
    sizes: npt.NDArray[np.int64] | None = None
    masks: Sequence[Any] | None = None
    load_mask: Callable[[Any], Image] | None = None
    box_sources: Sequence[Sequence[str]] | None = None

    def image(self, index: int) -> Image:
        """Decode an image, (H, W, 3) RGB."""
        return self.load(self.sources[index])

    def mask(self, index: int) -> Image | None:
        """Decode the mask of an image, (H, W), if there are masks."""
        return self.load_mask(self.masks[index]) if self.masks is not None and self.load_mask is not None else None

    def take(self, indices: Sequence[int]) -> "Split":
        """The images at these positions."""
        return replace(
            self,
            ids=[self.ids[i] for i in indices],
            labels=self.labels[list(indices)],
            boxes=[self.boxes[i] for i in indices],
            sources=[self.sources[i] for i in indices],
            sizes=None if self.sizes is None else self.sizes[list(indices)],
            masks=None if self.masks is None else [self.masks[i] for i in indices],
            box_sources=None if self.box_sources is None else [self.box_sources[i] for i in indices],
        )


@dataclass(frozen=True)
class Dataset:
    """A named data set.

    Attributes:
        name: of the data set, such as cub.
        classes: names of the classes, by label.
        splits: train, val and test.
        parts: names of the object parts in its masks.
        class_ids: ids of the classes in its lists, by label; () if the lists use names.
        whole_classes: number of classes of the full data set; ``classes`` may be a subset. Set by :func:`read`.
        val_is_held_out: whether val was split off the official training images.
        remarks: lines about what the reader left out or found suspicious.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    parts: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    whole_classes: int | None = None
    val_is_held_out: bool = False
    remarks: tuple[str, ...] = ()


def module_of(name: str) -> str | None:
    """Name of the module that reads a layout, in :mod:`eil.data.readers` or an installed package; None without one."""
    return registry.module(registry.READERS, name)


def reader(name: str) -> Callable[..., Dataset]:
    """The reader of a layout, by the name that a study file uses.

    Raises:
        InputError: no layout has that name.
    """
    module = module_of(name)
    if module is None:
        raise InputError(f"dataset.name = {name}: {_known()}")
    found: Callable[..., Dataset] = importlib.import_module(module).read
    return found


def problems(name: str, settings: Mapping[str, Any]) -> list[str]:
    """A line for each setting under ``dataset`` that neither the reader nor all data sets know."""
    if module_of(name) is None:
        return [f"dataset.name = {name}: {_known()}"]
    of_reader, common = _sorted_out(name, settings)
    shared = {factory: schema(factory).model_fields for factory in _common()}
    known = {*schema(reader(name)).model_fields, *(key for fields in shared.values() for key in fields)}
    unknown = [key for key in common if key not in known]
    return [
        *settings_.check(reader(name), of_reader, "dataset"),
        *(
            line
            for factory, fields in shared.items()
            for line in settings_.check(
                factory, {key: value for key, value in common.items() if key in fields}, "dataset"
            )
        ),
        *(f"dataset.{key}: unknown key (known: {', '.join(sorted(known))})" for key in unknown),
    ]


def read(name: str, root: Path | None, settings: Mapping[str, Any]) -> Dataset:
    """Read a data set, select the subset that the settings name, and check ids and classes.

    Args:
        name: of the layout.
        root: its folder.
        settings: of the reader, of :func:`subset` and of :func:`eil.data.photos.with_annotation_settings`.

    Raises:
        InputError: an invalid setting, a split that lists an image twice, or a class without images in a split.
    """
    if found := problems(name, settings):
        raise InputError("\n".join(found))
    of_reader, common = _sorted_out(name, settings)
    # The schema converts YAML values to the reader's types (text to a path, say).
    dataset = reader(name)(root, **dict(schema(reader(name)).model_validate(of_reader)))
    for split_name, split in dataset.splits.items():
        if len(set(split.ids)) < len(split.ids):
            twice = Counter(split.ids).most_common(1)[0][0]
            raise InputError(f"data set {name}: split {split_name} has {twice} more than once")
        names.require_distinct(split.ids, f"data set {name}: split {split_name}")
    known = class_subset.FULL_SIZES.get(dataset.name)
    dataset = replace(dataset, whole_classes=max(len(dataset.classes), known.classes if known else 0))
    for factory in _common():
        model = schema(factory)
        given = {key: value for key, value in common.items() if key in model.model_fields}
        dataset = factory(dataset, **dict(model.model_validate(given)))
    for split_name, split in dataset.splits.items():
        counts = np.bincount(split.labels, minlength=len(dataset.classes))
        if (counts == 0).any():
            empty = [dataset.classes[i] for i in np.flatnonzero(counts == 0)[:5]]
            raise InputError(f"data set {name}: split {split_name} has no image of class {', '.join(empty)}")
    return dataset


def subset(
    dataset: Dataset,
    *,
    classes: class_subset.ClassChoice | None = None,
    images_per_class: Count | None = None,
    train_per_class: Count | None = None,
    val_per_class: Count | None = None,
    test_per_class: Count | None = None,
) -> Dataset:
    """Keep some classes and the first images of each class, in the reader's order.

    Args:
        dataset: the full data set.
        classes: number of classes to keep, the first ones; or names or ids of the classes to keep.
        images_per_class: maximum number of images of a class in every split.
        train_per_class: maximum in train.
        val_per_class: maximum in val.
        test_per_class: maximum in test.

    Raises:
        InputError: the data set has fewer classes, or not these.
    """
    if isinstance(classes, int) and classes > len(dataset.classes):
        raise InputError(f"dataset.classes = {classes}: {dataset.name} has {len(dataset.classes)}")
    names, ids = dataset.classes, dataset.class_ids or dataset.classes
    chosen = list(range(len(names)))[: classes if isinstance(classes, int) else None]
    if classes is not None and not isinstance(classes, int):
        chosen = class_subset.positions(classes, names, ids, dataset.name)
    limits = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
    splits = {}
    for name, split in dataset.splits.items():
        given = [each for each in (images_per_class, limits[name]) if each is not None]
        limit = min(given, default=len(split.ids))
        splits[name] = _chosen(split, chosen, len(names), limit)
    return replace(
        dataset,
        classes=tuple(names[k] for k in chosen),
        class_ids=tuple(dataset.class_ids[k] for k in chosen) if dataset.class_ids else (),
        splits=splits,
        val_is_held_out=dataset.val_is_held_out and images_per_class is None and not any(limits.values()),
    )


def _chosen(split: Split, chosen: Sequence[int], classes: int, limit: int) -> Split:
    """At most the first ``limit`` images of each chosen class, labelled by the class's position among the chosen."""
    order = np.argsort(split.labels, kind="stable")
    counts = np.bincount(split.labels)
    # position of each image within its class
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    label = np.full(classes, -1, np.int64)
    label[list(chosen)] = np.arange(len(chosen))
    kept = np.flatnonzero((rank < limit) & (label[split.labels] >= 0))
    few = split if len(kept) == len(split.ids) else split.take(kept.tolist())
    return few if len(chosen) == classes else replace(few, labels=label[few.labels])


def _common() -> tuple[Callable[..., Dataset], ...]:
    """Functions that apply the settings of all layouts."""
    from eil.data.photos import with_annotation_settings  # it imports this module

    return subset, with_annotation_settings


def _known() -> str:
    return f"must be one of {', '.join(registry.available(registry.READERS))}"


def _sorted_out(name: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings into those of the reader and the rest; a list of classes always belongs to :func:`subset`."""
    known = schema(reader(name)).model_fields
    listed = {"classes"} if isinstance(settings.get("classes"), list | tuple) else set()
    of_reader = {key: value for key, value in settings.items() if key in known.keys() - listed}
    return of_reader, {key: value for key, value in settings.items() if key not in of_reader}
