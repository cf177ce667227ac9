"""Studies, records and lists that anyone may have written: read right, or refused with the file's name."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fuzzing import JSON, YAML, damaged, fuzz, outcome, relisted, spoilt, thoroughly
from hypothesis import strategies as st
from miniatures import LAYOUTS, SMOKE

from eil import data
from eil.core import safe_yaml
from eil.core.files import InputError
from eil.core.records import Record, Replicates, Score
from eil.core.run import Run
from eil.execution import collect
from eil.report import results
from eil.study import grid
from eil.study.study import load, parse

pytestmark = pytest.mark.usefixtures("bounded_memory")

# Study files

STUDY: dict[str, Any] = SMOKE | {
    "backbones": {"vgg_small": {"recipe": {"epochs": 3}, "methods": {"eil": {"at": "conv3"}}}, "resnet_small": {}},
    "methods": {
        "cam": {},
        "eil": {"gamma": [0.6, 0.8], "sigma": 1.0, "recipe": {"learning_rate": 0.02}},
        "meil": {"at": [["conv2", "conv3"]]},
        "adl": {"drop_rate": 0.5},
        "has": {"sizes": [[0, 16, 32]]},
    },
    "controls": ["centred_box"],
    "protocols": ["val-threshold", "wsoleval-v2"],
    "preset": None,
}
PIECES = [
    *(
        "name: s\n",
        "dataset: {name: birds}\n",
        "backbones: [vgg_small]\n",
        "methods: ",
        "cam:\n",
        "seeds: 1\n",
        "  ",
        "\n",
    ),
    *(
        "a",
        ": ",
        "- ",
        "&a ",
        "*a",
        "<<: *a\n",
        "<<: [*a, *a]\n",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "|\n",
        ">",
        "'",
        '"',
        "? ",
        "# ",
    ),
    *("!!python/object/apply:os.mkdir [CANARY]", "!!python/name:os.system", "!!python/module:os", "!local ", "!<tag> "),
    *(
        "!!int x",
        "!!int ''",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "!!binary é",
        "!!set ",
        "!!omap ",
        "!!pairs ",
        "!!null ",
    ),
    *(
        "2001-13-45",
        "2001-01-01",
        "1:99:99",
        "0x" + "f" * 5000,
        "9" * 5000,
        "1e999",
        ".nan",
        "-.inf",
        "~",
        "0b2",
        "0o8",
    ),
    *(
        '"\\ud800"',
        '"\\0"',
        '"\\xZZ"',
        "%YAML 1.1\n",
        "%TAG ! x\n",
        "---\n",
        "...\n",
        "\t",
        "\0",
        "\ufeff",
        "\u2028",
        "[" * 400,
    ),
]


def alias_bomb(width: int, depth: int, merged: bool = False) -> str:
    """Lists, or mappings, each of which names the one before ``width`` times."""
    lines = ["a0: &a0 {x: 1, y: 2}" if merged else "a0: &a0 [1, 2]"]
    for k in range(1, depth):
        names = ", ".join([f"*a{k - 1}"] * width)
        lines.append(f"a{k}: &a{k} {{<<: [{names}]}}" if merged else f"a{k}: &a{k} [{names}]")
    return "\n".join(lines)


def require_study_read(path: Path) -> None:
    """A study is read, its runs are usable, and its plan has them all; or an error names the file."""
    study = outcome(lambda: load(path), path.name)
    if study is None:
        return
    assert 0 < grid.count(study) <= grid.MOST_RUNS
    if grid.count(study) > 100:
        return
    names = [run.name for run in study.runs()]
    assert all(name.isprintable() and "/" not in name for name in names)
    planned = outcome(lambda: study.expand(str(path)), path.name)
    if planned is not None:
        runs, dropped = planned
        assert len({run.name for run in runs}) == len(runs)
        assert [study.find_run(run.name) for run in runs] == runs
        assert {run.name for run in runs} | {line.split(": ")[0] for line in dropped} <= set(names)
        assert all(len(run.key) == 12 and run.cache for run in runs)
        json.dumps([run.model_dump(mode="json") for run in runs], allow_nan=False)


@thoroughly(50, 3000)
def test_spoilt_studies(inputs: int, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"

    def holds(content: Any) -> None:
        path.write_text(yaml.safe_dump(content))
        require_study_read(path)

    fuzz(inputs, holds, spoilt(STUDY, YAML, shared=True))


@thoroughly(50, 3000)
def test_any_text_as_a_study(inputs: int, tmp_path: Path) -> None:
    path, canary = tmp_path / "s.yaml", tmp_path / "canary"
    whole = yaml.safe_dump(STUDY).encode()

    def holds(content: bytes) -> None:
        path.write_bytes(content.replace(b"CANARY", str(canary).encode()))
        require_study_read(path)
        assert not canary.exists()

    soup = st.lists(st.sampled_from(PIECES), max_size=25).map(lambda pieces: "".join(pieces).encode("utf-8", "replace"))
    bombs = st.builds(alias_bomb, st.integers(1, 60), st.integers(1, 60), st.booleans()).map(str.encode)
    fuzz(
        inputs,
        holds,
        st.one_of(
            soup,
            st.binary(max_size=50),
            st.text().map(lambda text: text.encode("utf-8", "replace")),
            bombs,
            damaged(whole),
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (alias_bomb(10, 30), "more than 100,000 values, aliases written out"),
        (alias_bomb(10, 30, merged=True), "more than 100,000 values, aliases written out"),
        ("a: &a [*a, *a]", "more than 100,000 values, aliases written out"),
        ("[" * 100_000, "nested deeper than 20 levels"),
        ("a: " + "[" * 21 + "]" * 21, "a[0][0]"),
        ("a" * 1_000_001, "longer than 1,000,000 characters"),
        ("a: 2001-13-45", "not YAML: month must be in 1..12"),
        ("a: 2001-01-01", "a: datetime.date(2001, 1, 1): expected text (in quotes if it looks like a date)"),
        ("1: a", "a key that is not plain text: 1"),
        ("a: {b: [.nan]}", "a.b[0]: nan: expected a finite number"),
        (f"seeds: {2**70}", "seeds: an integer of more than 64 bits"),
        ("name: !!python/object/apply:os.system [true]", "could not determine a constructor for the tag"),
        ("name: !!python/name:os.system", "could not determine a constructor for the tag"),
        ("__use_yte__: true\nname: ?print()", "__use_yte__: unknown key"),
    ],
    ids=lambda value: value[:20],
)
def test_what_yaml_can_do_beyond_a_study_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load(tmp_path / "s.yaml")
    assert "s.yaml: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"eil": {key: list(range(1000)) for key in "abc"}}}, "methods.eil: more than 1,000,000 runs: sh"),
        ({"seeds": 10**6}, "more than 1,000,000 runs: shorten its lists, or lower seeds"),
        ({"seeds": 10**9}, "seeds = 1000000000: must be how many repetitions, from 1 to 1,000,000"),
        ({"methods": {"eil": {str(k): [1, 2, 3] for k in range(20_000)}}}, "methods.eil: more than 1,000,000 runs"),
        ({"methods": {"eil": {"gamma": []}}}, "methods.eil.gamma = []: an empty list leaves no runs"),
        ({"methods": {}}, "a study without runs"),
        ({"methods": [{}]}, "methods = [{}]: Input should be a valid dictionary"),
        ({"preset": ["a"]}, "preset = "),
        ({"methods": {"eil": {"preset": ["a"]}}}, "methods.eil.preset = ['a']: must be one of"),
        ({"methods": {"cam": {"x": "../../up"}}}, "must be a folder's: no /"),
        ({"methods": {"cam": {"x": "long" * 99}}}, "must be a folder's: no /"),
        ({"methods": {"os.system": {}}}, "methods.os.system"),
        ({"methods": {"baselines.cam:CAM": {}}}, "methods.baselines.cam:CAM"),
    ],
)  # fmt: skip
def test_studies_of_absurd_size_or_with_other_peoples_code(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(SMOKE | changes, "s.yaml")
    assert "s.yaml: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("method", "settings_", "message"),
    [
        ("system", {}, "methods.system: must be one of acol, adl, bas"),
        ("eil", {"gamma": "0.5"}, "methods.eil.gamma = '0.5': Input should be a valid number"),
        ("eil", {"gamma": True}, "methods.eil.gamma = True: Input should be a valid number"),
    ],
)
def test_what_is_planned_is_installed_and_has_its_type(method: str, settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(SMOKE | {"methods": {method: settings_}}, "s.yaml").expand("s.yaml")
    assert message in str(error.value)


# Records


@pytest.fixture
def record(runs: dict[str, Run]) -> Record:
    run = runs["vgg_small-eil-gamma0.6-sigma1-seed0"]
    return Record(
        run=run,
        key=run.key,
        status="done",
        protocol="val-threshold",
        threshold_from={"val-threshold": "val", "wsoleval-v2": "oracle"},
        scores=[
            Score(split="test", protocol="val-threshold", threshold_from="val", metric="gt_known_loc", value=50.0),
            Score(split="test", protocol="val-threshold", threshold_from="val", metric="threshold", value=31.0),
            Score(split="test", protocol="wsoleval-v2", threshold_from="oracle", metric="gt_known_loc", value=51.5),
        ],
        replicates=[
            Replicates(
                split="test", protocol="val-threshold", threshold_from="val", metric="gt_known_loc", values=[49.5, 50.5]
            )
        ],
        history={"total": [1.0, 0.5]},
        training={"seconds": 1.5, "epochs": 2},
        provenance={"versions": {"eil": "0.1"}, "commit": None},
    )


def require_record_read(path: Path, run: Run, content: bytes) -> None:
    """A record is this run's and whole, or stale, or an error names its file."""
    path.write_bytes(content)
    found = outcome(lambda: collect.collect([run], path.parents[1]), path.name)
    for each in found or []:
        assert each.key == run.key == each.run.key
        assert all(math.isfinite(row.value) for row in each.scores)
        assert len(results.table([each])) == max(1, len(each.scores))


