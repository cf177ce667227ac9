"""Locks between processes: who asks takes nothing, who is killed lets go, and other systems are not shut out."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eil.core import files
from eil.core.files import is_locked, locked, locked_if_free

HOLDER = (
    "import sys, time; from pathlib import Path; from eil.core.files import locked\n"
    "with locked(Path(sys.argv[1])):\n    print('locked', flush=True); time.sleep(600)"
)


def test_a_lock_is_seen_and_a_killed_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    assert not is_locked(path)
    assert not path.exists()
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(path)
        assert files._is_locked_exclusively(path)
        holder.kill()
        holder.wait()
    assert not is_locked(path)
    assert not files._is_locked_exclusively(path)
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with locked_if_free(path) as first:
        assert first
        with locked_if_free(path) as second:
            assert not second
        assert is_locked(path)
    assert not is_locked(path)


def test_who_asks_does_not_hold_up_another_who_asks(tmp_path: Path) -> None:
    import fcntl

    with locked(tmp_path / ".lock"):
        pass
    with (tmp_path / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_locked(tmp_path / ".lock")


def test_the_lock_file_of_another_user_can_be_asked(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"):
        (tmp_path / ".lock").chmod(0o444)
        assert is_locked(tmp_path / ".lock")


def test_without_what_only_unix_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def windows(name: str, *rest: Any) -> Any:
        if name in ("fcntl", "resource"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", windows)
    assert not is_locked(tmp_path / ".lock")
    with locked(tmp_path / ".lock"):
        assert is_locked(tmp_path / ".lock")
    assert not is_locked(tmp_path / ".lock")
