"""What is remembered of source files is never older than they are."""

import ast
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eil.core import source_files, user_cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of this test's own, and nothing kept for other tests."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(source_files, "_SECONDS_UNTIL_SETTLED", -1.0)  # files of these tests are new
    monkeypatch.setattr(user_cache, "private_folder", lambda name: tmp_path / "cache")
    forget()
    yield
    forget()


def forget() -> None:
    source_files.forget()
    source_files._cache.cache_clear()


def write(path: Path, text: str, date: int = 1_700_000_000) -> Path:
    """A source file whose content has this date, as an archive may set it."""
    path.write_text(text)
    os.utime(path, (date, date))
    return path


def in_a_new_process(path: Path) -> source_files.SourceFile:
    """What a process that starts now says of a file."""
    source_files.remember()
    source_files.forget()
    return source_files.parse(path)


def test_a_later_process_parses_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "module.py", "import json\nfrom os import path as here\nx = 1\n")
    first = source_files.parse(path)
    assert first.imports == ("json", "os", "os.path")
    monkeypatch.setattr(ast, "parse", None)
    assert in_a_new_process(path) == first


def test_a_second_call_keeps_what_the_first_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a run has a hash of its own, and each hash stores what it had to parse."""
    paths = [write(tmp_path / f"module_{i}.py", f"x = {i}\n") for i in range(3)]
    found = []
    for path in paths:
        found.append(source_files.parse(path))
        source_files.remember()
    source_files.forget()
    monkeypatch.setattr(ast, "parse", None)
    assert [source_files.parse(path) for path in paths] == found


@pytest.mark.parametrize(("text", "date"), [("x = 2\n", 1_700_000_030), ("x = 22\n", 1_700_000_000)])
def test_an_edited_file_is_parsed_again(tmp_path: Path, text: str, date: int) -> None:
    """Edited to the same size, and dated back to the same time."""
    before = source_files.parse(write(tmp_path / "module.py", "x = 1\n"))
    assert in_a_new_process(write(tmp_path / "module.py", text, date)) != before


@pytest.mark.skipif(sys.platform == "win32", reason="has no date that nobody can set")
def test_another_version_of_the_same_size_and_date_is_parsed_again(tmp_path: Path) -> None:
    before = source_files.parse(write(tmp_path / "module.py", "x = 1\n"))
    time.sleep(0.05)  # several ticks of the clock that dates files
    assert in_a_new_process(write(tmp_path / "module.py", "x = 2\n")) != before


def test_a_file_that_may_change_within_a_tick_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_files, "_SECONDS_UNTIL_SETTLED", 2.0)
    path = write(tmp_path / "module.py", "x = 1\n")
    source_files.parse(path)
    source_files.remember()
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", '{"PATH": [1]}', '{"PATH": null}', '{"PATH": [1, 2, 3, 4]}', '{"PATH": [1, 2, 3, 4, 5]}']
)
def test_a_damaged_cache_costs_time_alone(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "module.py", "import json\n")
    expected = source_files.parse(path)
    source_files.remember()
    [cache] = (tmp_path / "cache").iterdir()
    cache.write_text(damage.replace("PATH", str(path)))
    assert in_a_new_process(path) == expected


def test_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    gone, here = write(tmp_path / "gone.py", "x = 1\n"), write(tmp_path / "here.py", "x = 1\n")
    source_files.parse(gone)
    source_files.remember()
    gone.unlink()
    in_a_new_process(here)
    source_files.remember()
    [cache] = (tmp_path / "cache").iterdir()
    assert str(here) in cache.read_text()
    assert str(gone) not in cache.read_text()
