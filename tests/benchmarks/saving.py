"""Where benchmarks leave their tables: results/{what}-{device}-{date}.md, which says by what it was made."""

import re
from collections.abc import Sequence
from pathlib import Path

from eil.core import provenance
from eil.core.files import write_text
from eil.core.provenance import device_name
from eil.report.notes import Notes
from eil.report.table import Table


def save(
    what: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *notes: str,
    command: str = "make bench",
    folder: Path = Path("results"),
) -> Path:
    """Write a table with a first note of its own; its path."""
    where = provenance.provenance()
    made = f"`{command}` at {where['commit']}: {device_name()}, {where['threads']} threads, "
    made += f"torch {where['versions']['torch']}, {where['time'][:10]}"
    slug = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    path = folder / f"{what}-{slug}-{where['time'][:10]}.md"
    write_text(path, Table(title, header, rows, Notes(other=(made, *notes))).markdown())
    return path
