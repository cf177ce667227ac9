# Time of training iterations and inference, alone on the machine: other jobs would be measured too.


rule timing:
    input:
        descriptions(),
        photos_of(all_caches(), "train", "val", "test"),
    output:
        report(
            f"{RESULTS}/timing/timing.html",
            category="Timing",
            labels={"what": "every method"},
            caption="../report/timing.rst",
        ),
        f"{RESULTS}/timing/timing.json",
    log:
        f"{RESULTS}/timing.log",
    benchmark:
        f"{RESULTS}/timing.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        gpu=all_gpus,
        mem_mb=32000,
        runtime=240,
    params:
        all_keys=all_keys,
        sources=all_sources,
        timer=source_hash.digest(
            "eil.profiling.timing", "eil.profiling.map_timing", "eil.report.timing"
        ),
        eil=EIL,
    message:
        f"time every method of {STUDY.name}"
    shell:
        "eil time {params.eil} 2>&1 | tee {log}"


# Alone on the machine as well.
rule profile_run:
    input:
        dataset_json,
        ancient(annotations),
        decoded_splits("train", "val"),
    output:
        report(
            f"{RESULTS}/profile/{{run}}/profile.html",
            category="Profiles",
            labels={"run": "{run}"},
            caption="../report/profile.rst",
        ),
        f"{RESULTS}/profile/{{run}}/trace.json.gz",
    log:
        f"{RESULTS}/profile/{{run}}/profile.log",
    benchmark:
        f"{RESULTS}/profile/{{run}}/profile.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        gpu=all_gpus,
        mem_mb=32000,
        runtime=240,
    params:
        key=key,
        sources=sources_of("train"),
        profiler=source_hash.digest("eil.profiling.profile"),
        eil=EIL,
    message:
        "profile {wildcards.run}"
    shell:
        "eil profile {params.eil} --run {wildcards.run} > {log} 2>&1 || (tail -n 5 {log} >&2; exit 1)"


# The first run on each backbone.
rule profile:
    input:
        [
            f"{RESULTS}/profile/{run.name}/profile.html"
            for run in {
                run.backbone: run
                for run in reversed(RUNS.values())
                if not run.reuses_network
            }.values()
        ],
