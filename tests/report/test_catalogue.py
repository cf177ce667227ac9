"""The catalogue of tables and figures agrees with what is declared, committed and documented."""

from pathlib import Path

import pytest

from eil.report import figures, tables
from eil.report.catalogue import FIGURES, TABLES, Kind, documented, kind_of

ROOT = Path(__file__).parents[2]


def test_what_is_declared_is_in_the_catalogue() -> None:
    assert {each.name for each in tables.DECLARED} < {kind.name for kind in TABLES}
    assert {name for name, *_ in figures.DECLARED} < {kind.name for kind in FIGURES}


@pytest.mark.parametrize("kinds", [TABLES, FIGURES], ids=["tables", "figures"])
def test_the_docs_list_the_catalogue(kinds: tuple[Kind, ...]) -> None:
    assert len({kind.name for kind in kinds}) == len(kinds)
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert "\n".join(documented(kinds, "table" if kinds is TABLES else "figure")) in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("examples_vgg_small", "examples_…"),
        ("examples_vgg_small_best", "examples_…_best"),
        ("examples_vgg_small_cam_against_eil", "examples_…_against_…"),
        ("maps", "maps"),
        ("maps_vgg_small_eil", "maps_…"),
        ("gamma_sigma_vgg_small_eil", "gamma_sigma_…"),
        ("anything", None),
    ],
)
def test_a_file_is_of_the_most_special_kind(name: str, kind: str | None) -> None:
    found = kind_of(name, FIGURES)
    assert (found.name if found else None) == kind
