"""All helper functions of the rules: the study, its runs, and the files and hashes of a run."""

import os
import sys
from pathlib import Path

import yaml

from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import ExecMode

from eil import execution
from eil.commands import forks
from eil.core import safe_yaml, source_hash, user_cache
from eil.study import command_line, study_paths
from eil.execution import data_state
from eil.study import study as studies
from eil.study.warnings import warnings
from eil.evaluation import protocols
from eil.core.files import InputError, write_text

# Use the `eil` that is installed with this Snakemake, even if the environment is not activated. Not by `shell.prefix`, which
# would replace that of a workflow that uses this one as a module.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)
# Keep freed memory for the next step: on a CPU, page faults cost a tenth of a step.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "4294967296")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "8589934592")
user_cache.ensure_user_name()
# Whether the machines share no disk: declared files, and nothing else, travel between them through a storage.
STORAGE = workflow.storage_registry.default_storage_provider is not None
# On this machine a training's process goes on to localize and evaluate, which saves loading torch twice. A cluster's job
# does not: it would keep its GPU for work of the CPU. Through a storage, what was made ahead would not travel, nor would the
# maps that `eil localize` of an extractor makes for others; on a cluster with a shared disk it makes them.
AHEAD = not STORAGE and workflow.exec_mode != ExecMode.REMOTE
# Nor do its jobs share what they import, nor those in an environment or a container that Snakemake makes for each.
if not AHEAD or workflow.deployment_settings.deployment_method:
    os.environ.pop(forks.WORKFLOW, None)
elif workflow.exec_mode == ExecMode.DEFAULT and forks.possible():
    os.environ[forks.WORKFLOW] = str(os.getpid())
os.environ.update(
    EIL_AHEAD="--ahead" if AHEAD else "", EIL_APART="1" if STORAGE else ""
)


def all_cores():
    """The number of cores that Snakemake was given; 1 with `--unlock`, which needs none and may come without."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


ALL_CORES = all_cores()


def with_prefix(path):
    """A path as Snakemake places it: below the `prefix` of a module statement."""
    return str(workflow.modifier.path_modifier.replace_prefix(path))


def local_copy(path):
    """Where commands find a rule's file: as `with_prefix`, and below this machine's copy of the storage, if there is one."""
    return str(workflow.modifier.path_modifier.modify(path))


def stored(path):
    """A rule's file in the storage, as a URL or whatever names a file there."""
    return workflow.modifier.path_modifier.modify(path).flags["storage_object"].query


def only_with_storage(*paths):
    """Files that are declared only if they must travel.

    On a shared disk `dataset.json` and the like stand for what lies beside them. To declare that too would make every
    finished study train again, because the set of its inputs has changed.
    """
    return list(paths) if STORAGE else []


def look_for_folders_again():
    """Let the storage plugin s3 see folders that other machines have made.

    It remembers that a folder was missing and never looks again (0.3.6), so that Snakemake would say of each job's folder
    that it is missing in the storage.
    """
    kind = workflow.storage_registry.default_storage_provider.get_storage_object_cls()
    exists = kind.exists

    def exists_now(self):
        if getattr(self, "_is_dir", None) is False:
            self._is_dir = None
        return exists(self)

    if not hasattr(kind, "looks_again"):  # modules include this file once more
        kind.exists, kind.looks_again = exists_now, True


if STORAGE:
    look_for_folders_again()


def parts_of_study():
    """The study's files and settings: source for messages, folder of its relative paths, content. Later ones win."""
    if not workflow.modifier.is_main_snakefile():
        return [(f"config of module {workflow.modifier.namespace}", Path(), config)]
    # A study that is given on the command line replaces that of a `configfile:` statement.
    paths = workflow.overwrite_configfiles or workflow.configfiles
    files = [
        (str(path), Path(path).parent, safe_yaml.load(Path(path)) or {})
        for path in paths
    ]
    settings = workflow.config_settings
    given = command_line.typed(settings.config, settings.config_args)
    return [*files, ("--config", Path(), given)]


def resolve():
    """Check the study, expand its grid, and write it to the results, where every step reads it."""
    try:
        *files, (last, folder, given) = parts_of_study()
    except InputError as error:
        sys.exit(str(error))
    given = {key: value for key, value in given.items() if key != "container"}
    source = ", ".join([name for name, _, _ in files] or [last])
    if root := given.pop("data_root", None):
        given["dataset"] = {**given.get("dataset", {}), "root": str(root)}
    if places := given.pop("runs_per_gpu", None):
        os.environ.update(EIL_RUNS_PER_GPU=str(places))
    try:
        content = study_paths.merged([*files, (last, folder, given)])
        study = studies.parse(study_paths.escaped(content), source)
        runs, dropped = study.expand(source)
    except InputError as error:
        # The message names file, key and value; a traceback would hide it.
        sys.exit(str(error))
    if workflow.exec_mode == ExecMode.DEFAULT:
        for line in warnings(study, runs):
            print(f"warning: {line}", file=sys.stderr)
    kept = Path(with_prefix(f"results/{study.name}/study.yaml"))
    text = yaml.safe_dump(study_paths.escaped(content), sort_keys=False)
    # A running workflow's jobs read it: a dry run of another study with this name must not take their runs from them.
    if not kept.exists() or (kept.read_text() != text and not workflow_is_running()):
        write_text(kept, text)
    return study, {run.name: run for run in runs}, dropped


def workflow_is_running():
    """Whether a Snakemake holds the lock of this folder, or was killed while it did."""
    return any(Path(".snakemake/locks").glob("*.lock"))


def content_hashes():
    """Hashes of the data as they are now, by cache."""
    try:
        return data_state.content_hashes(
            RUNS.values(), Path(with_prefix("results/data"))
        )
    except InputError as error:
        sys.exit(str(error))


