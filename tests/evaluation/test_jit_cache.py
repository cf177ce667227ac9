"""Functions compiled from other sources are not loaded."""

import subprocess
import sys
from pathlib import Path

from eil.evaluation import jit_cache

CODE = """
import numpy as np
from eil.evaluation.box_conventions import BoxConvention
from eil.evaluation.union_find import best_iou
print(best_iou((0, 0, 3, 3), np.array([[0.0, 0, 3, 3]]), BoxConvention()))
"""


def test_functions_compiled_from_other_sources_are_removed_once(tmp_path: Path) -> None:
    for name in ("a.best_of_all-1.py311.nbi", "a.best_of_all-1.py311.1.nbc", "a.cpython-311.pyc"):
        (tmp_path / name).write_bytes(b"x")
    jit_cache.remove_outdated(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cpython-311.pyc", "compiled-from.txt"]
    (tmp_path / "b.nbi").write_bytes(b"x")
    jit_cache.remove_outdated(tmp_path)
    assert (tmp_path / "b.nbi").exists()


def test_a_cache_that_names_a_module_of_an_earlier_version_does_no_harm(tmp_path: Path) -> None:
    """Numba would fail with ModuleNotFoundError as it unpickles its index."""
    env = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(jit_cache.__file__).parents[2])}
    first = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True)
    indices = list(tmp_path.rglob("*.nbi"))
    assert indices
    for path in indices:
        path.write_bytes(
            path.read_bytes().replace(b"eil.evaluation.box_conventions", b"eil.evaluation.box_conventionz")
        )
    spoilt = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=False)
    assert "ModuleNotFoundError" in spoilt.stderr  # the fault that a renamed module caused
    for stamp in tmp_path.rglob("compiled-from.txt"):
        stamp.write_text("of an earlier version")
    again = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True)
    assert again.stdout == first.stdout
