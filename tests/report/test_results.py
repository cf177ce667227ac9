"""Scores as a tidy table, the declaration of metrics, and what is made from it."""

import doctest
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import eil
from eil.core import metric_definitions, records
from eil.core.files import InputError
from eil.core.metric_definitions import METRICS, ScoreKey
from eil.report import results
from eil.report.notes import Notes
from eil.report.table import Number, Probability, Table, Value

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "tests" / "data" / "results"
RUN = "vgg_small-cam-seed0"


def test_examples_of_the_docstring_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(eil, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (found.failed, found.attempted > 5) == (0, True)


def test_a_row_a_score_and_the_same_from_parquet(tmp_path: Path) -> None:
    folder = shutil.copytree(STUDY, tmp_path / "s")
    frame = eil.results(folder)
    found = [records.read(path) for path in sorted(folder.glob("runs/*/record.json"))]
    assert len(frame) == sum(len(record.scores) for record in found)
    identity = ["run", "split", "protocol", "threshold_from", "metric", "subset"]
    assert not frame.duplicated(identity).any()
    assert set(frame["metric"]) <= METRICS.keys()
    results.table(found).to_parquet(folder / results.FILE)
    pd.testing.assert_frame_equal(eil.results(folder), frame, check_dtype=False)


def test_a_table_older_than_its_records_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(STUDY, tmp_path / "s")
    eil.results(folder).to_parquet(folder / results.FILE)
    os.utime(folder / results.FILE, (0, 0))
    with caplog.at_level(logging.WARNING):
        eil.results(folder)
    assert "records.parquet: is older than 4 records" in caplog.text


def test_a_damaged_table_and_a_record_without_scores_are_told(tmp_path: Path) -> None:
    folder = shutil.copytree(STUDY, tmp_path / "s")
    (folder / results.FILE).write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=r"records\.parquet: not a readable table: .*; `eil aggregate` makes it again"):
        eil.results(folder)
    (folder / results.FILE).unlink()
    path = folder / "runs" / RUN / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scores": []}))
    with pytest.raises(InputError, match=r"record\.json.*a done run without scores"):
        eil.results(folder)
    content = json.loads((STUDY / "runs" / RUN / "record.json").read_text())
    row = next(row for row in content["scores"] if row["metric"] == "top1_cls")
    row["value"] = 1e9
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"record\.json.*top1_cls of test is 1e\+09, expected a percentage from 0 to 100"
    ):
        eil.results(folder)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("run", None, "has no column run"),
        ("value", "x", "value: expected numbers, found"),
        ("value", None, "no column"),
    ],
)
def test_a_table_of_other_columns_is_refused(tmp_path: Path, column: str, values: object, message: str) -> None:
    frame = results.results(STUDY).drop(columns=column)
    frame = frame if values is None else frame.assign(**{column: values})
    frame.to_parquet(tmp_path / results.FILE)
    with pytest.raises(InputError, match=rf"records\.parquet: .*{message}.*: `eil aggregate` makes it again"):
        eil.results(tmp_path)


def test_other_versions_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = shutil.copytree(STUDY, tmp_path / "s")
    path = folder / "runs" / RUN / "record.json"
    content = json.loads(path.read_text())
    del content["version"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"record\.json: was made by version 1 of eil: evaluate the run again"
    ) as error:
        eil.results(folder)
    assert len(str(error.value).splitlines()) == 1
    path.write_text(json.dumps(content | {"status": "failed"}))
    with pytest.raises(InputError, match="was made by version 1 of eil: delete it and run again"):
        records.read(path)
    pd.DataFrame({"test.own.gt_known_loc": [1.0]}).to_parquet(folder / results.FILE)
    with pytest.raises(InputError, match="was made by version 1 of eil: `eil aggregate` makes it again"):
        eil.results(folder)
    with pytest.raises(InputError, match="no records.parquet and no runs"):
        eil.results(tmp_path / "none")


