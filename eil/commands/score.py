"""Commands without a study: score maps of another repository, compare the results of two studies."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from eil.commands.options import FLAG


def score(
    *,
    maps: Path | None = None,
    boxes: Path | None = None,
    metadata: Path,
    protocol: str = "wsoleval-v2",
    val_maps: Path | None = None,
    val_metadata: Path | None = None,
    masks: Path | None = None,
    side: int = 224,
    allow_missing: Annotated[bool, FLAG] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score a folder of maps, IMAGE_ID.npy, or a file of boxes, with lists in the layout of wsolevaluation.

    Example: eil score --maps my_maps --metadata metadata/CUB/test --protocol wsoleval-v2

    Args:
        maps: Folder of the maps, of any resolution and float type.
        boxes: COCO results (JSON) instead of maps, as `eil boxes` writes them; no threshold is chosen.
        metadata: Folder of the lists, such as metadata/CUB/test.
        protocol: Name of a protocol in protocols.yaml.
        val_maps: Maps of val, for a protocol that chooses its threshold there.
        val_metadata: Lists of val.
        masks: Folder of the masks that the lists name (OpenImages).
        side: Side of the frame in pixels.
        allow_missing: Count an image without a map or box as a miss.
        as_json: Print JSON.
    """
    import json

    from eil.evaluation import box_files
    from eil.evaluation.score import score as step

    _require_sound(maps, boxes, val_maps, val_metadata, masks, side)
    _require_used(protocol, metadata, val_maps, masks)
    val = (val_maps, val_metadata) if val_maps and val_metadata else None
    if boxes:
        found = box_files.score_boxes(boxes, metadata, protocol, side, allow_missing)
    elif maps:
        found = step(maps, metadata, protocol, val, masks, side, allow_missing)
    missing = found.pop("missing")
    if missing:
        kind = "box" if boxes else "map"
        print(f"{len(missing)} images have no {kind} and count as missed, first {missing[0]}", file=sys.stderr)
    if flat := found.get("without_contrast"):
        print(f"{flat} maps have no contrast and find nothing", file=sys.stderr)
    if found.get("clipped_boxes"):
        print(found["clipped_boxes"], file=sys.stderr)
    if as_json:
        print(json.dumps(found | {"missing": len(missing)}))
    else:
        shown = {key: value for key, value in found.items() if value != ""}
        print("\n".join(f"{k}: {v if isinstance(v, str | int) else f'{v:.2f}'}" for k, v in shown.items()))


def _require_sound(
    maps: Path | None,
    boxes: Path | None,
    val_maps: Path | None,
    val_metadata: Path | None,
    masks: Path | None,
    side: int,
) -> None:
    """Refuse options of :func:`score` that do not go together, or name no folder.

    Raises:
        InputError: the message names the option.
    """
    from eil.core.files import InputError
    from eil.evaluation.score import LARGEST_SIDE

    if not 1 <= side <= LARGEST_SIDE:
        raise InputError(f"--side {side}: expected 1 to {LARGEST_SIDE} pixels")
    if (val_maps is None) != (val_metadata is None):
        raise InputError("--val-maps and --val-metadata need each other")
    if (maps is None) == (boxes is None):
        raise InputError("give either --maps or --boxes")
    if boxes and (val_maps or masks):
        raise InputError("--boxes has no threshold to choose, and no masks: leave out --val-maps and --masks")
    for option, folder in (("--maps", maps), ("--val-maps", val_maps), ("--masks", masks)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option} {folder}: no such folder")


def _require_used(protocol: str, metadata: Path, val_maps: Path | None, masks: Path | None) -> None:
    """Refuse options of :func:`score` that would change nothing.

    Raises:
        InputError: the message names the option.
    """
    from eil.core.files import InputError
    from eil.data.readers import wsoleval
    from eil.evaluation import protocols

    if val_maps is not None and protocols.find(protocol).threshold_from != "val":
        raise InputError(f"protocol {protocol} chooses no threshold on val: leave out --val-maps and --val-metadata")
    if masks is not None and wsoleval.lists(metadata).masks is None:
        raise InputError(f"{metadata}: names no masks: leave out --masks")


def compare(first: Path, second: Path, /, *, out: Path | None = None) -> None:
    """Compare the scores of two studies, or of one study at two commits.

    Example: eil compare results/demo old/results/demo

    Args:
        first: Results folder of a study.
        second: Results folder of another study, or of the same study at another commit.
        out: Folder for compare.md, .csv and .tex; default: only print the table.
    """
    from eil.core.files import write_text
    from eil.report import compare as report
    from eil.report import results

    ours, theirs = (results.records_in(folder) for folder in (first, second))
    table = report.compare(ours, theirs, (str(first), str(second)))
    if out:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            write_text(out / f"compare.{suffix}", text)
    print(table.markdown(), end="")


def leaderboard(
    *,
    out: Path | None = None,
    reference: Path = Path("results/reference"),
    studies: Path = Path("workflow/config"),
) -> None:
    """Write the leaderboard: every published score, and ours beside it from committed main tables.

    Example: eil leaderboard --out docs/leaderboard.md

    Args:
        out: The Markdown file; default: print it.
        reference: Folder of main tables, STUDY-PROCESSOR-CORES-PRECISION-DATE-main.csv.
        studies: Folder of their studies, STUDY.yaml.
    """
    from eil.core import registry
    from eil.core.files import write_text
    from eil.report import leaderboard as report
    from eil.report import published

    packages = ("eil", "baselines")  # an installed third party's methods are not this page's
    known = registry.available(registry.METHODS)
    methods = [name for name in known if str(registry.module(registry.METHODS, name)).split(".")[0] in packages]
    backbones = [*registry.available(registry.BACKBONES), *published.NETWORKS.values()]
    text = report.page(published.read(), report.read_ours(reference, studies), methods, backbones)
    if out:
        write_text(out, text)
    print(out or text, end="\n" if out else "")
