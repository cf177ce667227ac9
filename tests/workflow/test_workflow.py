"""The workflow run for real, by Snakemake in processes of its own.

A study that is killed starts Snakemake anew, as users do; the others start it as a fork, in a third of the time.
"""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from miniatures import SMOKE
from workflows import ROOT, finished, planned, snakemake, study, unlock

from eil.commands import cli
from eil.core import records


def runs(folder: Path) -> Path:
    return folder / "results" / "tiny" / "runs"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A copy of the project, the folder of a finished study, and the study. Whoever changes the folder copies it."""
    root, folder = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("smoke")
    for name in ("eil", "baselines", "workflow", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", root)
    (root / "environment.yml").symlink_to(ROOT / "environment.yml")
    content = SMOKE | {"controls": ["oracle_box"]}
    finished(folder, *study(folder, content), root=root, forks=True)
    return root, folder, content


def test_smoke_study_end_to_end_then_nothing_to_do(smoke: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    root, done, content = smoke
    content = copy.deepcopy(content)
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    results = tmp_path / "results" / "tiny"

    def to_do_now(changed: dict[str, Any]) -> str:
        return planned(tmp_path, *study(tmp_path, changed), root=root)

    frame = pd.read_parquet(results / "records.parquet")
    each = frame.drop_duplicates("run")
    assert each["status"].tolist() == ["done"] * 8
    assert each["control"].fillna("").tolist() == [""] * 6 + ["oracle_box"] * 2
    assert not list((results / "runs").glob("*oracle_box*/weights.safetensors"))
    assert "| vgg_small | control: oracle box |" in (results / "tables" / "main.md").read_text()
    assert {"main.csv", "main.md", "main.tex", "gamma_sigma_vgg_small_eil.md"} <= {
        p.name for p in (results / "tables").iterdir()
    }
    assert {"thresholds.png", "training.svg", "part_coverage.png"} <= {p.name for p in (results / "figures").iterdir()}
    assert "Nothing to be done" in to_do_now(content)
    # Each step's time and memory, whose loss makes nothing stale.
    measured = sorted(results.rglob("*.benchmark.tsv"))
    assert len(measured) == 6 * 3 + 2 * 2 + 2  # a control is localized and evaluated; tables and figures
    assert {"s", "max_rss"} <= set(measured[0].read_text().split("\n")[0].split("\t"))
    for path in measured:
        path.unlink()
    assert "Nothing to be done" in to_do_now(content)
    # A table's loss trains nothing.
    (results / "tables" / "main.md").unlink()
    (results / "tables").rename(results / "old")
    assert set(to_do(to_do_now(content))) == {"all", "tables", "total"}
    # Another study of the same images does not decode them again.
    assert "prepare" not in to_do(to_do_now(content | {"name": "other"}))
    # What it costs.
    finished(tmp_path, "timing", "profile", *study(tmp_path, content), root=root, forks=True)
    assert len(list((results / "timing").glob("*fp32-torch*-pareto.png"))) == 1
    assert (results / "profile" / "vgg_small-cam-seed0" / "profile.md").exists()
    # Other settings of one method train that method alone.
    content["methods"]["eil"] = {"gamma": [0.6], "sigma": 0.5}
    assert to_do(to_do_now(content))["train"] == 2


def test_a_killed_study_goes_on_and_ends_the_same(tmp_path: Path, content: dict[str, Any]) -> None:
    content |= {"methods": {"eil": {}}, "seeds": 1}
    content["recipe"] |= {"epochs": 40, "milestones": [30]}
    arguments, run = study(tmp_path, content), "vgg_small-eil-seed0"
    where = ["--results", str(tmp_path / "whole"), "--data", str(tmp_path / "results" / "data")]
    for step, *name in (["prepare"], ["train", run], ["localize", run], ["evaluate", run]):
        assert cli.main([step, arguments[-1], *name, *where]) == 0
    record = f"results/tiny/runs/{run}/record.json"
    process = snakemake(tmp_path, record, *arguments, start_new_session=True)
    checkpoint = runs(tmp_path) / run / "last.ckpt"
    for _ in range(2400):
        if checkpoint.exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # For a moment of each epoch the last checkpoint has its new name and the next one not yet its own.
    assert checkpoint.exists() or checkpoint.with_name("previous.ckpt").exists()
    assert not checkpoint.with_name("weights.safetensors").exists()
    unlock(tmp_path, *arguments)
    finished(tmp_path, record, *arguments)
    assert "resumed after epoch" in (checkpoint.parent / "train.log").read_text()
    whole, resumed = (records.read(tmp_path / path) for path in (f"whole/runs/{run}/record.json", record))
    assert whole.scores == resumed.scores
    assert whole.history["total"] == resumed.history["total"]


def test_one_failing_run_leaves_a_hole_and_the_rest_goes_on(tmp_path: Path, content: dict[str, Any]) -> None:
    content |= {"seeds": 1, "backbones": {"vgg_small": {}, "resnet_small": {"recipe": {"learning_rate": 1e30}}}}
    content["methods"] = {"cam": {}}
    arguments = study(tmp_path, content)
    output = finished(tmp_path, *arguments, code=1, forks=True)
    assert "eil: the loss is not finite at epoch 1" in output
    assert "1 of 2 runs done, 1 failed\n  resnet_small-cam-seed0: NotFinite" in output
    assert (runs(tmp_path) / "vgg_small-cam-seed0" / "record.json").exists()
    assert records.read(runs(tmp_path) / "resnet_small-cam-seed0" / "failure.json").status == "failed"
    assert "1 of 2 runs done, 1 failed" in finished(tmp_path, "partial", *arguments, forks=True)
    table = (tmp_path / "results" / "tiny" / "tables" / "main.md").read_text()
    assert "failed: resnet_small-cam-seed0: NotFinite" in table
    assert "| vgg_small | cam † |" in table


def to_do(plan: str) -> dict[str, int]:
    """Jobs by rule, as a dry run lists them."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE)}


