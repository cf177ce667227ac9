"""Names of tensors in others' checkpoints, as data: where each part of a network is in ours.

A map of keys belongs to a backbone, to methods, and where positions in a list depend on it to a stride. Only names are
taken from the public repositories, and only of layers that have weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_STAGES = "backbone.stages."
_CAM_METHODS = ("cam", "has", "cutmix")  # one network


@dataclass(frozen=True)
class KeyMap:
    """Where the keys of a state dict are in ours.

    Attributes:
        name: whose names.
        backbone: that they are of.
        methods: that they are of.
        parts: prefix of their names -> prefix of ours; empty: our own names.
        layout: whose network it is (:mod:`eil.study.layouts`); "own" if the names alone decide nothing.
        strides: output strides at which the names are these; empty: at all.
        ignored: prefixes of tensors that no map needs.
    """

    name: str
    backbone: str
    methods: tuple[str, ...]
    parts: Mapping[str, str]
    layout: str = "own"
    strides: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()

    def rename(self, theirs: str) -> str | None:
        """Our name of a tensor; None if no part has it.

        >>> key_map = KeyMap("x", "vgg16", ("cam",), {"conv6": "head.conv.0.0"})
        >>> key_map.rename("conv6.weight"), key_map.rename("conv60.weight")
        ('head.conv.0.0.weight', None)
        """
        if not self.parts:
            return theirs
        part, rest = theirs, ""
        while part:
            part, _, last = part.rpartition(".")
            rest = f".{last}{rest}"
            if part in self.parts:
                return self.parts[part] + rest
        return None


def find(backbone: str, method: str, output_stride: int) -> list[KeyMap]:
    """The known maps of keys of a method on a backbone, and last our own."""
    fitting = [
        each
        for each in KEY_MAPS
        if each.backbone == backbone and method in each.methods and (not each.strides or output_stride in each.strides)
    ]
    return [*fitting, KeyMap("eil", backbone, (method,), {})]


# VGG16. Ours are torchvision's positions, in a stage each; theirs depend on what else is in the list.
_VGG = (
    *("conv1.0", "conv1.2", "conv2.5", "conv2.7", "conv3.10", "conv3.12", "conv3.14"),
    *("conv4.17", "conv4.19", "conv4.21", "conv5.24", "conv5.26", "conv5.28"),
)
_BELOW = (0, 2, 5, 7, 10, 12, 14)
_TORCHVISION = (*_BELOW, 17, 19, 21, 24, 26, 28)
_WITHOUT_POOL4 = (*_BELOW, 17, 19, 21, 23, 25, 27)
_ADL_16 = (*_BELOW, 18, 20, 22, 26, 28, 30)  # layers of ADL at 17 and 24, pool4 at 25
_ADL_8 = (*_BELOW, 18, 20, 22, 25, 27, 29)


def _vgg(names: Sequence[str]) -> dict[str, str]:
    return {theirs: _STAGES + ours for theirs, ours in zip(names, _VGG, strict=True)}


def _features(positions: Sequence[int]) -> dict[str, str]:
    return _vgg([f"features.{k}" for k in positions])


_CONV6 = {"conv6": "head.conv.0.0", "fc": "head.classifier"}


def _two_classifiers(first: str, second: str) -> dict[str, str]:
    """ACoL's: two 3x3 convolutions and one of 1x1, each."""
    layers = {0: "conv.0.0", 2: "conv.1.0", 4: "classifier"}
    pairs = ((first, "head"), (second, "second"))
    return {f"{theirs}.{k}": f"{ours}.{layer}" for theirs, ours in pairs for k, layer in layers.items()}


_SPG_BRANCHES = {
    "SPG_B_1a.0": "b1.0",
    "SPG_B_2a.0": "b2.0",
    "SPG_B_shared.0": "shared.0.0",
    "SPG_B_shared.2": "shared.1",
    "SPG_C.0": "c.0.0",
    "SPG_C.2": "c.1",
}
_SPG_VGG = [
    *(f"features.{k}" for k in _BELOW),
    *(f"SPG_A_{part}.{k}" for part in (1, 2) for k in (0, 2, 4)),
]
_SPG_VGG_HEAD = {"SPG_A_3.0": "head.conv.0.0", "SPG_A_3.2": "head.conv.1.0", "SPG_A_4": "head.classifier"}
_EIL_VGG = [f"conv{k}_{i}" for k, count in enumerate((2, 2, 3, 3, 3), start=1) for i in range(1, count + 1)]

# ResNet-50. Ours has a stage a bottleneck.
_STEM = {"conv1": f"{_STAGES}stem.0", "bn1": f"{_STAGES}stem.1"}


def _blocks(theirs: str, ours: str, positions: Sequence[int], first: int = 0) -> dict[str, str]:
    return {f"{theirs}.{k}": f"{_STAGES}{ours}_{i}" for i, k in enumerate(positions, start=first)}


