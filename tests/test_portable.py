"""Without what only Unix has every module can be imported, and what is lacking is done in another way or told."""

import ast
import contextlib
import functools
import importlib
import io
import logging
import os
import platform
import select
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eil.commands import cli
from eil.core import files, provenance, user_cache
from eil.core.files import InputError, write_text
from eil.data import parallel, photos
from eil.execution import out_of_memory, run_lock, signals, verify
from eil.study import run_names

ROOT = Path(__file__).parents[1]
SOURCES = [path for top in ("eil", "baselines") for path in sorted(ROOT.glob(f"{top}/**/*.py"))]
MODULES = ["fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty"]
LACKING: dict[types.ModuleType, list[str]] = {
    os: ["fork", "forkpty", "getpgid", "getuid", "geteuid", "getgid", "getloadavg", "killpg", "mkfifo", "nice"]
    + ["posix_fadvise", "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sysconf", "uname", "wait4"],
    signal: ["SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGUSR1"]
    + ["ITIMER_REAL", "SIGUSR2", "SIGXCPU", "alarm", "pause", "pthread_sigmask", "setitimer", "sigwait"],
    select: ["epoll", "poll"],
}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@contextlib.contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system with neither /proc nor what Windows lacks."""
    with monkeypatch.context() as patch:
        for name in MODULES:
            patch.setitem(sys.modules, name, None)  # so that its import fails
        for module, names in LACKING.items():
            for name in names:
                patch.delattr(module, name, raising=False)
        yield


def test_every_module_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code runs a second time, when all that it imports from other libraries is there."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
    codes = {}
    for path, name in names.items():
        if path.stem != "__main__":
            importlib.import_module(name)
            codes[path] = compile(tree(path), str(path), "exec")
    failed = {}
    with elsewhere(monkeypatch):
        for path, code in codes.items():
            package = names[path] if path.name == "__init__.py" else names[path].rpartition(".")[0]
            try:
                exec(code, {"__name__": names[path], "__file__": str(path), "__package__": package})
            except (ImportError, AttributeError) as error:
                failed[names[path]] = error
    assert failed == {}
    assert len(codes) > 150


def test_what_is_lacking_is_done_in_another_way_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere(monkeypatch), caplog.at_level(logging.WARNING):
        assert "peak_bytes" not in provenance.ResourceMeter().read()
        assert parallel.cores() == os.cpu_count()
        monkeypatch.setenv("USERNAME", "anna")
        assert user_cache.user_id() == "anna"
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.setenv(name, "")  # and not delenv: what was absent would not be restored
        user_cache.ensure_user_name()
        assert os.environ["LOGNAME"] == user_cache.user_id() == "unnamed"
        assert user_cache.private_folder("test").is_dir()
        assert out_of_memory.counter(tmp_path / "no" / "cgroup") == {}
        assert not run_lock.is_busy(tmp_path)
        assert cli._output_is_closed()
        with signals.time_limit(0.0001), signals.handle_signals():
            pass
    assert caplog.messages == ["time_limit = 0.0001: not enforced, since this system has no alarm signal"]


def test_a_written_file_is_flushed_where_that_needs_a_writable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def fsync(number: int) -> None:
        os.write(number, b"")  # fails on a file that is open for reading alone, as Windows' fsync does
        flushed.append(number)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "γ\n± 1\n")
    assert (tmp_path / "a.txt").read_bytes() == "γ\n± 1\n".encode()
    assert len(flushed) == 1


def test_without_links_a_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maps.npz").write_bytes(b"maps")

    def refuse(*_: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    verify._link(tmp_path / "maps.npz", tmp_path / "link")
    monkeypatch.setattr(Path, "symlink_to", refuse)
    verify._link(tmp_path / "maps.npz", tmp_path / "copy")
    assert (tmp_path / "link").read_bytes() == (tmp_path / "copy").read_bytes() == b"maps"


def test_a_list_cannot_name_a_photo_on_another_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert photos.path_below(Path("root"), "a:b.jpg", "list:1") == Path("root/a:b.jpg")
    monkeypatch.setattr(photos, "DRIVES", True)
    for name in ("C:/photo.jpg", "C:photo.jpg", "a/é/C:photo.jpg"):
        with pytest.raises(InputError, match="expected a path below"):
            photos.path_below(Path("root"), name, "list:1")


def test_a_runs_name_has_no_sign_that_a_folder_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    run_names.require_usable(["vgg_small-cam-x1:2-seed0"])
    monkeypatch.setattr(run_names, "FORBIDDEN", frozenset('/\\<>:"|?*'))
    with pytest.raises(InputError, match="must be a folder's: no "):
        run_names.require_usable(["vgg_small-cam-x1:2-seed0"])


def test_the_processor_of_a_mac_has_its_full_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(Path, "exists", lambda _: False)

    def sysctl(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command == ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, "Apple M3\n", "")

    monkeypatch.setattr(provenance.subprocess, "run", sysctl)
    assert provenance.processor.__wrapped__() == "Apple M3"
    monkeypatch.setattr(provenance.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert provenance.processor.__wrapped__() == "arm"


def test_what_the_output_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252", newline="\n"))
    cli._never_fail_to_encode()
    print("± γ", flush=True)
    assert raw.getvalue() == b"\xb1 \\u03b3\n"


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Else Windows reads and writes its own code page."""
    wrong = []
    for path in SOURCES:
        for call in ast.walk(tree(path)):
            if not isinstance(call, ast.Call) or any(each.arg == "encoding" for each in call.keywords):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            method = isinstance(call.func, ast.Attribute)
            if (name in ("read_text", "write_text") and method) or (
                name == "open" and not modes and not call.args and method
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert wrong == []


def test_the_quick_tests_of_the_other_systems_exist() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    job = jobs["elsewhere"]
    assert job["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    words = [word for step in job["steps"] for word in step.get("run", "").split()]
    assert not {"make", "bash", "sh"} & set(words)
    quick = [word for word in words if word.startswith("tests/")]
    assert len(quick) > 5
    assert [path for path in quick if not (ROOT / path).exists()] == []
