"""Keys of a study on the command line mean what they mean in its file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.settings.types import ConfigSettings
from workflows import dry_run

from eil.core.files import InputError
from eil.study import command_line
from eil.study.study import load

VALUES = {
    "seeds": "[5, 6]",
    "controls": "[]",
    "methods": "{cam: , eil: {gamma: [0.5, 0.6], at: head, extra: {flip: true, names: ['5', b]}}}",
    "time_limit": "1.5",
    "name": "x",
}


def as_snakemake_has_it(entries: list[str] | None, config: dict[str, Any] | None = None) -> dict[str, Any]:
    settings = ConfigSettings(config=parse_config(entries) if config is None else config, config_args=entries)
    return command_line.typed(settings.config, settings.config_args)


def test_values_are_those_of_a_file() -> None:
    entries = [f"{key}={text}" for key, text in VALUES.items()]
    assert parse_config(entries)["seeds"] == ["5", "6"]  # what is mended here
    assert as_snakemake_has_it(entries) == yaml.safe_load("\n".join(f"{key}: {text}" for key, text in VALUES.items()))


def test_a_key_that_is_given_twice_is_merged_as_by_snakemake() -> None:
    entries = ["force={epochs: 1, schedule: step}", "force={epochs: 2, resize: 32}", "seeds=[1]", "seeds='[2, 3]'"]
    found = as_snakemake_has_it(entries)
    assert found == {"force": {"epochs": 2, "schedule": "step", "resize": 32}, "seeds": [2, 3]}
    assert parse_config(entries)["force"] == {"epochs": "2", "schedule": "step", "resize": "32"}


def test_a_program_that_starts_snakemake_may_give_values() -> None:
    config = {"seeds": [5, 6], "methods": {"eil": {"gamma": [0.5], "at": None}}, "controls": ["gaussian"]}
    assert as_snakemake_has_it(None, config) == config


def test_a_value_that_no_study_has_is_refused_with_its_key() -> None:
    with pytest.raises(InputError, match="^--config: force: not YAML"):
        as_snakemake_has_it(["force=[!!python/object/apply:os.getcwd []]"])


def test_a_workflow_reads_them(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    given = ("--config", "seeds=[3, 2]", "methods={eil: {gamma: [0.5, 0.55]}}")
    code, output = dry_run(tmp_path, "--configfile", str(tmp_path / "mine.yaml"), *given)
    assert code == 0, output
    kept = load(tmp_path / "results" / "tiny" / "study.yaml")
    assert kept.seeds == (3, 2)
    assert kept.methods["eil"]["gamma"] == [0.5, 0.55]
    code, output = dry_run(
        tmp_path, "--configfile", str(tmp_path / "mine.yaml"), "--config", "force=[!!python/name:os.system x]"
    )
    assert code != 0
    assert "--config: force: not YAML" in output
    assert "Traceback" not in output
