# Decode and resize every image once per data set and size.


rule prepare:
    output:
        "results/data/{cache}/dataset.json",
    log:
        "results/data/{cache}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    params:
        eil=EIL,
    message:
        "prepare {wildcards.cache}"
    shell:
        "eil prepare {params.eil} --cache {wildcards.cache} > {log} 2>&1 || (cat {log} >&2; exit 1)"
