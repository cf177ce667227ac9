# Make tables and figures from records alone.


rule tables:
    input:
        every("record.json"),
        only_with_storage(*descriptions()),
    output:
        report(
            directory(f"{RESULTS}/tables"),
            patterns=["{table}.html"],
            category="Tables",
            labels={"table": "{table}"},
            caption="../report/table.rst",
        ),
        f"{RESULTS}/records.parquet",
    log:
        f"{RESULTS}/tables.log",
    benchmark:
        f"{RESULTS}/tables.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        all_keys=all_keys,
        sources=source_hash.digest("eil.report.tables"),
        eil=EIL,
    message:
        f"tables of {STUDY.name}"
    shell:
        "eil aggregate {params.eil} 2>&1 | tee {log}"


rule figures:
    input:
        every("record.json"),
        every("examples.npz"),
        only_with_storage(*descriptions(), *every("maps.npz"), *every("curves.npz")),
        photos_of(all_caches(), "val", "test"),
    output:
        report(
            directory(f"{RESULTS}/figures"),
            patterns=["{figure}.png"],
            category="Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
    log:
        f"{RESULTS}/figures.log",
    benchmark:
        f"{RESULTS}/figures.benchmark.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        all_keys=all_keys,
        sources=source_hash.digest("eil.report.figures"),
        eil=EIL,
    message:
        f"figures of {STUDY.name}"
    shell:
        "eil figures {params.eil} 2>&1 | tee {log}"


# No inputs: it trains nothing, and marks missing runs.
rule partial:
    input:
        on_this_disk,
    log:
        f"{RESULTS}/partial.log",
    benchmark:
        f"{RESULTS}/partial.benchmark.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    params:
        eil=EIL,
    message:
        f"tables and figures of what there is of {STUDY.name}"
    shell:
        "(eil aggregate {params.eil} && eil figures {params.eil}) 2>&1 | tee {log}"
