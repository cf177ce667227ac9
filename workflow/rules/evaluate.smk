# Make boxes from maps and score them; needs no network and no GPU.


rule evaluate:
    input:
        dataset_json,
        annotations,
        decoded_splits("val", "test"),
        maps=rules.localize.output.maps,
        summary=trained("train.json"),
    output:
        only_with_storage(
            f"{RESULTS}/runs/{{run}}/curves.npz",
            f"{RESULTS}/runs/{{run}}/evaluate.benchmark.tsv",
        ),
        record=f"{RESULTS}/runs/{{run}}/record.json",
        examples=f"{RESULTS}/runs/{{run}}/examples.npz",
    log:
        f"{RESULTS}/runs/{{run}}/evaluate.out",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        key=key,
        sources=sources_of("evaluate"),
        protocols=PROTOCOLS,
        eil=EIL,
    message:
        "evaluate {wildcards.run}"
    shell:
        "eil evaluate {params.eil} {wildcards.run} > {log} 2>&1 || (tail -n 5 {log} >&2; exit 1)"
