"""Command that lists backbones and their stages, without a study."""

from collections.abc import Sequence


def list_backbones(*names: str, output_stride: int | None = None) -> None:
    """List the backbones, or the stages of those that are named: widths, strides, and default stages of methods.

    Example: eil backbones timm/resnet50.tv_in1k

    Args:
        names: Backbones, or a pattern of timm's: 'timm/convnext_*' lists the names that fit.
        output_stride: Input pixels per cell of the last feature map; default: the backbone's.
    """
    from eil import backbones
    from eil.backbones import listing, timm_networks
    from eil.core import registry
    from eil.core.files import InputError

    if not names:
        shown = [backbones.build_shapes(name) for name in registry.available(registry.BACKBONES)]
        print(_aligned(listing.summary(shown)))
        print("networks of the library timm: timm/NAME.TAG; `eil backbones 'timm/*'` lists them")
    for name in names:
        library, _, pattern = name.partition("/")
        if library == "timm" and "*" in pattern:
            found = timm_networks.names(pattern)
            if not found:
                raise InputError(f"{name}: no network of timm that can be cut into stages has such a name")
            print("\n".join(f"timm/{each}" for each in found))
            continue
        backbone = backbones.build_shapes(name, output_stride=output_stride)
        print(f"{name}: {listing.description(backbone)}")
        print(_aligned(listing.stages(backbone)))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
