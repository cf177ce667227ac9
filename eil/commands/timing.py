"""Commands that measure speed, alone on the device."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from eil.commands.options import DEFAULT_FOLDERS, MANY, Folders, open_study


def time_study(
    study: Path,
    /,
    *,
    batches: Annotated[tuple[int, ...], MANY] = (),
    precisions: Annotated[tuple[Literal["fp32", "tf32", "bf16"], ...], MANY] = (),
    iterations: int = 30,
    warmup: int = 5,
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Time training iterations and inference of every method of a study, alone on this machine.

    Example: eil time workflow/config/demo.yaml --precisions fp32 bf16 --batches 32 64

    Args:
        study: The study's YAML file.
        batches: Batch sizes; default: the recipe's.
        precisions: Precisions; default: the recipe's.
        iterations: Number of iterations to time for each.
        warmup: Number of iterations before the timed ones.
        folders: Where the study's files are.
    """
    from eil.execution import collect, gpu_lease
    from eil.profiling import map_timing, timing
    from eil.report import configurations
    from eil.report import timing as report

    opened = open_study(study, folders)
    runs = opened.runs()
    with gpu_lease.lease(exclusive=True):
        found = timing.timings(runs, opened.data, batches, precisions, iterations, warmup)
        of_maps = map_timing.timings(runs, opened.data, iterations, warmup)
    done = [record for record in collect.collect(runs, opened.runs_folder) if record.status == "done"]
    print(report.write(found, opened.results / "timing", configurations.accuracy(done), of_maps))


def profile(
    study: Path,
    /,
    *,
    run_name: Annotated[str | None, Parameter(name="--run")] = None,
    iterations: int = 10,
    folders: Folders = DEFAULT_FOLDERS,
) -> None:
    """Profile training iterations of a run, alone on this machine: trace, operations, memory, bottleneck.

    Example: eil profile workflow/config/demo.yaml --run vgg_small-cam-seed0

    Args:
        study: The study's YAML file.
        run_name: Name of the run; default: the study's first.
        iterations: Number of iterations to profile.
        folders: Where the study's files are.
    """
    from eil.execution import gpu_lease
    from eil.profiling import profile as profiling

    opened = open_study(study, folders)
    run = opened.study.find_run(run_name) if run_name else opened.runs()[0]
    folder = opened.results / "profile" / run.name
    with gpu_lease.lease(exclusive=True):
        found = profiling.profile(run, opened.images(run), folder / "trace.json.gz", iterations)
    print(f"{profiling.write(run, found, folder)}: {found.verdict}")
