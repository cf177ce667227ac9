"""Score any score maps: a folder of .npy files against the benchmark's lists, or arrays in a program."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eil.core import npz
from eil.core.cell_grid import CellGrid
from eil.core.files import InputError
from eil.core.provenance import threads
from eil.data import Boxes, Image, geometry, photos
from eil.data.clipping import Overhang, clip
from eil.data.geometry import Frame
from eil.data.readers import wsoleval
from eil.data.readers.wsoleval import Metadata
from eil.evaluation import array_inputs, iou_curves, maps, masks, metrics, protocols
from eil.evaluation.array_inputs import ArrayInput
from eil.evaluation.iou_curves import IouCurves
from eil.evaluation.metrics import ImageResults
from eil.evaluation.protocols import Protocol

LARGEST_SIDE = 8192  # of a map, in pixels; about that of the largest photos
_RESIZED = 256 / 224  # "center-crop" first resizes an image to this share of the crop's side
_LARGE = 2**23  # bytes of a file; larger maps are read and resized one at a time, not by several threads
_BOXES = "localization.txt"
_alone = threading.Lock()
_log = logging.getLogger(__name__)


class MaxBoxAcc:
    """Box accuracy over all thresholds with torchmetrics' methods: update, compute, reset.

    A wrapper around :class:`eil.evaluation.iou_curves.IouCurves` that accepts arrays of any kind.

    Examples:
        >>> metric = MaxBoxAcc("wsoleval-v1", side=8)
        >>> metric.update(np.pad(np.ones((1, 4, 4)), ((0, 0), (2, 2), (2, 2))), [np.array([[2.0, 2, 6, 6]])])
        >>> metric.compute()["max_box_acc"]
        100.0

    Args:
        protocol: its name.
        side: S of the square frame in which true boxes are given; maps of any size are resized to it.
        cells: where the maps' cells look, for a protocol with the alignment "receptive_field".

    Raises:
        SettingError: there is no such protocol.
        InputError: the protocol has the alignment "receptive_field", and ``cells`` is not given.

    Attributes:
        curves: IoU curves of all images so far.
        overhang: how many true boxes reached beyond the frame and were clipped to it.
    """

    def __init__(self, protocol: str = "wsoleval-v2", side: int = 224, cells: CellGrid | None = None) -> None:
        self.protocol, self.side, self.cells = protocols.find(protocol), side, cells
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.curves = IouCurves(self.protocol, self.side, self.cells)
        self.overhang, self._warned = Overhang(), False

    @property
    def without_contrast(self) -> int:
        """How many maps have no contrast; they have no box and score 0."""
        return int(self.curves.flat.sum())

    def update(self, score_maps: ArrayInput, true: ArrayInput) -> None:
        """Add B images, as arrays, torch tensors (of any dtype and device, with gradients or not) or lists.

        Args:
            score_maps: (B, h, w), or B maps of any sizes.
            true: true boxes of each image in the frame, B times (K, 4), inclusive; (B, 4) for one box an image. Boxes
                are clipped to the frame, see ``overhang``.

        Raises:
            InputError: a map that is not finite or not two-dimensional; boxes of another number or order, or outside
                the frame. No image of the batch is added then.
        """
        found, each = array_inputs.rows(score_maps), array_inputs.rows(true)
        if len(found) != len(each):
            raise InputError(f"{len(found)} maps for {len(each)} images")
        clipped = [
            clip(array_inputs.boxes(true_boxes), (self.side, self.side), f"true[{i}] in the {self.side}-pixel frame")
            for i, true_boxes in enumerate(each)
        ]
        with ThreadPoolExecutor(threads()) as pool:
            frame = (self.side, self.protocol, self.cells)
            images = list(pool.map(lambda m: maps.to_8_bit(array_inputs.array(m), *frame), found))
        self.overhang = sum((overhang for _, overhang in clipped), self.overhang)
        self.curves.update_images(images, [true_boxes for true_boxes, _ in clipped])

    def image_results(self) -> ImageResults:
        """Curves of all images so far; every image counts as classified correctly."""
        if not len(self.curves):
            raise InputError("no maps to score")
        arrays, right = self.curves.arrays(), np.ones(len(self.curves), dtype=bool)
        return ImageResults(arrays["curve"], arrays.get("curve_v2"), arrays["otsu"], top1=right, top5=right)

    def compute(self, chosen_on: "MaxBoxAcc | None" = None) -> dict[str, float]:
        """Scores in percent: ``gt_known_loc`` (at IoU 0.5), and ``max_box_acc_v2`` etc. if the protocol has it.

        ``max_box_acc`` is there too if ``gt_known_loc`` equals it: the largest contour's box at the best of all
        thresholds.

        Args:
            chosen_on: the images on which thresholds are chosen if the protocol chooses on val.

        Raises:
            InputError: the protocol chooses on val, and there are no such images.
        """
        protocol = self.protocol
        if protocol.threshold_from == "val" and chosen_on is None:
            raise InputError("the protocol chooses its threshold on val, of which there are no maps")
        scored = self.image_results()
        chosen = scored if chosen_on is None else chosen_on.image_results()
        for metric in (self, chosen_on):
            if metric is not None and metric.overhang.beyond and not metric._warned:
                _log.warning("%s", metric.overhang.remark)
                metric._warned = True
        found = metrics.metrics(scored, chosen, protocol, protocol.threshold_from)
        v2 = {key: value for key, value in found.items() if key.startswith("max_box_acc_v2")}
        best = protocol.contours == "largest" and protocol.threshold_from == "oracle" and protocol.thresholds is None
        located = found["gt_known_loc"]
        return {"gt_known_loc": located, **({"max_box_acc": located} if best else {}), **v2}


class FolderScore(NamedTuple):
    """The metric of a folder of maps, the ids without a map, and what of the true boxes was clipped."""

    metric: MaxBoxAcc
    missing: list[str]
    overhang: Overhang


def score_folder(
    folder: Path, metadata: Metadata, protocol: str, side: int = 224, allow_missing: bool = False, where: str = ""
) -> FolderScore:
    """Score a folder of ``{image id}.npy`` against boxes, which are clipped to their image.

    Maps are resized as they are read, so memory does not grow with their size and number.

    Args:
        folder: of the maps.
        metadata: lists with boxes and sizes.
        protocol: its name.
        side: of the frame.
        allow_missing: treat a missing map as one without contrast.
        where: the boxes' file, for messages.

    Raises:
        InputError: a map that is missing, unreadable, a pickle, of a wrong shape or not finite (the message has its
            file); a box outside its image; more or larger overhangs than a correct list has.
    """
    if metadata.boxes is None or metadata.sizes is None:
        raise InputError("boxes cannot be scored: the lists have none, or no sizes of the images (image_sizes.txt)")
    sizes = [(width, height) for width, height in metadata.sizes.tolist()]
    clipped, overhang = clipped_boxes(metadata.boxes, sizes, metadata.ids, where)
    metric, missing = MaxBoxAcc(protocol, side), []
    true = [boxes_in_frame(each, size, side, metric.protocol) for each, size in zip(clipped, sizes, strict=True)]

    def image(name: str) -> Image | None:
        path = photos.path_below(folder, f"{name}.npy", "image_ids.txt")
        with _alone if path.is_file() and path.stat().st_size > _LARGE else contextlib.nullcontext():
            score_map = _load(path, allow_missing)
            return None if score_map is None else maps.to_8_bit(score_map, side, metric.protocol)

    with ThreadPoolExecutor(threads()) as pool:
        for part in iou_curves.chunks(len(metadata.ids)):
            names, found = metadata.ids[part], list(pool.map(image, metadata.ids[part]))
            missing += [name for name, score_map in zip(names, found, strict=True) if score_map is None]
            nothing = np.zeros((side, side), np.uint8)
            metric.curves.update_images([nothing if each is None else each for each in found], true[part])
    return FolderScore(metric, missing, overhang)


def clipped_boxes(
    found: Sequence[Boxes], sizes: Sequence[tuple[int, int]], ids: Sequence[str], where: str
) -> tuple[list[Boxes], Overhang]:
    """Boxes clipped to their images, and what was clipped; refuses lists with implausible overhangs."""
    total, clipped = Overhang(), []
    for true_boxes, size, name in zip(found, sizes, ids, strict=True):
        try:
            boxes_, overhang = clip(true_boxes, size, f"{where}: {name}" if where else name)
        except InputError as error:
            raise InputError(f"{error}; are width and height swapped in image_sizes.txt?") from None
        clipped.append(boxes_)
        total += overhang
    total.require_plausible()
    return clipped, total


def score_masks(
    folder: Path, metadata: Metadata, root: Path, protocol: str, side: int = 224, allow_missing: bool = False
) -> tuple[dict[str, float], list[str]]:
    """PxAP of a folder of ``{image id}.npy`` against masks, and the ids without a map; memory holds one at a time.

    Args:
        folder: of the maps.
        metadata: lists that name masks.
        root: folder of the masks.
        protocol: its name; it gives the normaliser.
        side: masks are resized to it (nearest neighbour), all objects count as one, ignored pixels do not count.
        allow_missing: treat a missing map as one without contrast.

    Returns:
        ``without_contrast``, how many maps have none; in percent ``px_ap`` and ``pixel_iou_best``, at the threshold
        that is best on these images, where a record's ``pixel_iou`` has that of val.

    Raises:
        InputError: a map or a mask that is missing or cannot be read, or no mask that shows an object.
    """
    pixels, missing, flat, found = masks.PixelHistogram(), [], 0, protocols.find(protocol)
    for name, files in zip(metadata.ids, metadata.masks or (), strict=True):
        score_map = _load(photos.path_below(folder, f"{name}.npy", "image_ids.txt"), allow_missing)
        missing += [] if score_map is not None else [name]
        prepared = maps.prepared(np.zeros((1, 1)) if score_map is None else score_map, side, found)
        flat += score_map is not None and not prepared.any()
        mask = photos.load_mask([photos.path_below(root, file, name) if file else None for file in files])
        pixels.add(prepared, geometry.eval_frame(mask.shape[::-1], Frame(side, side)).mask(mask))
    if not pixels.objects:
        raise InputError(f"the masks under {root} show no object")
    return {
        "without_contrast": flat,
        "px_ap": pixels.average_precision(),
        "pixel_iou_best": float(pixels.iou().max()),
    }, missing


def score(
    folder: Path,
    lists: Path,
    protocol: str,
    val: tuple[Path, Path] | None = None,
    masks_root: Path | None = None,
    side: int = 224,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """The output of ``eil score``, by :func:`score_folder` or :func:`score_masks`.

    ``missing`` lists ids; ``clipped_boxes`` is one line about clipped boxes, "" if there are none.
    Arguments are theirs; ``val`` is the folder of val's maps and that of its lists.

    Raises:
        SettingError: there is no such protocol.
        InputError: a file that is missing or wrong, or what the protocol or the lists need is not given.
    """
    protocol = protocols.current_name(protocol)
    needs_val = protocols.find(protocol).threshold_from == "val"
    metadata = wsoleval.lists(lists)
    found: dict[str, Any]
    if metadata.masks is not None:
        if masks_root is None:
            raise InputError(f"{lists}: names masks; give their folder with --masks")
        found, missing = score_masks(folder, metadata, masks_root, protocol, side, allow_missing)
    else:
        if needs_val and val is None:
            raise InputError(
                f"protocol {protocol} chooses its threshold on val: give --val-maps and --val-metadata, or a protocol "
                "that chooses on the scored images, such as wsoleval-v2"
            )
        of_val = None
        if needs_val and val is not None:
            of_val = score_folder(val[0], wsoleval.lists(val[1]), protocol, side, allow_missing, str(val[1] / _BOXES))
        scored = score_folder(folder, metadata, protocol, side, allow_missing, str(lists / _BOXES))
        every = [scored] if of_val is None else [scored, of_val]
        missing = [name for each in every for name in each.missing]
        found = {
            "without_contrast": sum(each.metric.without_contrast for each in every) - len(missing),
            "clipped_boxes": "; ".join(filter(None, (each.overhang.remark for each in every))),
            **scored.metric.compute(of_val.metric if of_val else None),
        }
    return {"protocol": protocol, "images": len(metadata.ids), "missing": missing, **found}


def boxes_in_frame(true: Boxes, size: tuple[int, int], side: int, protocol: Protocol) -> Boxes:
    """Boxes of an image of ``size`` (width, height) in the S x S frame, in whole pixels, (K, 4) -> (K, 4)."""
    return geometry.eval_frame(size, frame_of(side, protocol)).boxes(true, size)


def frame_of(side: int, protocol: Protocol) -> Frame:
    """The S x S frame in which a protocol compares boxes."""
    return Frame(round(side * _RESIZED), side, protocol.geometry)


def _load(path: Path, allow_missing: bool) -> npt.NDArray[np.floating] | None:
    try:
        found = npz.read_npy(path)
    except FileNotFoundError:
        if allow_missing:
            return None
        raise InputError(f"{path}: no such map (--allow-missing counts it as a miss)") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable .npy of plain numbers: {error}") from None
    if found.ndim != 2 or found.dtype.char not in "efdbBhHiIlLqQ" or not found.size:
        raise InputError(f"{path}: expected a map of shape (height, width), found {found.shape} of {found.dtype}")
    if max(found.shape) > LARGEST_SIDE:
        raise InputError(f"{path}: a map of shape {found.shape}: no side may be longer than {LARGEST_SIDE}")
    numbers: npt.NDArray[np.float64] = found.astype(np.float64, copy=False)
    if not maps.usable(numbers):
        raise InputError(f"{path}: a score map holds NaN or infinity, or a value beyond {maps.LARGEST:g}")
    return numbers
