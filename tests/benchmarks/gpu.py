"""Everything about speed on a GPU, in one command of less than eight minutes, without Snakemake or pytest.

    python tests/benchmarks/gpu.py --out DIR [--photos TINY_IMAGENET] [--only step field ...]

Each section leaves a table, named by device and date, as soon as it is done; one that fails or would not fit into the
time says so, and the others go on. On a machine without a GPU `--small` runs the same code on small networks.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import field
import torch
import yaml
from saving import save

from eil import data
from eil.core import registry
from eil.core.files import read_json, write_text
from eil.core.provenance import device_name
from eil.core.run import Run
from eil.data import cache
from eil.data.augment import Batch
from eil.data.geometry import Frame
from eil.evaluation.evaluate import evaluate
from eil.methods.base import Method, Targets
from eil.profiling import cost, timing
from eil.report import timing as report
from eil.report.table import Table
from eil.study.study import parse
from eil.training import localize, train

COMMAND = "python tests/benchmarks/gpu.py"


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        backbones: that are timed.
        resize: of cached images; likewise ``crop`` and ``batch``.
        photos: how many there are.
        iterations: timed of each method; likewise ``warmup``.
        epochs: of the trainings that run side by side.
        together: how many of them.
        workers: of the field's loader.
    """

    backbones: tuple[str, ...] = ("vgg16", "resnet50")
    resize: int = 256
    crop: int = 224
    batch: int = 64
    photos: int = 512
    iterations: int = 20
    warmup: int = 5
    epochs: int = 10
    together: int = 6
    workers: int = 8


SMALL = Size(("vgg_small",), 36, 32, 8, 32, 3, 1, 2, 2, 2)