EDITS = [
    ("eil/methods/eil.py", "self.sigma * loss_erased", "self.sigma * 2 * loss_erased"),
    ("eil/methods/eil.py", '"""EIL:', '# A comment.\n"""The EIL:'),
    ("eil/report/table.py", "{sign}", "{sign} "),
    ("eil/evaluation/metrics.py", "100", "101"),
    ("eil/evaluation/protocols.yaml", "threshold_from: val", "threshold_from: oracle"),
    ("eil/training/train.py", "_CHECK_EVERY = 20", "_CHECK_EVERY = 10"),
    ("eil/data/readers/birds.py", "EMBEDDED = True", "EMBEDDED = bool(1)"),
    ("Snakefile", "", ""),
]
# A dry run in a fork: to start Python anew takes twenty times as long.
FORKS = """
import json, os, sys
from pathlib import Path
import torch, snakemake.report, snakemake.scheduling
from snakemake import cli
from eil.study import study
root, arguments, edits = json.loads(sys.argv[1])
for path, old, new in edits:
    file = Path(root, path)
    text = file.read_text()
    assert old in text, (path, old)
    file.write_text(text.replace(old, new, 1))
    sys.stdout.flush()
    if not (child := os.fork()):
        os.dup2(2, 1)
        cli.main(["-n", "--cores", "2", *arguments])
    assert os.waitpid(child, 0)[1] == 0
    file.write_text(text)
    print("=====", file=sys.stderr, flush=True)
"""


def dry_runs_after(edits: list[tuple[str, str, str]], root: Path, arguments: list[str]) -> list[dict[str, int]]:
    """What there is to do after each edit of a file below ``root``, the edits before it undone."""
    given = json.dumps([str(root), arguments, edits])
    process = subprocess.run(
        [sys.executable, "-c", FORKS, given], cwd=root, check=False, text=True, stderr=subprocess.PIPE
    )
    assert process.returncode == 0, process.stderr
    return [to_do(plan) for plan in process.stderr.split("=====\n")[:-1]]


def test_an_edited_source_makes_stale_what_depends_on_it_and_nothing_else(
    smoke: tuple[Path, Path, dict[str, Any]],
) -> None:
    root, folder, content = smoke
    arguments = study(folder, content)
    plans = iter(dry_runs_after(EDITS, root, ["-s", str(root / "Snakefile"), "--directory", str(folder), *arguments]))
    rest = {"localize": 4, "evaluate": 4, "tables": 1, "figures": 1, "all": 1}
    assert next(plans) == {"train": 4, "total": 15} | rest  # EIL's loss
    assert next(plans) == {}  # a comment, a docstring
    assert next(plans) == {"tables": 1, "figures": 1, "all": 1, "total": 3}
    assert set(next(plans)) == {"evaluate", "tables", "figures", "all", "total"}  # a metric
    assert next(plans)["evaluate"] == 8  # a protocol
    assert "prepare" not in next(plans)  # how training is watched
    assert next(plans)["train"] == 6  # the data's reader
    assert next(plans) == {}  # all undone


