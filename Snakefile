# The table of contents: which study, which rules, which targets.
#
#   snakemake --cores all                                                     the demo
#   snakemake --cores all --configfile workflow/config/tiny_imagenet.yaml     any other study
#   snakemake --cores all partial                                             tables of what there is
#   snakemake --cores all timing                                              what each method costs
#   snakemake --report results/demo/report.html                               one page of all that

# A study given by --configfile replaces the demo; merging the two would mix their grids.
if "dataset" not in config:

    configfile: "workflow/config/demo.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/timing.smk"


localrules:
    all,
    partial,


rule all:
    default_target: True
    input:
        rules.tables.output,
        rules.figures.output,


onsuccess:
    print(progress())


onerror:
    print(progress())
