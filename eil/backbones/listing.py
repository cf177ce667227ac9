"""What there is to know of a backbone as rows of text, for ``eil backbones``."""

from collections.abc import Sequence

from eil.backbones.base import Backbone

_NONE = "-"


def summary(backbones: Sequence[Backbone]) -> list[list[str]]:
    """A row for each backbone, after a header: weights, output strides, stages, the last map, EIL's default stage."""
    rows = [["backbone", "pretrained", "output_stride", "stages", "last map", "EIL erases after"]]
    for backbone in backbones:
        info = backbone.info
        rows.append(
            [
                backbone.name,
                ", ".join(info.weights) or _NONE,
                ", ".join(map(str, info.output_strides)),
                str(len(backbone.names)),
                f"{_times(list(backbone.stage_shapes().values())[-1])} at {info.example_side}",
                info.eil_stage or _NONE,
            ]
        )
    return rows


def description(backbone: Backbone) -> str:
    """Weights, output strides and normalisation in a line."""
    info = backbone.info
    weights = [*info.weights, *(["FILE@sha256:HASH"] if info.local_weights else [])]
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (info.mean, info.std))
    strides = ", ".join(map(str, info.output_strides))
    return f"pretrained: {', '.join(weights) or 'none'}; output_stride: {strides}; input: mean {mean}, std {std}"


def stages(backbone: Backbone) -> list[list[str]]:
    """A row for each stage, after a header: its output, input pixels per cell, sign, and whose default it is."""
    info = backbone.info
    defaults = {
        "eil": [info.eil_stage] if info.eil_stage else [],
        "meil": info.meil_stages or (),
        "adl": info.adl_stages or (),
        "spg": info.spg_stages or (),
    }
    places = {method: [backbone.index(stage) for stage in given] for method, given in defaults.items()}
    rows = [["stage", "output", "stride", "non-negative", "default of"]]
    for position, (name, shape) in enumerate(backbone.stage_shapes().items()):
        stride = f"{info.example_side / shape[1]:.3g}" if len(shape) == 3 else _NONE
        methods = ", ".join(method for method, positions in places.items() if position in positions)
        sign = "yes" if backbone.is_non_negative(name) else "no"
        rows.append([name, _times(shape), stride, sign, methods or _NONE])
    return rows


def _times(shape: Sequence[int]) -> str:
    """(512, 14, 14) -> 512 x 14 x 14."""
    return " x ".join(map(str, shape))
