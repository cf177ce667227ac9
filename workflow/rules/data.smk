# Decode and resize every photo once per data set, place and size; prepare boxes and masks apart, so that corrected ones
# are evaluated again and nothing is trained. The study is told by the environment: by a parameter, another study of the
# same images would make them anew.


rule prepare:
    output:
        "results/data/{cache}/dataset.json",
    log:
        "results/data/{cache}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        mem_mb=16000,
        runtime=720,
    params:
        sources=step_sources.of_prepare(STUDY.dataset.name),
        photos=look_at("photos"),
    message:
        "prepare {wildcards.cache}"
    shell:
        "eil prepare $EIL_STUDY --cache {wildcards.cache} --only photos > {log} 2>&1 || (cat {log} >&2; exit 1)"


rule annotate:
    input:
        rules.prepare.output,
    output:
        "results/data/{cache}/annotations/annotations.json",
    log:
        "results/data/{cache}.annotations.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        sources=step_sources.of_annotate(STUDY.dataset.name),
        annotations=look_at("annotations"),
    message:
        "boxes and masks of {wildcards.cache}"
    shell:
        "eil prepare $EIL_STUDY --cache {wildcards.cache} --only annotations > {log} 2>&1 || (cat {log} >&2; exit 1)"
