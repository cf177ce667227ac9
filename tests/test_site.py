"""The documentation site, without mkdocs: every page is in its navigation, and every link has a place on it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gallery
import links
import pytest
import yaml
from test_pages import commands

from eil.commands import cli
from eil.report.catalogue import FIGURES, TABLES

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))


def leaves(nav: Any) -> Iterator[str]:
    for entry in nav if isinstance(nav, list) else nav.values():
        yield from [entry] if isinstance(entry, str) else leaves(entry)


def test_the_navigation_lists_every_page_and_nothing_that_is_missing() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(leaves(config["nav"]))
    assert sorted(listed) == sorted(map(links.place, [*PAGES, *links.TOP_PAGES, links.GALLERY]))
    assert all((ROOT / path).is_file() for path in [*config["hooks"], *links.TOP_PAGES])
    assert all((ROOT / "docs" / path).is_file() for path in config["extra_css"])


def test_what_the_api_pages_name_is_defined() -> None:
    named = [
        name
        for page in PAGES
        for name in re.findall(r"^::: (\S+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(named) > 30
    for name in named:
        *module, last = name.split(".")
        files = [ROOT.joinpath(*module).with_suffix(".py"), ROOT.joinpath(*module, "__init__.py")]
        texts = [path.read_text(encoding="utf-8") for path in files if path.exists()]
        found = any(re.search(rf"^(def|class) {last}\b", text, re.MULTILINE) for text in texts)
        assert found or ROOT.joinpath(*module, last).with_suffix(".py").exists(), name


def test_links_that_leave_docs_lead_to_pages_of_the_site() -> None:
    code = "`[c](d.md)`\n```\n[e](f.md)\n```\n"
    text = f"[a](../eil/core/run.py) [`b`](methods.md#heads) {code}[g](../baselines) ![h](../r/i.png)"
    assert links.rewritten(text, "docs/x.md", ["baselines"]) == (
        f"[a](source/eil/core/run.py.md) [`b`](methods.md#heads) {code}[g](source/baselines/index.md) ![h](r/i.png)"
    )
    text = "[a](docs/data.md) [b](https://x.org/y.md) [c](#d) [e](CONTRIBUTING.md)"
    assert links.rewritten(text, "README.md") == "[a](data.md) [b](https://x.org/y.md) [c](#d) [e](contributing.md)"
    assert links.rewritten("[a](../../docs/data.md)", "results/reference/README.md") == "[a](../../data.md)"
    assert links.targets("[a](../eil/x.py) `[b](c)`", "docs/x.md") == ["eil/x.py"]


def test_linked_pages_and_folders_are_followed(tmp_path: Path) -> None:
    for name in ("docs/x.md", "tables/one.md", "tables/two.csv", "code/a.py", "code/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[two](two.csv) [x](../docs/x.md)" if name == "tables/one.md" else "")
    found = links.reachable(tmp_path, {"docs/x.md": "[one](../tables/one.md) [code](../code) [no](../gone.md)"})
    assert found == ["tables/one.md", "code", "tables/two.csv", "code/a.py"]


def test_the_gallery_shows_every_table_and_figure_with_a_command_that_parses() -> None:
    page = gallery.page(ROOT)
    assert re.findall(r"^### `(.+)` ", page, re.MULTILINE) == [kind.name for kind in (*FIGURES, *TABLES)]
    told = commands(page, "eil")
    assert len(told) == len(FIGURES) + len(TABLES) + 1
    for command in set(told):
        cli._parse(command.split()[1:])
        assert command.endswith("STUDY") or (ROOT / command.split()[-1]).exists(), command
    pictures = re.findall(r"!\[.*\]\(\.\./(.+)\)", page)
    assert len(pictures) >= 16
    assert [path for path in pictures if not (ROOT / path).exists()] == []
    assert page.count("No example is committed") == 1  # failures


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (["cub-a100-2026-01-01-main.md", "cub-a100-2026-02-01-main.md"], "cub-a100-2026-02-01-main.md"),
        (
            ["demo-epyc-2-cores-2025-01-01-main.md", "cub-a100-2026-02-01-main.md"],
            "demo-epyc-2-cores-2025-01-01-main.md",
        ),
    ],
)
def test_the_gallery_takes_the_demos_example_or_the_newest(names: list[str], path: str) -> None:
    assert gallery.examples([*names, "README.md", "speed.md"], TABLES)["main"].path == f"results/reference/{path}"