@thoroughly(40, 2500)
def test_spoilt_records(inputs: int, record: Record, tmp_path: Path) -> None:
    path = tmp_path / record.run.name / "record.json"
    path.parent.mkdir()
    fuzz(
        inputs,
        lambda content: require_record_read(path, record.run, json.dumps(content).encode()),
        spoilt(record.model_dump(mode="json"), JSON),
    )


@thoroughly(40, 1500)
def test_any_bytes_as_a_record(inputs: int, record: Record, tmp_path: Path) -> None:
    path = tmp_path / record.run.name / "failure.json"
    path.parent.mkdir()
    whole = record.model_copy(update={"status": "failed", "error": "ValueError: x"}).model_dump_json(indent=1).encode()
    deep = st.builds(
        lambda text, count: (text * count).encode(), st.sampled_from(["[", '{"a":']), st.integers(1, 200_000)
    )
    fuzz(
        inputs,
        lambda content: require_record_read(path, record.run, content),
        st.one_of(damaged(whole), damaged(whole), st.binary(max_size=50), deep),
    )


def test_a_record_under_anothers_key_is_refused(record: Record, tmp_path: Path) -> None:
    other = record.run.model_copy(update={"repetition": 1})
    record.model_copy(update={"run": other}).save(tmp_path / record.run.name / "record.json")
    with pytest.raises(InputError, match=r"record\.json: corrupt record \(key mismatch\)"):
        collect.collect([record.run], tmp_path)


