"""The command line: every option arrives with its type, wrong ones are usage errors, the help is quick and complete."""

import inspect
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from eil.commands import cli
from eil.commands.options import Folders

ROOT = Path(__file__).parents[2]
STUDY, RUN = "workflow/config/smoke.yaml", "vgg_small-cam-seed0"
OF_STUDY = ("check", "plan", "prepare", "sheet", "time", "profile", "status", "aggregate", "clean", "figures")
OF_RUN = ("train", "localize", "evaluate", "show", "boxes", "verify")


def parsed(*tokens: str) -> tuple[str, dict[str, Any]]:
    """Name of the function that a command line calls, and its arguments."""
    command, bound, _ = cli.make_app().parse_args(list(tokens), exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return command.__name__, bound.arguments


def commands() -> list[tuple[str, App]]:
    app = cli.make_app()
    names = [*OF_STUDY, *OF_RUN, "score", "compare", "leaderboard"]
    return [*((name, app[name]) for name in names), ("data check", app["data"]["check"])]


@pytest.mark.parametrize("name", OF_STUDY)
def test_commands_of_a_study(name: str) -> None:
    function, found = parsed(name, STUDY, "--results", "here", "--data", "images", "--data-root", "photos")
    assert function == ("time_study" if name == "time" else name)
    assert found["study"] == Path(STUDY)
    assert found["folders"] == Folders(Path("here"), Path("images"), Path("photos"))
    assert parsed(name, STUDY)[1]["folders"] == Folders(None, Path("results/data"), None)


@pytest.mark.parametrize("name", OF_RUN)
def test_commands_of_a_run(name: str) -> None:
    function, found = parsed(name, STUDY, RUN)
    assert (function, found["study"], found["run"]) == (name, Path(STUDY), RUN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plan S --images 3 4 5 --classes 2", {"images": (3, 4, 5), "classes": 2, "tflops": (), "rates": None}),
        ("plan S --tflops 40 80.5 --rates a b", {"tflops": (40.0, 80.5), "rates": (Path("a"), Path("b"))}),
        ("plan S --rates", {"rates": ()}),
        ("prepare S --cache c --only photos", {"cache": "c", "only": "photos"}),
        ("prepare S", {"cache": None, "only": None}),
        ("time S --batches 32 64 --precisions fp32 bf16", {"batches": (32, 64), "precisions": ("fp32", "bf16")}),
        ("time S", {"batches": (), "precisions": (), "iterations": 30, "warmup": 5}),
        ("profile S --run r", {"run_name": "r", "iterations": 10}),
        ("profile S --iterations 3", {"run_name": None, "iterations": 3}),
        ("clean S --maps --dry-run", {"maps": True, "weights": False, "dry_run": True}),
        ("clean --weights S", {"study": Path("S"), "weights": True}),
        ("show S r --image test/0 --out o.png", {"image": "test/0", "out": Path("o.png")}),
        ("boxes S r", {"out": None, "frame": "photo"}),
        ("boxes S r --frame network", {"frame": "network"}),
        ("verify S r --retrain", {"retrain": True}),
        ("compare a b --out c", {"first": Path("a"), "second": Path("b"), "out": Path("c")}),
        ("score --maps m --metadata l", {"protocol": "wsoleval-v2", "side": 224, "as_json": False, "masks": None}),
        ("score --maps m --metadata l --json --allow-missing", {"as_json": True, "allow_missing": True}),
        ("data check cub --set a=1 b=[x]", {"dataset": "cub", "settings": ("a=1", "b=[x]"), "root": None}),
    ],
)
def test_options_arrive_with_their_types(line: str, expected: dict[str, Any]) -> None:
    _, found = parsed(*line.split())
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "a command is missing"),
        ("data", "a command is missing"),
        ("fly", "Unknown command"),
        ("check", "STUDY requires an argument"),
        ("train S", "RUN requires an argument"),
        ("check S --bar", "Unknown option: --bar"),
        ("check S extra", "extra"),
        ("time S --iterations few", "few"),
        ("time S --precisions fp64", "fp64"),
        ("plan S --images 1 2", "--images"),
        ("clean S --no-maps", "Unknown option: --no-maps"),
        ("prepare S --only masks", "masks"),
        ("score --maps m", "--metadata"),
        ("check --study S", "--study"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("eil: ")
    assert message in err
    assert re.search(r"Try `eil [a-z ]*--help`\.$", err)


def test_every_command_has_an_example_that_it_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    for name, app in commands():
        function = app.default_command
        assert function is not None
        example = re.search(r"Example: eil (.+)", inspect.getdoc(function) or "")
        assert example, name
        assert example[1].startswith(name)
        command, _, _ = cli.make_app().parse_args(example[1].split(), exit_on_error=False, print_error=False)
        assert command is function
        assert cli.main([*name.split(), "--help"]) == 0
        assert f"Example: eil {name} " in " ".join(capsys.readouterr().out.split())


def test_every_option_is_typed_and_explained() -> None:
    for name, app in commands():
        function = app.default_command
        assert function is not None
        doc = inspect.getdoc(function) or ""
        for key, parameter in inspect.signature(function).parameters.items():
            assert parameter.annotation is not inspect.Parameter.empty, (name, key)
            assert f"    {key}: " in doc, (name, key)


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"\b{name.split()[0]} ", out) for name, _ in commands())
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from eil.commands import cli; assert cli.main(['plan', '--help']) == 0; "
        "slow = {'torch', 'pandas', 'numba', 'numpy', 'pydantic', 'cv2', 'matplotlib'} & set(sys.modules); "
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_a_command_takes_no_time_to_be_found() -> None:
    started = time.perf_counter()
    parsed("check", STUDY)
    assert time.perf_counter() - started < 1