class Bench:
    """What the sections share."""

    def __init__(self, out: Path, work: Path, size: Size, tiny: Path | None) -> None:
        self.out, self.work, self.size, self.tiny = out, work, size, tiny
        self.photos = work / "photos"
        field.make_photos(self.photos, size.photos)
        self.cache = field.cached(self.photos, size.resize, size.crop)

    def run(self, backbone: str, methods: Any = None, **recipe: Any) -> Run:
        """A run on the photos."""
        base = {"batch_size": self.size.batch, "resize": self.size.resize, "crop": self.size.crop}
        return field.run_of(backbone, base | recipe, methods)

    def save(self, what: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> Path:
        """Write a table and show it."""
        path = save(what, title, header, rows, *notes, command=COMMAND, folder=self.out)
        print(path.read_text(), flush=True)
        return path


def steps(bench: Bench) -> None:
    """Every method's iteration on every backbone in bf16, and CAM's and EIL's in fp32 and TF32."""
    size, found = bench.size, []
    methods = ["cam", "eil", *(name for name in registry.available(registry.METHODS) if name not in ("cam", "eil"))]
    for backbone, precision in itertools.product(size.backbones, ("bf16", "tf32", "fp32")):
        names = methods if precision == "bf16" else methods[:2]
        runs = [bench.run(backbone, {name: {}}, precision=precision) for name in names]
        for run in runs:
            try:
                found.append(timing.measure(run, runs[0], bench.cache, size.iterations, size.warmup))
            except ValueError as reason:  # a method that the backbone does not suit
                print(f"left out: {run.name}: {reason}")
    table = report.table(found, [])
    notes = [
        "MFU: share of a large matrix product's rate in the same precision; data: share of the iteration that it takes"
    ]
    path = bench.save("step", "Cost of a training iteration", table.header, table.rows, *notes)  # type: ignore[arg-type]
    columns = ["what", "method", "backbone", "pixels", "batch", "ms", "GFLOP/s", "device", "precision"]
    rates = [
        ["training step", each.method, each.backbone, str(size.crop), str(each.batch_size)]
        + [f"{1000 * each.seconds['total'][1]:.3f}", f"{each.flops / each.seconds['total'][1] / 1e9:.2f}"]
        + [device_name(), each.precision]
        for each in found
    ]
    write_text(path.with_suffix(".csv"), Table("", columns, rates).csv())


def compiled(bench: Bench) -> None:
    """EIL and CAM through torch.compile, against eager."""
    rows = []
    for backbone, name in itertools.product(bench.size.backbones, ("cam", "eil")):
        eager, fast = (bench.run(backbone, {name: {}}, precision="bf16", compile=each) for each in (False, True))
        found = timing.measure(fast, eager, bench.cache, bench.size.iterations, bench.size.warmup)
        rows.append((backbone, name, f"{1000 * found.seconds['total'][1]:.1f}", f"{found.time_ratio[1]:.3f}"))
    header = ("Backbone", "Method", "compiled, ms", "compiled / eager")
    bench.save("compile", "torch.compile, bf16", header, rows)


def fields_loop(bench: Bench) -> None:
    """EIL end to end, data included, against the loop that the field writes."""
    rows, size = [], bench.size
    for backbone in size.backbones:
        run = bench.run(backbone, precision="bf16")
        ours = timing.TimedRun(run, bench.cache)
        theirs = field.loop(bench.run(backbone), bench.photos, bench.cache, size.iterations, size.workers)

        def our_steps(contender: timing.TimedRun = ours) -> None:
            for _ in range(size.iterations):
                contender.iterate()

        pairs = [(seconds(theirs), seconds(our_steps)) for _ in range(4)][1:]  # the first is for warming up
        ratio = statistics.median(a / b for a, b in pairs)
        each = statistics.median(b for _, b in pairs) / size.iterations
        rows.append((backbone, str(size.crop), str(size.batch), f"{1000 * each:.1f}", f"{ratio:.2f}"))
    header = ("Backbone", "pixels", "batch", "ours in bf16, ms", "the field's time in fp32 / ours")
    bench.save("field", "EIL's training against the field's loop", header, rows, f"{size.workers} loader processes")


def side_by_side(bench: Bench) -> None:
    """The same small trainings in turn and side by side on one device."""
    size = bench.size
    study = study_of(bench, size.epochs, size.together)
    path = bench.work / "small.yaml"
    path.write_text(yaml.safe_dump(study))
    runs = parse(study, "small").runs()
    rows, turns = [], {}
    for places in (1, size.together):
        env = os.environ | {"EIL_RUNS_PER_GPU": str(places), "OMP_NUM_THREADS": "1"}
        results = bench.work / f"side-{places}"

        def one(run: Run, results: Path = results, env: dict[str, str] = env) -> None:
            where = ["--results", str(results), "--data", str(bench.work / "data")]
            command = [sys.executable, "-m", "eil", "train", str(path), run.name, *where]
            subprocess.run(command, check=True, env=env, capture_output=True)

        if not turns:
            one(runs[0], bench.work / "first")  # files into the page cache
        started = time.perf_counter()
        with ThreadPoolExecutor(places) as pool:
            list(pool.map(one, runs))
        turns[places] = time.perf_counter() - started
        hourly = 3600 * len(runs) / turns[places]
        rows.append((str(places), f"{turns[places]:.1f}", f"{hourly:.0f}", f"{turns[1] / turns[places]:.2f}"))
    header = ("runs at a time", "s", "runs an hour", "gain")
    note = f"{len(runs)} trainings of {size.epochs} epochs of vgg_small, start included"
    bench.save("side-by-side", "Small runs that share a device", header, rows, note)


def ten_epochs(bench: Bench) -> None:
    """Ten epochs of the photos on vgg_small, then maps and scores, overlapped and in turn."""
    study = study_of(bench, bench.size.epochs, 1)
    (run,) = parse(study, "ten").runs()
    folder = bench.work / "ten" / run.name
    taken = seconds(lambda: train.train(run, bench.work / "data" / run.cache, folder))
    images = len(cache.open_split(bench.work / "data" / run.cache, "train").ids)
    epochs = read_json(folder / "train.json")["seconds"]
    what = f"{run.recipe.epochs} epochs of {images} photos, vgg_small"
    rows = [(what, f"{epochs:.1f} s; {taken:.1f} s with all that surrounds them")]
    for meanwhile in (False, True):
        (folder / "curves.npz").unlink(missing_ok=True)

        def both(overlap: bool = meanwhile) -> None:
            localize.localize(run, bench.work / "data" / run.cache, folder, "val-threshold", overlap)
            evaluate(run, bench.work / "data" / run.cache, folder)

        both()
        (folder / "curves.npz").unlink()
        rows.append((f"maps and scores, {'overlapped' if meanwhile else 'in turn'}", f"{seconds(both):.2f} s"))
    bench.save("study", "A small study's parts", ("what", "measured"), rows)


def study_of(bench: Bench, epochs: int, seeds: int) -> dict[str, Any]:
    """CAM on Tiny-ImageNet's photos if they are at hand, else on birds; its images are decoded."""
    if bench.tiny:
        dataset: dict[str, Any] = {"name": "tiny_imagenet", "root": str(bench.tiny)}
    else:
        dataset = {"name": "birds", "classes": 2, "train_per_class": 40, "val_per_class": 5, "test_per_class": 5}
    recipe = {"epochs": epochs, "batch_size": 128, "learning_rate": 0.05, "resize": 72, "crop": 64}
    recipe |= {"precision": "bf16" if torch.cuda.is_available() else "fp32"}
    study = {"name": "small", "dataset": dataset, "backbones": ["vgg_small"], "methods": ["cam"]}
    study |= {"controls": [], "seeds": seeds, "recipe": recipe}
    run = parse(study, "small").runs()[0]
    if not (bench.work / "data" / run.cache).exists():
        settings = {key: value for key, value in dataset.items() if key not in ("name", "root")}
        cache.build(data.read(dataset["name"], bench.tiny, settings), bench.work / "data" / run.cache, Frame(72, 64))
    return study


def memory(bench: Bench) -> None:
    """What EIL's step keeps for its gradients, over CAM's, against the doubled tail; and the peak on a GPU."""
    rows, size = [], bench.size
    for backbone in size.backbones:
        found = {name: timing.TimedRun(bench.run(backbone, {name: {}}), bench.cache) for name in ("cam", "eil")}
        batch = next(found["cam"].endless)
        models = {name: contender.model.module.train() for name, contender in found.items()}
        kept = {name: cost.kept_bytes(partial(total, model, batch)) for name, model in models.items()}
        eil = models["eil"]
        features = eil.backbone.forward_stages(batch.images, stop=eil.at).detach().requires_grad_()
        tail = cost.kept_bytes(lambda eil=eil, features=features: eil.f2(torch.cat([features, features])).sum())
        rows.append((backbone, *(f"{value / 2**20:.0f}" for value in (*kept.values(), tail))))
    header = ("Backbone", "CAM, MiB", "EIL, MiB", "doubled tail, MiB")
    bench.save("memory", "What a step keeps for its gradients, fp32", header, rows, f"{size.batch} images")


def total(model: Method, batch: Batch) -> torch.Tensor:
    """The loss of a batch."""
    return model.loss(batch.images, Targets(batch.labels))["total"]


def seconds(act: Callable[[], object]) -> float:
    """How long it takes, the device included."""
    started = time.perf_counter()
    act()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "step": steps,
    "field": fields_loop,
    "study": ten_epochs,
    "side-by-side": side_by_side,
    "memory": memory,
    "compile": compiled,
}


def main() -> int:
    """Run the sections that are asked for; how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--photos", type=Path, help="Tiny-ImageNet (default: birds are drawn)")
    parser.add_argument("--only", nargs="*", choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--small", action="store_true", help="small networks and few iterations: does it run?")
    parser.add_argument("--minutes", type=float, default=7.5, help="sections that would begin later are left out")
    args = parser.parse_args()
    size = SMALL if args.small else Size()
    started, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(args.out, Path(work), size, args.photos)
        for name in args.only:
            if time.monotonic() - started > 60 * args.minutes:
                print(f"{name}: left out, the time is over")
                failed += 1
                continue
            try:
                print(f"{name}: {seconds(partial(SECTIONS[name], bench)):.0f} s", flush=True)
            except Exception:
                traceback.print_exc()
                failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
