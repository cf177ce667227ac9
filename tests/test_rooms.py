"""The rooms of eil/ import one way, without cycles, and tests/ has a folder for each."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top. A room imports rooms of its own level and of lower levels.
LEVELS = [
    ["core"],
    ["data", "backbones"],
    ["methods"],
    ["evaluation"],
    ["study"],
    ["training", "execution"],
    ["profiling", "report"],
    ["commands"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# (module, room that it imports from above): why.
EXCEPTIONS: dict[tuple[str, str], str] = {}


class Import(NamedTuple):
    """A module that imports another one."""

    importer: str
    imported: str
    line: int
    on_import: bool  # executed when the importer is imported: neither in a function nor under TYPE_CHECKING


def module_name(path: Path, root: Path) -> str:
    """``eil.core.run`` for eil/core/run.py, ``eil.core`` for eil/core/__init__.py."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, importer: str, modules: set[str], is_package: bool = False) -> Iterator[Import]:
    """Every import of a source file, in functions and under TYPE_CHECKING too."""

    def walk(node: ast.AST, on_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(importer, alias.name, child.lineno, on_import)
            elif isinstance(child, ast.ImportFrom):
                base = absolute(child)
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    yield Import(importer, full if full in modules else base, child.lineno, on_import)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, False)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, on_import and not function)

    def absolute(node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = importer.split(".")[: None if is_package and node.level == 1 else int(is_package) - node.level]
        return ".".join([*package, *([node.module] if node.module else [])])

    return walk(ast.parse(source), True)


def all_imports(root: Path = ROOT) -> list[Import]:
    """Every import of every file of eil/."""
    files = {module_name(path, root): path for path in sorted(root.glob("eil/**/*.py"))}
    return [
        found
        for name, path in files.items()
        for found in imports(path.read_text(encoding="utf-8"), name, set(files), path.name == "__init__.py")
    ]


def room(module: str) -> str | None:
    """The room of a module; None for eil's top level and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "eil" and len(parts) > 1 and parts[1] in LEVEL else None


def breaches(found: list[Import]) -> list[Import]:
    """Imports from a room to a higher one, or from a room to the top of eil/ (which may import rooms)."""

    def upwards(each: Import) -> bool:
        own, other = room(each.importer), room(each.imported)
        if own is None:
            return False
        if other is None:
            return each.imported.split(".")[0] == "eil" and each.imported != "eil"
        return LEVEL[other] > LEVEL[own]

    return [each for each in found if upwards(each)]


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return all_imports()


def test_rooms_import_one_way(found: list[Import]) -> None:
    wrong = [each for each in breaches(found) if (each.importer, room(each.imported)) not in EXCEPTIONS]
    assert [f"{each.importer} (line {each.line}) imports {each.imported}" for each in wrong] == []


def test_every_exception_is_needed(found: list[Import]) -> None:
    assert set(EXCEPTIONS) - {(each.importer, room(each.imported)) for each in breaches(found)} == set()


def test_eil_never_imports_baselines(found: list[Import]) -> None:
    assert [each for each in found if each.imported.split(".")[0] == "baselines"] == []


def test_evaluation_knows_nothing_of_networks(found: list[Import]) -> None:
    names = {"torch", "torchvision", "lightning"}
    evaluation = [each for each in found if room(each.importer) == "evaluation"]
    assert evaluation
    assert [each for each in evaluation if each.imported.split(".")[0] in names] == []


def test_no_modules_import_each_other_in_a_circle(found: list[Import]) -> None:
    graph: dict[str, set[str]] = {}
    for each in found:
        if each.on_import and each.imported.split(".")[0] == "eil" and each.imported != each.importer:
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_is_known_and_has_its_folder_of_tests() -> None:
    folders = {path.parent.name for path in ROOT.glob("eil/*/__init__.py")}
    assert folders == set(LEVEL)
    assert [name for name in sorted(folders) if not list((ROOT / "tests" / name).glob("test_*.py"))] == []


def test_few_files_stand_at_the_top_of_eil() -> None:
    assert len([path for path in (ROOT / "eil").iterdir() if path.is_file()]) <= 5


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import eil.report.tables", "eil.report.tables"),
        ("from eil.report import tables", "eil.report.tables"),
        ("from eil.report.tables import main", "eil.report.tables"),
        ("def f():\n    from eil import report", "eil.report"),
        ("if TYPE_CHECKING:\n    import eil.report", "eil.report"),
        (
            "class A:\n    def f(self):\n        try:\n            import eil.report\n        except E: ...",
            "eil.report",
        ),
        ("from ..report import tables", "eil.report.tables"),
        ("from .. import report", "eil.report"),
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(source: str, imported: str) -> None:
    found = list(imports(source, "eil.core.run", {"eil.report", "eil.report.tables"}))
    assert [each.imported for each in breaches(found)] == [imported]


def test_relative_imports_of_a_package_count_from_itself() -> None:
    found = list(imports("from . import npz\nfrom .. import data", "eil.core", {"eil.core.npz", "eil.data"}, True))
    assert [each.imported for each in found] == ["eil.core.npz", "eil.data"]
