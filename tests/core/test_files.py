"""Whole or absent: what a failing, full or killed writer leaves behind."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eil.core.files import InputError, atomic_write, read_arrays, read_json, write_arrays, write_json


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(OSError, match="No space"), atomic_write(path) as beside:
        beside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_write(tmp_path / "folder") as beside:
            beside.mkdir()
            (beside / text).write_text(text)
    assert os.listdir(tmp_path / "folder") == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from eil.core.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "weights.safetensors"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.send_signal(signal.SIGKILL)
    time.sleep(0.1)
    assert not path.exists()


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array(["x", "yz"])}
    write_arrays(tmp_path / "a.npz", arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_some_arrays_of_a_large_file_can_be_read(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"large": np.zeros(10_000), "small": np.array("x")})
    with pytest.raises(InputError, match="GB unpacked"):
        read_arrays(tmp_path / "a.npz", max_bytes=1000)
    found = read_arrays(tmp_path / "a.npz", max_bytes=1000, only={"small", "none"})
    assert list(found) == ["small"]
    assert str(found["small"]) == "x"


def test_pickles_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", a=np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "half.npz").write_bytes((tmp_path / "pickle.npz").read_bytes()[:100])
    for name in ("pickle.npz", "half.npz"):
        with pytest.raises(InputError, match=f"{name}: not a readable .npz of plain arrays"):
            read_arrays(tmp_path / name)
    with pytest.raises(InputError, match="none.npz: no such file"):
        read_arrays(tmp_path / "none.npz")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_nan_is_refused_in_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()
