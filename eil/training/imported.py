"""Import a checkpoint that others trained: find whose names it has, map them to ours, load it strictly.

Files are read by :func:`eil.backbones.pretrained.read_local`, which unpickles tensors only. The names are in
:mod:`eil.training.key_maps`.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from eil import backbones
from eil.backbones import Backbone
from eil.backbones.meta import meta_tensors
from eil.backbones.pretrained import read_local
from eil.backbones.state_dicts import COUNTER, kind_of
from eil.core import provenance, ranks, registry, source_hash
from eil.core.files import InputError, atomic_write, write_json
from eil.core.run import DatasetChoice, Recipe, Run
from eil.data import cache
from eil.methods.base import Method
from eil.study import layouts
from eil.training import checkpoint, key_maps, train, train_step
from eil.training.key_maps import KeyMap

_log = logging.getLogger(__name__)
_HISTORY = ("epoch", "lr", "seconds", "images_per_s", "total")
_TRAINING_ONLY = ("head_init", "head_dropout", "keep_classifier")  # options that change no trained network
_SHOWN = 20


@dataclass
class Match:
    """A state dict compared with a network.

    Attributes:
        key_map: by which its names were mapped.
        tensors: that fit, by our names and in our shapes.
        missing: our tensors that it lacks, with their shapes.
        unexpected: its tensors that ours lacks, with their shapes.
        mismatched: its tensors of another shape or type than ours.
        ignored: its tensors that are known to be of no use.
    """

    key_map: KeyMap
    tensors: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def problems(self) -> int:
        """Number of tensors that do not match."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    def lines(self, limit: int | None = None) -> list[str]:
        """A line for each tensor that does not match; of each kind at most so many."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": self.mismatched}
        text = []
        for kind, names in kinds.items():
            text += [f"{kind}: {name}" for name in names[:limit]]
            if len(names) > len(names[:limit]):
                text.append(f"{kind}: and {len(names) - len(names[:limit])} more")
        return text


def match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], key_map: KeyMap) -> Match:
    """Compare a state dict with a network's.

    Args:
        found: the state dict, with its names.
        wanted: the network's, for names, shapes and types.
        key_map: maps the names.
    """
    result = Match(key_map)
    met = set()
    for theirs, value in found.items():
        ours = key_map.rename(theirs)
        if ours is not None and ours in wanted:
            met.add(ours)
            fitted = _as_linear(value, wanted[ours])
            if kind_of(fitted) == kind_of(wanted[ours]):
                result.tensors[ours] = fitted
            else:
                result.mismatched.append(f"{theirs} {kind_of(value)}, {ours} is {kind_of(wanted[ours])}")
        elif theirs.endswith(COUNTER) or theirs.startswith(tuple(f"{part}." for part in key_map.ignored)):
            result.ignored.append(theirs)
        else:
            result.unexpected.append(f"{theirs} {kind_of(value)}")
    result.missing = [
        f"{name} {kind_of(value)}" for name, value in wanted.items() if name not in met and not name.endswith(COUNTER)
    ]
    return result


def best_match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], candidates: Sequence[KeyMap]) -> Match:
    """The match by the map of keys that leaves the fewest problems; of equal ones the first."""
    return min((match(found, wanted, key_map) for key_map in candidates), key=lambda each: each.problems)


def candidates(run: Run, backbone: Backbone) -> list[KeyMap]:
    """The maps of keys that a run's checkpoint may have."""
    stride = run.output_stride or backbone.info.output_strides[0]
    return key_maps.find(run.backbone, run.method, stride)


def load(run: Run, model: Method) -> Match:
    """Load a run's checkpoint into its method.

    Raises:
        InputError: the file cannot be read, has other tensors, or is of a network with other options.
    """
    assert run.checkpoint is not None
    path = run.checkpoint.rpartition("@sha256:")[0]
    found = best_match(read_local(run.checkpoint, "checkpoint"), model.state_dict(), candidates(run, model.backbone))
    require_match(found, f"checkpoint {path}", run)
    model.load_state_dict(found.tensors, strict=False)  # complete but for counters
    return found


def require_match(found: Match, source: str, run: Run) -> None:
    """Refuse a checkpoint that is not of the run's network.

    Args:
        found: of the checkpoint.
        source: start of the error.
        run: the run.

    Raises:
        InputError: tensors are missing, unexpected or mismatched, or the names are of a network with other options.
    """
    whose = f"{found.key_map.name}'s names for {run.method} on {run.backbone}"
    if found.problems:
        raise InputError("\n".join([f"{source}: does not match; closest are {whose}", *found.lines(_SHOWN)]))
    network, settings = _other_options(found.key_map, run)
    if network:
        raise InputError(
            f"{source}: has {whose}, whose network has {', '.join(network)}; set layout: {found.key_map.layout}, or "
            "these options under network"
        )
    if settings:
        _log.warning("%s: has %s, which go with %s; the run has others", source, whose, ", ".join(settings))


