# The table of contents: which study, which rules, which targets.
#
#   snakemake --cores all                                                     the demo
#   snakemake --cores all --configfile workflow/config/tiny_imagenet.yaml     any other study
#   snakemake --cores all partial                                             tables of what there is
#   snakemake --cores all timing                                              what each method costs
#   snakemake --report results/demo/report.html                               one page of all that

# Without --configfile the study is the demo. With it no key of the demo is read, whatever the given study lacks.
if not workflow.overwrite_configfiles:

    configfile: str(Path(workflow.basedir, "workflow/config/demo.yaml"))


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
