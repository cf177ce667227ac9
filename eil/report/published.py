"""Published scores (results/published.csv), to stand beside ours where everything that matters agrees."""

import csv
import functools
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from eil.core import project_files
from eil.core.files import InputError
from eil.core.metric_definitions import MetricLabel
from eil.core.run import StrictModel
from eil.core.settings import problems

FILE = project_files.folder() / "results" / "published.csv"
# Transformers of papers -> here; timm has the weights of DeiT's authors under these tags.
NETWORKS = {
    "deit_tiny": "timm/deit_tiny_patch16_224.fb_in1k",
    "deit_small": "timm/deit_small_patch16_224.fb_in1k",
    "deit_base_384": "timm/deit_base_patch16_384.fb_in1k",
}


class Published(StrictModel):
    """One published score.

    Attributes:
        dataset: as its paper calls it; ``backbone`` ("" if not stated) and ``method`` likewise.
        metric: the label of one in :mod:`eil.core.metric_definitions`.
        value: in percent.
        protocol: a name in protocols.yaml, or words where it is none of these.
        source: where it was read.
        status: "read" there, "conflicting" with another source, or printed by others ("second hand"): never a target.
        layout: whose network it is (:mod:`eil.study.layouts`), "" if unknown.
        threshold: whether the maps' threshold was chosen on val or on test, "none" if the metric has none.
    """

    dataset: str
    backbone: str
    method: str
    metric: MetricLabel
    value: float = Field(ge=0, le=100)
    protocol: str
    source: str
    status: Literal["read", "conflicting", "second hand"]
    layout: Literal["wsoleval", "authors", ""]
    threshold: Literal["val", "test", "none", "unknown"]


@functools.cache
def read(path: Path = FILE) -> tuple[Published, ...]:
    """Every published score; none where there is no file.

    Raises:
        InputError: a line that does not fit the schema, with its number.
    """
    if not path.exists():
        return ()
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                found.append(TypeAdapter(Published).validate_python(row))
            except ValidationError as error:
                raise InputError("\n".join(f"{path}:{number}: {line}" for line in problems(error, Published))) from None
    return tuple(found)


def comparable(method: str) -> str:
    """A method's name without case and signs, as papers and this project write it: DA-WSOL and dawsol are one."""
    return "".join(each for each in method.casefold() if each.isalnum() or each == "+")


def network(backbone: str) -> str:
    """A paper's backbone as studies name it here."""
    return NETWORKS.get(backbone, backbone)


def find(dataset: str, backbone: str, method: str, metric: str, protocol: str) -> Published | None:
    """The published score of the same data set, backbone, method, metric and protocol; None if sources disagree."""
    wanted = (dataset.casefold(), backbone, comparable(method), metric, protocol)
    found = [
        row
        for row in read()
        if (row.dataset.casefold(), network(row.backbone), comparable(row.method), row.metric, row.protocol) == wanted
    ]
    return found[0] if found and all(row.status == "read" for row in found) else None
