"""What the ``eil`` program does without a study: maps of other repositories, data sets, two folders of results."""

import argparse
import sys
from pathlib import Path

from eil.core.files import InputError, at_home, write_json, write_text
from eil.core.run import DatasetChoice


def compare(args: argparse.Namespace) -> None:
    """Hold the scores of two studies, or of one at two commits, against each other."""
    from eil.report import compare as compares

    ours, theirs = (compares.read(folder) for folder in (args.first, args.second))
    table = compares.compare(ours, theirs, (str(args.first), str(args.second)))
    if args.out:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            write_text(args.out / f"compare.{suffix}", text)
    print(table.markdown(), end="")


def data_check(args: argparse.Namespace) -> None:
    """Decode every image of a data set and say what is missing, broken or shared between splits."""
    import yaml

    from eil import data
    from eil.data import check
    from eil.report import contact_sheet
    from eil.study import study_paths

    try:
        settings = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in args.set)}
    except yaml.YAMLError as error:
        raise InputError(f"--set {' '.join(args.set)}: not KEY=VALUE in YAML: {error}") from None
    settings = study_paths.located({"dataset": settings}, Path(), args.dataset)["dataset"]
    chosen = DatasetChoice(name=args.dataset, root=args.root and at_home(args.root, "--root"), **settings)
    dataset = data.read(args.dataset, chosen.folder(), settings)
    found = check.check_dataset(dataset)
    out = args.out or Path("results/check") / chosen.subject
    write_json(out / "check.json", found)
    print("\n".join(check.lines(found, out / "check.json")))
    try:
        contact_sheet.write(dataset, out / "sheet.png")
        print(f"{out / 'sheet.png'} shows test images with their boxes")
    except InputError as error:
        print(f"no contact sheet: {error}")
    if found["problems"]:
        raise InputError(f"{len(found['problems'])} problems, all of them in {out / 'check.json'}")


def score(args: argparse.Namespace) -> None:
    """Score a folder of maps, {image id}.npy, against lists in the wsolevaluation benchmark's layout."""
    import json

    from eil.evaluation.score import score as step

    if (args.val_maps is None) != (args.val_metadata is None):
        raise InputError("--val-maps and --val-metadata belong together")
    val = (args.val_maps, args.val_metadata) if args.val_maps else None
    found = step(args.maps, args.metadata, args.protocol, val, args.masks, args.side, args.allow_missing)
    missing = found.pop("missing")
    if missing:
        print(f"{len(missing)} images have no map and count as missed, {missing[0]} for one", file=sys.stderr)
    if flat := found["without_contrast"]:
        print(f"{flat} maps have no contrast and find nothing", file=sys.stderr)
    if found.get("clipped_boxes"):
        print(found["clipped_boxes"], file=sys.stderr)
    if args.json:
        print(json.dumps(found | {"missing": len(missing)}))
    else:
        shown = {key: value for key, value in found.items() if value != ""}
        print("\n".join(f"{k}: {v if isinstance(v, str | int) else f'{v:.2f}'}" for k, v in shown.items()))
