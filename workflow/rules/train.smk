# Train each run; a killed training continues from its last checkpoint.


rule train:
    input:
        dataset_json,
        ancient(annotations),
        decoded_splits("train", "val"),
    output:
        only_with_storage(f"{RESULTS}/runs/{{run}}/train.benchmark.tsv"),
        weights=f"{RESULTS}/runs/{{run}}/weights.safetensors",
        history=f"{RESULTS}/runs/{{run}}/history.csv",
        summary=f"{RESULTS}/runs/{{run}}/train.json",
    log:
        f"{RESULTS}/runs/{{run}}/train.out",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=devices,
        mem_mb=16000,
        runtime=1440,
    params:
        key=key,
        sources=sources_of("train"),
        eil=EIL,
    message:
        "train {wildcards.run}"
    shell:
        "(eil train {params.eil} {wildcards.run} $EIL_AHEAD > {log} 2>&1 || (tail -n 5 {log} >&2; exit 1)) && tail -n 1 {log}"


rule localize:
    input:
        dataset_json,
        annotations_of_controls,
        classification_of_controls,
        photos_to_localize,
        weights=trained("weights.safetensors"),
    output:
        only_with_storage(f"{RESULTS}/runs/{{run}}/localize.benchmark.tsv"),
        maps=f"{RESULTS}/runs/{{run}}/maps.npz",
    log:
        f"{RESULTS}/runs/{{run}}/localize.out",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=240,
    params:
        key=key,
        sources=sources_of("localize"),
        eil=EIL,
    message:
        "localize {wildcards.run}"
    shell:
        "eil localize {params.eil} {wildcards.run} > {log} 2>&1 || (tail -n 5 {log} >&2; exit 1)"
