"""Every example in a docstring runs and gives what it says, and every argument that one describes exists."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for top in ("eil", "baselines") for path in sorted(ROOT.glob(f"{top}/**/*.py"))]
WITH_EXAMPLES = [path for path in FILES if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_of_docstrings_run(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0  # pytest shows what doctest printed


def test_docstrings_describe_arguments_that_there_are() -> None:
    described = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                section = re.search(r"^Args:\n((?:    .*\n|\n)+)", (ast.get_docstring(node) or "") + "\n", re.MULTILINE)
                names = re.findall(r"^    \*{0,2}(\w+):", section[1], re.MULTILINE) if section else []
                arguments = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
                assert set(names) <= arguments, f"{path.name}: {node.name}: {set(names) - arguments}"
                described += len(names)
    assert described > 500