STUDY, RUNS, DROPPED = resolve()


# Used with --sdm apptainer alone.
container: parts_of_study()[-1][2].get("container")


RESULTS = f"results/{STUDY.name}"
# Snakemake adds a module's prefix to a rule's files, not to its parameters. Each process writes study.yaml itself.
FOLDER = local_copy(RESULTS)
STUDY_ARGUMENTS = f"{with_prefix(RESULTS)}/study.yaml --results {FOLDER} --data {local_copy('results/data')}"
# Modules of one workflow have a variable each.
EIL_VARIABLE = "_".join(filter(None, ["EIL_STUDY", workflow.modifier.namespace]))
os.environ.update({EIL_VARIABLE: STUDY_ARGUMENTS})
# The place of the storage's copy may differ between machines, and is no reason to run anything again.
EIL = f"${EIL_VARIABLE}" if STORAGE else STUDY_ARGUMENTS
# Checked once here, by stat calls; the jobs do not check again.
CONTENT = content_hashes()
os.environ[execution.CHECKED_BY_WORKFLOW] = "1"
# The content of the protocols, not only their names: an edited protocol scores again.
PROTOCOLS = [
    protocols.find(name).model_dump_json(exclude={"source"}) for name in STUDY.protocols
]


wildcard_constraints:
    run="[^/]+",
    cache="[^/]+",


def key(wildcards):
    """Hash of a run's settings: when they change, its steps run again."""
    return RUNS[wildcards.run].key


def sources_of(step):
    """Hash of the sources that a run's step depends on: when they change in meaning, it runs again."""

    def find(wildcards):
        return source_hash.of_step(step, RUNS[wildcards.run])

    return find


def trained(name):
    """An input function: a file of the run whose network is used; controls and extractors use another run's."""

    def find(wildcards):
        return f"{RESULTS}/runs/{RUNS[wildcards.run].training_run.name}/{name}"

    return find


def devices(wildcards):
    """Number of devices on which a run trains."""
    return RUNS[wildcards.run].recipe.devices


def dataset_json(wildcards):
    """The decoded photos that a run reads."""
    return f"results/data/{RUNS[wildcards.run].cache}/dataset.json"


def decoded_splits(*splits):
    """An input function: the decoded photos of these splits that a run reads beside `images`."""

    def find(wildcards):
        return photos_of([RUNS[wildcards.run].cache], *splits)

    return find


def photos_to_localize(wildcards):
    """The decoded photos that the localizing of a run reads: an extractor may learn from those of training."""
    run = RUNS[wildcards.run]
    return photos_of([run.cache], *(["train"] if run.extractor else []), "val", "test")


def photos_of(caches, *splits):
    """The folders of the decoded photos of these splits, in these caches."""
    return only_with_storage(
        *(f"results/data/{cache}/{split}" for cache in caches for split in splits)
    )


# Which files are in the folder depends on the data set; on a shared disk the last of them stands for it.
ANNOTATIONS = "annotations" if STORAGE else "annotations/annotations.json"


def annotations(wildcards):
    """The boxes and masks that a run reads."""
    return f"results/data/{RUNS[wildcards.run].cache}/{ANNOTATIONS}"


def annotations_of_controls(wildcards):
    """The boxes from which a control may make its maps; other runs' maps do not depend on boxes."""
    needed = annotations(wildcards)
    return needed if RUNS[wildcards.run].control else ancient(needed)


def classification_of_controls(wildcards):
    """The maps from which a control takes the classification: those of the run whose network it uses."""
    run = RUNS[wildcards.run]
    return f"{RESULTS}/runs/{run.training_run.name}/maps.npz" if run.control else []


def content_of(what):
    """An input function: hash of the photos or annotations of a cache, which is prepared again if they change."""

    def find(wildcards):
        return CONTENT.get(wildcards.cache, {}).get(what)

    return find


def all_caches():
    """The folders of decoded images of all runs."""
    return sorted({run.cache for run in RUNS.values()})


def descriptions():
    """What is known of all data, with their boxes and masks."""
    names = ("dataset.json", ANNOTATIONS)
    return [f"results/data/{cache}/{name}" for cache in all_caches() for name in names]


def every(name):
    """A file of every run."""
    return [f"{RESULTS}/runs/{run}/{name}" for run in RUNS]


def all_keys(wildcards):
    """Hashes of all runs."""
    return [run.key for run in RUNS.values()]


def all_sources(wildcards):
    """Hashes of what the training of any run depends on."""
    return sorted({source_hash.of_step("train", run) for run in RUNS.values()})


def on_this_disk(wildcards):
    """No input; an error if the results are elsewhere."""
    if STORAGE:
        raise WorkflowError(
            f"`partial` needs the results on this disk: copy {stored(RESULTS)} to {RESULTS}, then `eil aggregate` and "
            "`eil figures`"
        )
    return []


def progress():
    """How many runs are done and failed, and the first of the failures; where the results are, if not on this disk."""
    if STORAGE:
        return f"results: {stored(RESULTS)}"
    from eil.execution import collect

    found = collect.collect(RUNS.values(), Path(FOLDER, "runs"))
    failed = [record for record in found if record.status == "failed"]
    lines = [
        f"{len(found) - len(failed)} of {len(RUNS)} runs done, {len(failed)} failed"
    ]
    lines += [f"  {record.run.name}: {record.error}" for record in failed[:5]]
    if failed:
        lines.append(
            "The same command tries these again; with the target `partial` it makes tables of what there is."
        )
    return "\n".join(lines)


def all_gpus(wildcards):
    """All GPUs: no other job may run during a measurement."""
    return workflow.global_resources.get("gpu").value or 1
