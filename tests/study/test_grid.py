"""Studies of many runs: reading them and finding a run does not spread the grid, and the cost is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil.commands import workflow
from eil.commands.cli import main
from eil.core.files import InputError
from eil.core.run import Run
from eil.report import status
from eil.study import grid
from eil.study.study import parse
from eil.study.warnings import warnings

GAMMAS = [k / 1000 for k in range(1, 101)]  # 0.001 to 0.1: some names are the beginning of others


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are made from now on."""
    names = list[str]()

    def make(**fields: Any) -> Run:
        names.append(Run(**fields).name)
        return Run(**fields)

    monkeypatch.setattr(grid, "Run", make)
    return names


def test_ten_thousand_runs_are_read_and_one_found_by_a_few(content: dict[str, Any], made: list[str]) -> None:
    content |= {"methods": {"cam": {}, "eil": {"gamma": GAMMAS, "sigma": GAMMAS[:50]}}, "seeds": 2}
    study = parse(content, "x")
    assert grid.count(study) == 2 + 100 * 50 * 2
    run = study.find_run("vgg_small-eil-gamma0.1-sigma0.001-seed1")
    assert (run.settings, run.repetition) == ({"gamma": 0.1, "sigma": 0.001}, 1)
    with pytest.raises(InputError, match="has no run vgg_small-eil-gamma0.1-sigma0.2-seed0"):
        study.find_run("vgg_small-eil-gamma0.1-sigma0.2-seed0")
    assert len(made) < 10
    assert len(study.runs()) == grid.count(study)


@pytest.mark.parametrize(("values", "message"), [([1, 2, 1], "two runs are named"), (["a", "b/c"], "no /")])
def test_a_name_that_cannot_be_is_found_without_the_grid(
    content: dict[str, Any], made: list[str], values: list[Any], message: str
) -> None:
    content["methods"] = {"cam": {"x": values, "y": list(range(100))}}
    with pytest.raises(InputError, match=message):
        parse(content, "x")
    assert len(made) < 10


def test_names_of_several_lists_may_meet_and_are_refused(content: dict[str, Any]) -> None:
    content["methods"] = {"cam": {"a": ["1", "1-b2"], "b": ["2-b2", "2"]}}
    with pytest.raises(InputError, match="x: two runs are named vgg_small-cam-a1-b2-b2-seed0"):
        parse(content, "x")


def test_a_training_knows_what_uses_its_network(content: dict[str, Any]) -> None:
    content |= {"maps": ["gradcam++"], "controls": ["gaussian"], "backbones": ["vgg_small"], "seeds": 2}
    study = parse(content, "x")
    runs, _ = study.expand("x")
    for own in (run for run in runs if not run.reuses_network):
        assert study.dependents(own) == [
            run for run in runs if run.reuses_network and run.training_run.name == own.name
        ]


def test_a_hundred_trainings_tell_the_progress_of_ten_thousand(content: dict[str, Any]) -> None:
    content["methods"] = {"eil": {"gamma": GAMMAS, "sigma": GAMMAS[:20]}}
    runs = parse(content | {"seeds": 1}, "x").runs()
    assert 70 < sum(status.tells_progress(run, 2000) for run in runs) < 130
    assert all(status.tells_progress(run, 100) for run in runs[:100])


def test_many_runs_are_a_warning_with_the_cost(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = parse(content, "x")
    run = study.runs()[0]
    assert warnings(study, [run] * 10_000) == []
    assert warnings(study, [run] * 14_400)[0].startswith(
        "14,400 runs: at a minute each they train for 10 days on one device; "
    )
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content | {"methods": {"cam": {}}, "seeds": 10_001}))
    assert main(["check", str(tmp_path / "s.yaml")]) == 0
    assert "warning: 10,001 runs: at a minute each they train for 7 days" in capsys.readouterr().out


def test_jobs_share_the_trainings_and_keep_together_what_uses_one(content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"controls": ["gaussian"], "maps": ["gradcam++"], "seeds": 2}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    job: Callable[..., list[str]] = workflow._targets_of_job
    targets = [job(path, 4, k) for k in (1, 2)]
    runs, _ = parse(content, "x").expand("x")
    assert sorted(t for own in targets for t in own) == sorted(
        f"results/{r.study}/runs/{r.name}/record.json" for r in runs
    )
    assert len({t for t in targets[0] if "gaussian" not in t and "gradcam" not in t}) == 4
    with pytest.raises(InputError, match="--job 3: 6 trainings are 2 jobs, expected --job 1 to --job 2"):
        job(path, 4, 3)
    with pytest.raises(InputError, match="--trainings-per-job None: expected a number of at least 1"):
        job(path, None, 1)