_LOWER = {**_STEM, **_blocks("layer1", "layer1", range(3)), **_blocks("layer2", "layer2", range(4))}
_LAYER_4 = _blocks("layer4", "layer4", range(3))
_RESNET = {**_LOWER, **_blocks("layer3", "layer3", range(6)), **_LAYER_4}
_RESNET_ADL = {  # layers of ADL behind the first block of layer3, and the first and last of layer4
    **_LOWER,
    **_blocks("layer3", "layer3", (0, 2, 3, 4, 5, 6)),
    **_blocks("layer4", "layer4", (0, 2, 3)),
}
_RESNET_SPG = {**_LOWER, **_blocks("SPG_A1", "layer3", [0]), **_blocks("SPG_A2", "layer3", range(5), 1), **_LAYER_4}

# Inception-v3. All have torchvision's names; in ours, Mixed_6a is inside of a module that leaves its stride out.
_CONVOLUTIONS = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_MIXED = (*(f"Mixed_5{k}" for k in "bcd"), *(f"Mixed_6{k}" for k in "bcde"))
_WHOLE_INCEPTION = {
    name: _STAGES + name for name in (*_CONVOLUTIONS, *_MIXED, *(f"Mixed_{k}" for k in ("6a", "7a", "7b", "7c")))
}
_INCEPTION = {**{name: _STAGES + name for name in (*_CONVOLUTIONS, *_MIXED)}, "Mixed_6a": f"{_STAGES}Mixed_6a.block"}
_INCEPTION_HEAD = {"SPG_A3_1b.0": "head.conv.0.0", "SPG_A3_2b.0": "head.conv.1.0", "SPG_A4": "head.classifier"}
_INCEPTION_SPG_AUTHORS = {
    "fc6.0": "head.conv.0.0",
    "fc7_1.0": "head.conv.1.0",
    "classier_1": "head.classifier",  # as they spell it
    "side3.0": "b1.0",
    "side4.0": "b2.0",
    "side_all.0": "shared.0.0",
    "side_all.2": "shared.1",
    "branchB.0": "c.0.0",
    "branchB.2": "c.1",
}

_AB = _two_classifiers("classifier_A", "classifier_B")
_CLS = _two_classifiers("cls", "cls_erase")
_A4 = {"SPG_A4": "head.classifier"}
_WSOLEVAL = "wsoleval"  # clovaai/wsolevaluation: wsol/vgg.py, wsol/resnet.py, wsol/inception.py
_AUTHORS = "authors"  # Wayne-Mai/EIL: network/vgg_eil.py; xiaomengyc/ACoL: models/vgg/vgg_v1.py; xiaomengyc/SPG

KEY_MAPS = (
    KeyMap(_WSOLEVAL, "vgg16", _CAM_METHODS, {**_features(_TORCHVISION), **_CONV6}, _WSOLEVAL, (16,)),
    KeyMap(_WSOLEVAL, "vgg16", _CAM_METHODS, {**_features(_WITHOUT_POOL4), **_CONV6}, _WSOLEVAL, (8,)),
    KeyMap(_WSOLEVAL, "vgg16", ("adl",), {**_features(_ADL_16), **_CONV6}, _WSOLEVAL, (16,)),
    KeyMap(_WSOLEVAL, "vgg16", ("adl",), {**_features(_ADL_8), **_CONV6}, _WSOLEVAL, (8,)),
    KeyMap(_WSOLEVAL, "vgg16", ("acol",), {**_features(_TORCHVISION), **_AB}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "vgg16", ("spg",), {**_vgg(_SPG_VGG), **_SPG_VGG_HEAD, **_SPG_BRANCHES}, _WSOLEVAL, (16, 8)),
    KeyMap(_AUTHORS, "vgg16", ("eil",), {**_vgg(_EIL_VGG), **_CONV6}, _AUTHORS, (16,)),
    KeyMap(_AUTHORS, "vgg16", ("acol",), {**_features(_TORCHVISION), **_CLS}, _AUTHORS, (8,)),
    # wsolevaluation's CAM has torchvision's names, which are timm's too.
    KeyMap("wsoleval or torchvision", "resnet50", _CAM_METHODS, {**_RESNET, "fc": "head.classifier"}),
    KeyMap(_WSOLEVAL, "resnet50", ("adl",), {**_RESNET_ADL, "fc": "head.classifier"}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "resnet50", ("acol",), {**_RESNET, **_AB}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "resnet50", ("spg",), {**_RESNET_SPG, **_A4, **_SPG_BRANCHES}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "inception_v3", (*_CAM_METHODS, "adl"), {**_INCEPTION, **_INCEPTION_HEAD}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "inception_v3", ("acol",), {**_INCEPTION, **_AB}, _WSOLEVAL, (16, 8)),
    KeyMap(_WSOLEVAL, "inception_v3", ("spg",), {**_INCEPTION, **_INCEPTION_HEAD, **_SPG_BRANCHES}, _WSOLEVAL, (16, 8)),
    KeyMap(_AUTHORS, "inception_v3", ("spg",), {**_INCEPTION, **_INCEPTION_SPG_AUTHORS}, _AUTHORS, (8,)),
    KeyMap(
        "torchvision",
        "inception_v3",
        _CAM_METHODS,
        {**_WHOLE_INCEPTION, "fc": "head.classifier"},
        strides=(32,),
        ignored=("AuxLogits",),
    ),
)  # fmt: skip