def test_a_score_is_found_by_its_key() -> None:
    record = records.read(STUDY / "runs" / RUN / "record.json")
    assert record.value(ScoreKey("gt_known_loc")) == 34.0
    assert record.value(ScoreKey("gt_known_loc", threshold_from="oracle")) == 38.0
    assert record.value(ScoreKey("gt_known_loc", split="val", threshold_from="val")) == 35.0
    assert record.value(ScoreKey("top1_cls")) == 78.0  # no threshold is involved
    assert record.value(ScoreKey("gt_known_loc", "object size 4-9 %")) == 28.0
    assert record.value(ScoreKey("gt_known_loc", protocol="ts-cam")) is None
    assert record.subsets("images") == ["object size 4-9 %", "object size 9-16 %"]


def test_importing_eil_loads_no_pandas() -> None:
    code = "import eil, sys; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_metric_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for line in [*metric_definitions.documented(), *metric_definitions.COLUMNS]:
        assert line in text, line


def test_notes_stand_in_the_caption_or_below_by_their_field() -> None:
    notes = Notes(columns="c", interval="i", protocol="p", data=("d", "e"), machine="m", other=("o",))
    assert notes.caption() == ["c", "i", "p"]
    assert notes.below() == ["d", "e", "m", "o"]
    assert notes.lines() == ["c", "i", "p", "d", "e", "m", "o"]


def test_latex_marks_the_best_and_the_blocks() -> None:
    table = Table("T", ["a", "x ↑"], [["p_q", Value(1.0, 0.5, True)], ["r", Value(2.0, 0.5)]], Notes(data=("d",)), [1])
    lines = table.latex().splitlines()
    start = lines.index(r"\toprule")
    assert lines[start : start + 7] == [
        r"\toprule",
        r"a & x $\uparrow$ \\",
        r"\midrule",
        r"p\_q & \bfseries 1.0 $\pm$ 0.5 \\",
        r"\midrule",
        r"r & 2.0 $\pm$ 0.5 \\",
        r"\bottomrule",
    ]
    page = Table("<T>", ["<a>"], [["<b>"]], Notes(other=("<c>",))).html()
    assert all(f"&lt;{letter}&gt;" in page for letter in "Tabc")
    assert "<a>" not in page


def test_tables_with_the_same_header_twice_are_written() -> None:
    table = Table("T", ["a", "x", "x"], [["p", "1", "2"]])
    assert r"a & x & x \\" in table.latex()
    assert table.html().count("<th ") == 3
    assert table.csv() == "a,x,x\np,1,2\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "<0.001"), (0.00049, "<0.001"), (0.0006, "0.001"), (0.0497, "0.0497"), (0.0503, "0.0503"),
     (0.05051, "0.051"), (0.9994, "0.999"), (0.9996, ">0.999"), (1.0, "1.000"), (float("nan"), "nan")],
)  # fmt: skip
def test_a_probability_is_rounded_to_neither_0_nor_1_nor_the_other_side_of_5_percent(value: float, text: str) -> None:
    assert str(Probability(value)) == text


def test_a_number_has_one_decimal_and_in_csv_all() -> None:
    assert [str(Number(each)) for each in (3.14159, -0.04, 0.0)] == ["3.1", "0.0", "0.0"]
    assert [str(Number(each, signed=True)) for each in (3.14159, -3.16, -0.04)] == ["+3.1", "-3.2", "+0.0"]
    assert Table("T", ["a", "x"], [["p", Number(3.14159)], ["q", "–"]]).csv() == "a,x\np,3.14159\nq,\n"


def test_a_csv_has_probabilities_unrounded_and_latex_has_signs_in_math_mode() -> None:
    table = Table("T", ["a", "p"], [["x", Probability(0.000123)], ["y", "–"]])
    assert table.csv() == "a,p\nx,0.000123\ny,\n"
    assert r"x & $<$0.001 \\" in table.latex()
    assert "| x | <0.001 |" in table.markdown()
    assert "&lt;0.001" in table.html()
