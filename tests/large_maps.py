"""Maps at the photos' size, and what scoring them takes in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 3000, 2000
CODE = """
import json, resource, sys
from pathlib import Path
from eil.evaluation import score
found = score.score(Path(sys.argv[1]), Path(sys.argv[2]), "wsoleval-v2")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
status = Path("/proc/self/status")
if status.exists():  # on Linux ru_maxrss begins with what the process had that started this one
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
print(json.dumps({"peak": peak, "loc": found["gt_known_loc"]}))
"""


def large_map() -> np.ndarray:
    """A blob whose foreground, above a third, is a box of 1500 x 1000 pixels in the middle, float64."""
    y, x = np.abs(np.linspace(-1, 1, HEIGHT)), np.abs(np.linspace(-1, 1, WIDTH))
    return 1 - np.maximum(y[:, None], x[None])


def write(folder: Path, count: int) -> tuple[Path, Path]:
    """Folders of ``count`` maps, all of them one file on disk, and of their lists."""
    ids = [f"{k}.jpg" for k in range(count)]
    for name in ("maps", "lists"):
        (folder / name).mkdir()
    np.save(folder / "one.npy", large_map())
    for name in ids:
        os.link(folder / "one.npy", folder / "maps" / f"{name}.npy")
    lists = {
        "image_ids": "{}",
        "class_labels": "{},0",
        "image_sizes": f"{{}},{WIDTH},{HEIGHT}",
        "localization": f"{{}},{WIDTH // 4},{HEIGHT // 4},{3 * WIDTH // 4},{3 * HEIGHT // 4}",
    }
    for name, line in lists.items():
        (folder / "lists" / f"{name}.txt").write_text("\n".join(line.format(each) for each in ids))
    return folder / "maps", folder / "lists"


def scored(folder: Path, count: int) -> dict[str, float]:
    """Peak resident memory in MiB of a process that scores them, and GT-known Loc."""
    command = [sys.executable, "-c", CODE, *map(str, write(folder, count))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
