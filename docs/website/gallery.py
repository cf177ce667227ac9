"""The gallery: every table and figure of a study, with what is committed of it in results/reference/.

The sentences are those of :mod:`eil.report.catalogue`. Nothing here needs mkdocs.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eil.report.catalogue import FIGURES, TABLES, Kind, kind_of

REFERENCE = "results/reference"
_NAME = re.compile(r"(?P<study>\w+?)-(?P<machine>.+)-(?P<date>\d{4}-\d\d-\d\d)-(?P<name>.+)")
_START = """# Gallery

Every table and figure that a study can have, by the name of its files in `results/STUDY/tables` and
`results/STUDY/figures`. Each is made from records alone; `snakemake` makes them at the end of a study, and the command
below each makes it again. What is shown is committed in [results/reference](../results/reference/README.md), which
names commits and machines. The birds are drawn; photos of data sets are not shown.
"""


class Example(NamedTuple):
    """A committed table or figure.

    Attributes:
        path: in the repository.
        study: its name, which is also that of a file in workflow/config/.
        machine: processor, cores, precision.
        date: ISO.
    """

    path: str
    study: str
    machine: str
    date: str


def examples(names: Sequence[str], kinds: Sequence[Kind]) -> dict[str, Example]:
    """The committed file of each kind, by the kind's name: the demo's if there is one, else the newest.

    Args:
        names: of the files in results/reference/, with one suffix.
        kinds: of tables, or of figures.
    """
    found: dict[str, Example] = {}
    for name in names:
        match = _NAME.fullmatch(Path(name).stem)
        kind = kind_of(match["name"], kinds) if match else None
        if match is None or kind is None:
            continue
        example = Example(f"{REFERENCE}/{name}", match["study"], match["machine"], match["date"])
        found[kind.name] = max(found.get(kind.name, example), example, key=lambda e: (e.study == "demo", e.date))
    return found


def page(root: Path) -> str:
    """The gallery as Markdown, with links as if it were in docs/."""
    names = sorted(path.name for path in (root / REFERENCE).iterdir())
    of_tables = examples([name for name in names if name.endswith(".md")], TABLES)
    of_figures = examples([name for name in names if name.endswith(".png")], FIGURES)
    tables = [_section("table", kind, of_tables.get(kind.name), root) for kind in TABLES]
    figures = [_section("figure", kind, of_figures.get(kind.name), root) for kind in FIGURES]
    data = f"![birds](../{REFERENCE}/birds.png)\n\n" + _command("eil sheet workflow/config/demo.yaml")
    parts = [
        "## Figures",
        *figures,
        "## Tables",
        *tables,
        "## Data",
        "Images of each class with boxes and masks.",
        data,
    ]
    return "\n\n".join([_START.strip(), *parts]) + "\n"


def _section(what: str, kind: Kind, example: Example | None, root: Path) -> str:
    slug = re.sub(r"\W+", "-", kind.name).strip("-_")
    lines = [f"### `{kind.name}` {{ #{what}-{slug} }}", f"{kind.shows[0].upper()}{kind.shows[1:]}."]
    if kind.condition:
        lines[1] += f" Needs {kind.condition}."
    program = "eil aggregate" if what == "table" else "eil figures"
    study = example.study if example else "maps" if kind.name.startswith("maps") else "STUDY"
    lines.append(_command(f"{program} workflow/config/{study}.yaml" if study != "STUDY" else f"{program} STUDY"))
    if example is None:
        return "\n\n".join([*lines, "No example is committed."])
    text = f"{example.study}, {example.machine}, {example.date}"
    if what == "figure":
        return "\n\n".join([*lines, f"![{kind.name}](../{example.path})", f"*{text}*"])
    content = (root / example.path).read_text(encoding="utf-8").strip()
    indented = "\n".join(f"    {line}" if line else "" for line in content.splitlines())
    return "\n\n".join([*lines, f'??? example "{text}"', indented])


def _command(command: str) -> str:
    return f"```console\n$ {command}\n```"