# Lists of data sets


@pytest.mark.parametrize("layout", [*LAYOUTS, "tiny_imagenet"])
@thoroughly(12, 500)
def test_spoilt_lists(inputs: int, layout: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if layout == "tiny_imagenet":
        name, root, given_ = layout, request.getfixturevalue("photos"), {}
    else:
        name, make = LAYOUTS[layout]
        root, given_ = make(tmp_path / "data")
    lists = {
        path: path.read_bytes() for path in sorted(root.parent.rglob("*")) if path.suffix in (".txt", ".csv", ".xml")
    }
    assert lists

    def holds(change: tuple[Path, bytes]) -> None:
        path, content = change
        path.write_bytes(content)
        try:
            dataset = outcome(lambda: data.read(name, root, given_), str(root), "data set ", "LOC_synset_mapping")
        finally:
            path.write_bytes(lists[path])
        for split in dataset.splits.values() if dataset else ():
            assert len(split.ids) == len(set(split.ids)) == len(split.labels) == len(split.boxes) == len(split.sources)
            assert all(root in source.parents and ".." not in source.parts for source in split.sources)
            assert all(np.isfinite(own).all() and (own[:, :2] <= own[:, 2:]).all() for own in split.boxes)
            assert split.sizes is None or split.sizes.min() >= 1

    changes = st.sampled_from(list(lists)).flatmap(lambda path: st.tuples(st.just(path), relisted(lists[path])))
    fuzz(inputs, holds, changes)


def test_what_is_shown_of_a_value_is_short() -> None:
    assert safe_yaml.shown("a") == "'a'"
    assert len(safe_yaml.shown("a" * 1000)) == 100
