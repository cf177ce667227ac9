"""docs/python.md is a notebook whose cells run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
CELLS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the studies, and results of a study as the demo's: few records with curves."""
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    for path in (ROOT / "tests/data/results/runs").glob("*/record.json"):
        content = json.loads(path.read_text())
        content["curves"] = {"gt_known_loc": np.linspace(60, 5, 255).tolist()}
        content["provenance"]["images"] = 8
        kept = tmp_path / "results/demo/runs" / path.parent.name / "record.json"
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_value(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last line, None if that is a statement."""
    *above, last = re.split(r"\n(?=\S)", cell.strip())
    try:
        expression = compile(last, "cell", "eval")
    except SyntaxError:
        exec(compile(cell, "cell", "exec"), names)
        return None
    exec(compile("\n".join(above), "cell", "exec"), names)
    return eval(expression, names)


def test_the_cells_of_the_python_page_run(clone: Path) -> None:
    names: dict[str, Any] = {}
    values = [last_value(cell, names) for cell in CELLS]
    (axes,) = names["figure"].axes
    assert axes.get_title() == "vgg_small"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cam", "eil"]
    assert len(axes.collections) == 2  # a band a method
    plt.close("all")
    assert values[1][0] == ("vgg_small-cam-seed0", "cam", {}, 10)
    assert isinstance(values[2], pd.DataFrame)
    assert values[2]["mean", "vgg_small"].to_dict() == {("cam", ""): 36.0, ("eil", "gamma=0.7"): 44.5}
    assert values[3][1:] == ("done", 0.001)
    assert values[5] == ((16, 2), names["maps"].shape)
    assert {"gt_known_loc", "max_box_acc_v2"} <= set(values[6]) & set(values[7])
    assert all(0 <= value <= 100 for value in {**values[6], **values[7]}.values())


def test_the_page_opens_as_a_notebook() -> None:
    assert PAGE.startswith("---\njupyter:\n  jupytext:\n")
    assert "format_name: markdown" in PAGE
