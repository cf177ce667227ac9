# Decode and resize every image once per data set, place and size. The study is told by the environment: by a parameter,
# another study of the same images would make them anew.


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
        sources=depends.of_prepare(STUDY.dataset.name),
    message:
        "prepare {wildcards.cache}"
    shell:
        "eil prepare $EIL_STUDY --cache {wildcards.cache} > {log} 2>&1 || (cat {log} >&2; exit 1)"
