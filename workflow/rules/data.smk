# Decode and resize every photo once for each data set, folder and size. Boxes and masks have a rule of their own, so
# that corrected annotations are evaluated again without training. The study is passed in the environment: as a parameter
# it would make another study of the same images prepare them again.


rule prepare:
    output:
        "results/data/{cache}/dataset.json",
        [directory(path) for path in photos_of(["{cache}"], "train", "val", "test")],
    log:
        "results/data/{cache}.log",
    benchmark:
        "results/data/{cache}.prepare.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        mem_mb=16000,
        runtime=720,
    params:
        sources=source_hash.of_prepare(STUDY.dataset.name),
        photos=content_of("photos"),
    message:
        "prepare {wildcards.cache}"
    shell:
        f"eil prepare ${EIL_VARIABLE} --cache {{wildcards.cache}} --only photos > {{log}} 2>&1 || (cat {{log}} >&2; exit 1)"


rule annotate:
    input:
        rules.prepare.output,
    output:
        only_with_storage(directory("results/data/{cache}/annotations"))
        or "results/data/{cache}/annotations/annotations.json",
    log:
        "results/data/{cache}.annotations.log",
    benchmark:
        "results/data/{cache}.annotate.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        sources=source_hash.of_annotate(STUDY.dataset.name),
        annotations=content_of("annotations"),
    message:
        "boxes and masks of {wildcards.cache}"
    shell:
        f"eil prepare ${EIL_VARIABLE} --cache {{wildcards.cache}} --only annotations > {{log}} 2>&1 || (cat {{log}} >&2; exit 1)"
