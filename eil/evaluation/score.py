"""Score maps that anyone made: a folder of .npy files against the benchmark's lists, or arrays in a program."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eil import arrays
from eil.data import Boxes, geometry, photos, wsoleval
from eil.data.geometry import Frame
from eil.data.wsoleval import Metadata
from eil.evaluation import boxes, maps, masks, metrics, protocols
from eil.evaluation.metrics import Scores
from eil.evaluation.protocols import Contours, Protocol
from eil.files import InputError
from eil.machine import threads

CHUNK = 256  # maps at full size at once
LARGEST_SIDE = 8192  # of a map; the largest photos are about as large
_RESIZED = 256 / 224  # under "center-crop" an image is resized to this share of the crop's side first


class MaxBoxAcc:
    """Box accuracy over all thresholds, with torchmetrics' conventions: update, compute, reset.

    >>> metric = MaxBoxAcc("wsoleval-v1", side=8)
    >>> metric.update(np.pad(np.ones((1, 4, 4)), ((0, 0), (2, 2), (2, 2))), [np.array([[2.0, 2, 6, 6]])])
    >>> metric.compute()["max_box_acc"]
    100.0

    Args:
        protocol: its name.
        side: of the square frame of boxes; maps of any size are resized to it.
    """

    def __init__(self, protocol: str = "wsoleval-v2", side: int = 224) -> None:
        self.protocol, self.side = protocols.find(protocol), side
        self._curves: dict[Contours, list[npt.NDArray[np.float32]]] = {}
        self._otsu: list[int] = []
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        own, v2 = self.protocol.contours, self.protocol.contours_v2
        self._curves = {contours: [] for contours in ((own, v2) if v2 and v2 != own else (own,))}
        self._otsu = []

    def update(self, score_maps: Sequence[npt.NDArray[np.floating]], true: Sequence[Boxes]) -> None:
        """Take in B images.

        Args:
            score_maps: (B, h, w), or B maps of any sizes.
            true: true boxes of each in the frame, (K, 4), inclusive.

        Raises:
            InputError: a map that is not finite or not two-dimensional; boxes of another number or order.
        """
        if not len(true):
            return
        if len(score_maps) != len(true):
            raise InputError(f"{len(score_maps)} maps for {len(true)} images")
        for own in true:
            if own.ndim != 2 or own.shape[1] != 4 or not len(own) or (own[:, 2:] < own[:, :2]).any():
                raise InputError(f"boxes must be (K, 4) as x0, y0, x1, y1 with x1 >= x0: {own.tolist()}")
        with ThreadPoolExecutor(threads()) as pool:
            images = list(pool.map(lambda m: maps.to_8_bit(np.asarray(m), self.side, self.protocol), score_maps))
        for contours, found in self._curves.items():
            found.append(boxes.iou_curves(images, true, contours, self.protocol.rules, threads()).astype(np.float32))
        self._otsu += [maps.otsu(image) for image in images]

    def scores(self) -> Scores:
        """Curves of all images so far; classification is taken as right."""
        if not self._otsu:
            raise InputError("no maps to score")
        right = np.ones(len(self._otsu), dtype=bool)
        v2 = self.protocol.contours_v2
        return Scores(
            curve=np.concatenate(self._curves[self.protocol.contours]),
            curve_v2=np.concatenate(self._curves[v2]) if v2 else None,
            otsu=np.array(self._otsu),
            top1=right,
            top5=right,
        )

    def compute(self, chosen_on: "MaxBoxAcc | None" = None) -> dict[str, float]:
        """Scores in percent: ``gt_known_loc`` (at IoU 0.5) and what the protocol has of ``max_box_acc_v2``.

        ``max_box_acc`` too, where it is that: the largest contour's box at the best of all thresholds.

        Args:
            chosen_on: the images on which thresholds are chosen if the protocol's policy is "val".

        Raises:
            InputError: nothing to choose a threshold on.
        """
        if self.protocol.threshold == "val" and chosen_on is None:
            raise InputError("the protocol chooses its threshold on val, of which there are no maps")
        scored = self.scores()
        on = scored if chosen_on is None else chosen_on.scores()
        found = metrics.metrics(scored, on, self.protocol, self.protocol.threshold)
        v2 = {key: value for key, value in found.items() if key.startswith("max_box_acc_v2")}
        own = self.protocol
        best = own.contours == "largest" and own.threshold == "oracle" and own.levels is None
        located = found["gt_known_loc"]
        return {"gt_known_loc": located, **({"max_box_acc": located} if best else {}), **v2}


def score_folder(
    folder: Path, metadata: Metadata, protocol: str, side: int = 224, allow_missing: bool = False
) -> tuple[MaxBoxAcc, list[str]]:
    """Score a folder of ``{image id}.npy`` against boxes.

    Returns:
        The metric, and the ids without a map; each of these counts as a map without contrast.

    Raises:
        InputError: a map that is missing, unreadable, a pickle, of a wrong shape or not finite, by its file's name.
    """
    if metadata.boxes is None or metadata.sizes is None:
        raise InputError("boxes cannot be scored: the lists have none, or no sizes of the images (image_sizes.txt)")
    metric, missing = MaxBoxAcc(protocol, side), []
    for start in range(0, len(metadata.ids), CHUNK):
        part = slice(start, start + CHUNK)
        found = []
        for name in metadata.ids[part]:
            score_map = _load(photos.inside(folder, f"{name}.npy", "image_ids.txt"), allow_missing)
            missing += [] if score_map is not None else [name]
            found.append(np.zeros((1, 1)) if score_map is None else score_map)
        true = [
            framed(own, (width, height), side, metric.protocol)
            for own, (width, height) in zip(metadata.boxes[part], metadata.sizes[part].tolist(), strict=True)
        ]
        metric.update(found, true)
    return metric, missing


def score_masks(
    folder: Path, metadata: Metadata, root: Path, protocol: str, side: int = 224, allow_missing: bool = False
) -> tuple[dict[str, float], list[str]]:
    """PxAP of a folder of ``{image id}.npy`` against masks, and the ids without a map.

    Args:
        folder: of the maps.
        metadata: whose lists name masks.
        root: where the masks lie.
        protocol: its normaliser is taken.
        side: masks are resized to it (nearest), objects united; the ignored region is left out.
        allow_missing: take a map without contrast where one is missing.
    """
    pooled, missing, rules = masks.Pooled(), [], protocols.find(protocol)
    for name, files in zip(metadata.ids, metadata.masks or (), strict=True):
        score_map = _load(photos.inside(folder, f"{name}.npy", "image_ids.txt"), allow_missing)
        missing += [] if score_map is not None else [name]
        prepared = maps.prepared(np.zeros((1, 1)) if score_map is None else score_map, side, rules)
        mask = photos.load_mask([photos.inside(root, file, name) if file else None for file in files])
        pooled.add(prepared, geometry.seen(mask.shape[::-1], Frame(side, side)).mask(mask))
    if not pooled.objects:
        raise InputError(f"the masks under {root} show no object")
    return {
        "px_ap": pooled.average_precision(),
        "pixel_iou_best": float(pooled.iou().max()),
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
    """Everything that ``eil score`` prints. See :func:`score_folder` and :func:`score_masks`."""
    needs_val = protocols.find(protocol).threshold == "val"
    metadata = wsoleval.lists(lists)
    if metadata.masks is not None:
        if masks_root is None:
            raise InputError(f"{lists}: names masks; say where they lie with --masks")
        found, missing = score_masks(folder, metadata, masks_root, protocol, side, allow_missing)
    else:
        if needs_val and val is None:
            raise InputError(
                f"protocol {protocol} chooses its threshold on val: give --val-maps and --val-metadata, or a protocol "
                "that chooses on the scored images, such as wsoleval-v2"
            )
        on = None
        if needs_val and val is not None:
            on, missing_on = score_folder(val[0], wsoleval.lists(val[1]), protocol, side, allow_missing)
        metric, missing = score_folder(folder, metadata, protocol, side, allow_missing)
        missing += missing_on if on is not None else []
        found = metric.compute(on)
    return {"protocol": protocol, "images": len(metadata.ids), "missing": missing, **found}


def framed(true: Boxes, size: tuple[int, int], side: int, protocol: Protocol) -> Boxes:
    """Boxes of an image of ``size`` (width, height) in the S x S frame, in whole pixels, (K, 4) -> (K, 4)."""
    frame = Frame(round(side * _RESIZED), side, protocol.geometry)
    return geometry.seen(size, frame).boxes(true, size)


def _load(path: Path, allow_missing: bool) -> npt.NDArray[np.floating] | None:
    try:
        found = arrays.read_npy(path)
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
    numbers: npt.NDArray[np.float64] = found.astype(np.float64)
    if not maps.usable(numbers):
        raise InputError(f"{path}: a score map holds NaN or infinity, or a value beyond {maps.LARGEST:g}")
    return numbers
