# The table of contents: which study, which rules, which targets.
#
#   snakemake --cores all                                                     the demo
#   snakemake --cores all --configfile workflow/config/tiny_imagenet.yaml     any other study
#   snakemake --cores all partial                                             tables of what there is
#   snakemake --cores all timing                                              what each method costs
#   snakemake --report results/demo/report.html                               one page of all that

# Without a study it is the demo; with one, no key of the demo is read, whatever the given study lacks. A module's study is
# the `config` of its module statement.
if workflow.modifier.is_main_snakefile() and not workflow.configfiles:

    configfile: str(workflow.source_path("workflow/config/demo.yaml"))


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/timing.smk"


rule all:
    input:
        rules.tables.output,
        rules.figures.output,
    localrule: True


# Of a module they are not called.
onsuccess:
    print(progress())


onerror:
    print(progress())
