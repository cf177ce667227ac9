"""What README, CONTRIBUTING and docs/ name exists: links, headings, files, and commands with their options."""

import re
import shlex
from pathlib import Path

import pytest
from cyclopts.exceptions import CycloptsError

from eil.commands import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = "eil|baselines|workflow|profiles|docs|tests|results/reference"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(text: str, program: str) -> list[str]:
    """Command lines of a program: those of console blocks, without comments, and those in backticks."""
    found = []
    for kind, block in FENCE.findall(text):
        if kind == "console":
            lines = block.replace("\\\n", " ").splitlines()
            found += [re.sub(r"\s# .*", "", line[2:]) for line in lines if line.startswith("$ ")]
    found += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    parts = [part.strip() for line in found for part in re.split(r" (?:&&|\|) ", line)]
    parts = [re.sub(r"^([A-Z_]+=\S+ )+|^\.venv/bin/", "", part) for part in parts]
    return [part for part in parts if part.split()[0] == program and "…" not in part]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    wrong = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
        path, _, anchor = link.partition("#")
        target = folder / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    names = re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]+\.(?:py|yaml|smk|md|csv|toml))\b", text_of(page))
    assert [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for command in commands(text_of(page), "eil"):
        words = shlex.split(command)[1:]
        mention = all(re.fullmatch("(--)?[a-z-]+", word) for word in words)  # `eil status`, without a study
        try:
            parsed = cli._parse([*(word for word in words if word[0] != "-"), "--help"] if mention else words)
        except CycloptsError as error:
            wrong.append(f"{command}: {error}")
            continue
        if mention:
            parsed()
            told = capsys.readouterr().out
            wrong += [f"{command}: no {word}" for word in words if word[0] == "-" and word not in told]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_targets_exist(page: str) -> None:
    text = text_of(page)
    makefile = set(re.findall(r"^([\w./-]+):", text_of("Makefile"), re.MULTILINE))
    assert [c for c in commands(text, "make") if len(c.split()) > 1 and c.split()[1] not in makefile] == []
    rules = {
        rule
        for path in [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]
        for rule in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for command in commands(text, "snakemake"):
        targets = re.match(r"snakemake (?:--cores all )?((?:[a-z_]+ ?)*)", command)
        assert targets
        assert set(targets[1].split()) <= rules, command


def test_the_readme_names_every_page() -> None:
    text = text_of("README.md")
    assert [page for page in PAGES if page not in text and page != "README.md"] == []


def test_commands_are_found_where_they_stand() -> None:
    text = (
        "```console\n$ A=b eil check x.yaml | head   # why\n$ .venv/bin/eil plan y.yaml && make demo\n```\n`eil show …`"
    )
    assert commands(text, "eil") == ["eil check x.yaml", "eil plan y.yaml"]
    assert commands(text, "make") == ["make demo"]


def test_the_readmes_numbers_have_their_command() -> None:
    """Every page that gives measurements in a table says by which command they were made."""
    for page in ("README.md", "docs/photos.md", "docs/ablation.md", "docs/timing.md"):
        assert re.search(r"^\$ (\.venv/bin/)?(snakemake|make) ", text_of(page), re.MULTILINE), page