def _other_options(key_map: KeyMap, run: Run) -> tuple[list[str], list[str]]:
    """Options of the network, and settings, that the names' network has and the run has not."""
    if key_map.layout == layouts.OWN:
        return [], []
    whole = layouts.find(key_map.layout, run.dataset.data_name, run.backbone, run.method, run.output_stride)
    network = [
        f"{key} = {value}"
        for key, value in whole.network.items()
        if key not in _TRAINING_ONLY and _plain(run.network.get(key)) != _plain(value)
    ]
    settings = whole.settings.items()
    return network, [f"{key} = {value}" for key, value in settings if _plain(run.settings.get(key)) != _plain(value)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_linear(value: Tensor, wanted: Tensor) -> Tensor:
    """A 1x1 convolution's weight as that of the linear layer that stands for it: (C, K, 1, 1) -> (C, K)."""
    if wanted.dim() == 2 and value.dim() == 4 and value.shape[2:] == (1, 1):
        return value[:, :, 0, 0]
    return value


def import_run(run: Run, data: Path, folder: Path) -> None:
    """Write what a training writes, with the checkpoint's weights and an empty history.

    Args:
        run: with a checkpoint.
        data: folder of the decoded images.
        folder: the run's folder.

    Raises:
        InputError: as in :func:`load`, or missing data.
    """
    if ranks.rank():
        return  # the first process writes
    meter = provenance.ResourceMeter()
    model = train_step.build(run, data)
    found = load(run, model)
    photos = str(cache.describe(data)["photos_sha256"])
    with atomic_write(folder / "history.csv") as beside:
        beside.write_text(",".join(_HISTORY) + "\n", encoding="utf-8")
    train.save_weights(folder / "weights.safetensors", model, run, photos)
    write_json(
        folder / "train.json",
        _summary(run, found)
        | {
            "weights_sha256": backbones.fingerprint(model),
            "photos_sha256": photos,
            "provenance": provenance.provenance() | meter.read(),
        },
    )
    checkpoint.remove(folder)
    _log.info("imported %s: %d tensors by %s's names", run.checkpoint, len(found.tensors), found.key_map.name)


def _summary(run: Run, found: Match) -> dict[str, Any]:
    path, _, digest = str(run.checkpoint).rpartition("@sha256:")
    return {
        "key": run.key,
        "seed": run.rng_seed,
        "sources": source_hash.of_step("train", run),
        "imported": {
            "file": Path(path).name,
            "sha256": digest.lower(),
            "naming": found.key_map.name,
            "tensors": len(found.tensors),
            "unused": found.ignored,
        },
        "epochs": 0,
        "seconds": 0.0,
        "last": {},
        "history": [],
    }


def count_classes(found: Mapping[str, Tensor], candidates: Sequence[KeyMap]) -> int | None:
    """Number of classes of a state dict's classifier; None if it has none by these names."""
    for key_map in candidates:
        for theirs, value in found.items():
            if key_map.rename(theirs) == "head.classifier.weight":
                return int(value.shape[0])
    return None


def inspect(
    path: Path, backbone: str, method: str, layout: str, output_stride: int | None, classes: int | None
) -> tuple[Match, Run]:
    """Compare a file with the network of a layout, without a study and without memory for the network.

    Args:
        path: of the checkpoint.
        backbone: by name; likewise ``method`` and ``layout``.
        method: by name.
        layout: by name.
        output_stride: None for the backbone's default.
        classes: None for the number that the file's classifier has.

    Returns:
        The match, and a run with this checkpoint.

    Raises:
        InputError: the file cannot be read, or has no classifier by a known name.
        SettingError: no such backbone, method or layout.
    """
    run = _run(path, backbone, method, layout, output_stride)
    shapes = backbones.build_shapes(backbone, False, output_stride, run.network)
    found, known = read_local(str(run.checkpoint), "checkpoint"), candidates(run, shapes)
    count = classes or count_classes(found, known)
    if count is None:
        raise InputError(f"checkpoint {path}: no classifier by a known name of {method} on {backbone}; give --classes")
    with meta_tensors():
        model = registry.load(registry.METHODS, method)(shapes, count, **run.settings)
    return best_match(found, model.state_dict(), known), run


def _run(path: Path, backbone: str, method: str, layout: str, output_stride: int | None) -> Run:
    """A run with a file's weights in the network of a layout."""
    run = run_of(backbone, method, output_stride, layout)
    backbones.module_of(backbone)  # unknown names are told before the file is read
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"checkpoint {path}: {error.strerror}") from None
    return run.model_copy(update={"checkpoint": f"{path.absolute()}@sha256:{digest}"})


def run_of(backbone: str, method: str, output_stride: int | None, layout: str) -> Run:
    """A run outside of any study, in the network of a layout.

    Raises:
        SettingError: no such layout, or the reference has no such network.
    """
    whole = layouts.find(layout, "", backbone, method, output_stride)
    return Run(
        study="imported",
        dataset=DatasetChoice(name="imported"),
        backbone=backbone,
        pretrained=False,
        output_stride=output_stride,
        method=method,
        settings=whole.settings,
        repetition=0,
        recipe=Recipe(),
        layout=layout,
        network=whole.network,
    )
