"""Command about a checkpoint that others trained, without a study."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eil.core.run import Run


def import_checkpoint(
    checkpoint: Path,
    /,
    *,
    backbone: str,
    method: str,
    layout: str = "own",
    output_stride: int | None = None,
    classes: int | None = None,
) -> None:
    """Compare a checkpoint with a network, and print the lines that put it into a study.

    Example: eil import best.pth.tar --backbone vgg16 --method cam --layout wsoleval

    Args:
        checkpoint: File of weights: safetensors, or tensors saved by torch. Nothing else is unpickled.
        backbone: Name of the backbone.
        method: Name of the method.
        layout: Whose network it is: own, wsoleval or authors.
        output_stride: Input pixels per cell of the last feature map; default: the backbone's.
        classes: Number of classes; default: the classifier's in the file.
    """
    from eil.core.files import InputError
    from eil.training import imported

    found, run = imported.inspect(checkpoint, backbone, method, layout, output_stride, classes)
    total = len(found.tensors) + found.problems - len(found.missing)
    print(f"{checkpoint}: {found.key_map.name}'s names of {method} on {backbone}")
    print(
        f"{len(found.tensors)} of {total} tensors mapped, {len(found.missing)} missing, {len(found.unexpected)} "
        f"unexpected, {len(found.mismatched)} mismatched, {len(found.ignored)} ignored"
    )
    print("\n".join(found.lines()), end="\n" if found.problems else "")
    if found.problems:
        raise InputError(f"{checkpoint}: does not match {method} on {backbone}")
    imported.require_match(found, str(checkpoint), run)
    weight = found.tensors.get("head.classifier.weight")
    if weight is not None:
        print(f"{len(weight)} classes, in the order of the data set that it was trained on")
    print(f"\nIn a study:\n\n{_lines(run)}", end="")


def _lines(run: "Run") -> str:
    """The part of a study that has a checkpoint."""
    import yaml

    from eil.study import study_paths

    method = {"layout": run.layout, "checkpoint": run.checkpoint}
    place: dict[str, object] = {"output_stride": run.output_stride} if run.output_stride else {}
    backbones = {run.backbone: {**place, "methods": {run.method: method}}}
    content = study_paths.escaped({"backbones": backbones, "methods": {run.method: {}}})
    text: str = yaml.safe_dump(content, sort_keys=False, width=1000)
    return text
