"""Commands about a data set without a study."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def check(
    dataset: str,
    /,
    *,
    root: Path | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=True)] = (),
    out: Path | None = None,
) -> None:
    """Decode every image of a data set and report what is missing, broken or shared between splits.

    Example: eil data check cub --root /path/to/CUB_200_2011

    Args:
        dataset: Name of the layout, as dataset.name in a study.
        root: Folder of the data set; default: EIL_DATA.
        settings: Further settings, KEY=VALUE each, as under dataset in a study.
        out: Folder for check.json and sheet.png; default: results/check/DATASET.
    """
    import yaml

    from eil import data
    from eil.core.files import InputError, expand_home, write_json
    from eil.core.run import DatasetChoice
    from eil.data import check as checking
    from eil.report import contact_sheet
    from eil.study import study_paths

    try:
        given = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings)}
    except yaml.YAMLError as error:
        raise InputError(f"--set {' '.join(settings)}: not KEY=VALUE in YAML: {error}") from None
    given = study_paths.located({"dataset": given}, Path(), dataset)["dataset"]
    chosen = DatasetChoice(name=dataset, root=root and expand_home(root, "--root"), **given)
    read = data.read(dataset, chosen.folder(), given)
    found = checking.check_dataset(read)
    folder = out or Path("results/check") / chosen.data_name
    write_json(folder / "check.json", found)
    print("\n".join(checking.lines(found, folder / "check.json")))
    try:
        contact_sheet.write(read, folder / "sheet.png")
        print(f"{folder / 'sheet.png'} shows test images with their boxes")
    except InputError as error:
        print(f"no contact sheet: {error}")
    if found["problems"]:
        raise InputError(f"{len(found['problems'])} problems, all listed in {folder / 'check.json'}")
