# Tables and figures from records alone.


rule tables:
    input:
        every("record.json"),
    output:
        directory(f"{RESULTS}/tables"),
        f"{RESULTS}/records.parquet",
    log:
        f"{RESULTS}/tables.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        all_keys=all_keys,
        eil=EIL,
    message:
        "tables of {STUDY.name}"
    shell:
        "eil aggregate {params.eil} 2>&1 | tee {log}"


rule figures:
    input:
        every("record.json"),
        every("examples.npz"),
    output:
        directory(f"{RESULTS}/figures"),
    log:
        f"{RESULTS}/figures.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        all_keys=all_keys,
        eil=EIL,
    message:
        "figures of {STUDY.name}"
    shell:
        "eil figures {params.eil} 2>&1 | tee {log}"


# Without inputs: it trains nothing, and shows the holes as holes.
rule partial:
    log:
        f"{RESULTS}/partial.log",
    conda:
        "../../environment.yml"
    params:
        eil=EIL,
    message:
        "tables and figures of what there is of {STUDY.name}"
    shell:
        "(eil aggregate {params.eil} && eil figures {params.eil}) 2>&1 | tee {log}"