def test_a_bad_study_is_one_clear_error(tmp_path: Path, content: dict[str, Any]) -> None:
    content["methods"]["eil"]["gamma"] = [0.6, 1.4]
    output = planned(tmp_path, *study(tmp_path, content), code=1)
    assert "tiny.yaml: methods.eil.gamma[1] = 1.4: must be in (0, 1]" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_a_key_that_is_given_twice_is_one_clear_error(tmp_path: Path, content: dict[str, Any]) -> None:
    arguments = study(tmp_path, content)
    with (tmp_path / "tiny.yaml").open("a") as file:
        file.write("seeds: 3\n")
    output = planned(tmp_path, *arguments, code=1)
    assert re.search(r"tiny\.yaml: line \d+: seeds is given twice, first in line \d+", output)
    assert "Traceback" not in output


def test_a_dry_run_of_a_thousand_runs(tmp_path: Path, content: dict[str, Any]) -> None:
    content["methods"]["eil"] = {"gamma": [k / 100 for k in range(50, 100)], "sigma": [k / 10 for k in range(1, 11)]}
    plan = planned(tmp_path, *study(tmp_path, content))
    assert re.search(r"^train +1002$", plan, re.MULTILINE)


def test_a_study_given_by_configfile_does_not_inherit_the_demo(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["methods"]["eil"]
    planned(tmp_path, *study(tmp_path, content))
    kept = yaml.safe_load((tmp_path / "results" / "tiny" / "study.yaml").read_text())
    assert kept == content


def test_a_dry_run_leaves_the_study_of_a_running_workflow(tmp_path: Path, content: dict[str, Any]) -> None:
    """Its later jobs would not find their runs in another study of the same name."""
    kept = tmp_path / "results" / "tiny" / "study.yaml"
    arguments = study(tmp_path, content)
    planned(tmp_path, *arguments)
    before = kept.read_text()
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    (locks / "0.output.lock").write_text("results/tiny/runs/any/record.json\n")
    planned(tmp_path, *arguments, "--config", "seeds=1")
    assert kept.read_text() == before
    unlock(tmp_path, *arguments)
    planned(tmp_path, *arguments, "--config", "seeds=1")
    assert yaml.safe_load(kept.read_text())["seeds"] == 1


def test_photos_come_from_the_command_line(tmp_path: Path, content: dict[str, Any], photos: Path) -> None:
    content |= {"dataset": {"name": "tiny_imagenet", "val_per_class": 2}, "methods": {"cam": {}}, "seeds": 1}
    target = "results/tiny/runs/vgg_small-cam-seed0/record.json"
    arguments = [target, *study(tmp_path, content), "--config", f"data_root={photos}", "runs_per_gpu=2"]
    finished(tmp_path, *arguments, forks=True)
    record = records.read(runs(tmp_path) / "vgg_small-cam-seed0" / "record.json")
    assert record.provenance["images"] == 6
    assert not record.subsets("part_coverage")


def test_the_program_explains_itself() -> None:
    command = [sys.executable, "-m", "eil"]
    text = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(step in text for step in ("check", "prepare", "train", "localize", "evaluate", "aggregate", "figures"))
    wrong = [*command, "train", "workflow/config/smoke.yaml", "vgg_small-eil-seed9"]
    process = subprocess.run(wrong, capture_output=True, text=True, cwd=ROOT, check=False)
    expected = "eil: study smoke: has no run vgg_small-eil-seed9; `eil check` lists its runs\n"
    assert (process.returncode, process.stderr) == (1, expected)


def test_a_cluster_is_told_what_every_rule_needs() -> None:
    rules = {}
    for path in (ROOT / "workflow" / "rules").iterdir():
        for text in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            rules[text.split(":")[0]] = text
    sent = {name for name, text in rules.items() if "shell:" in text and name != "partial"}
    assert {name for name, text in rules.items() if {"mem_mb=", "runtime="} <= set(re.findall(r"\w+=", text))} == sent
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    assert set(profile["set-resources"]) <= sent


@pytest.mark.parametrize("name", ["Snakefile", *sorted(p.name for p in (ROOT / "workflow" / "rules").iterdir())])
def test_no_rule_file_has_a_lambda(name: str) -> None:
    path = ROOT / name if name == "Snakefile" else ROOT / "workflow" / "rules" / name
    assert "lambda" not in path.read_text()
