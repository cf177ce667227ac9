"""The leaderboard page: every published score, and beside it ours from the committed tables.

Scores of different protocols are not comparable: rows are in the order of protocol, method, backbone, never of value.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eil.core.files import InputError
from eil.core.metric_definitions import MAIN, METRICS
from eil.data.class_subset import FULL_SIZES, describe_count
from eil.evaluation import protocols
from eil.report import convergence
from eil.report.published import Published, comparable, network
from eil.report.table import Value
from eil.study.study import Study, load

LIMITS = {"classes", "images_per_class", "test_per_class", "train_per_class", "val_per_class"}
NO_SCORE = "awaits a GPU"
NOT_JUDGED = "‡"
_JUDGED_SINCE = "2026-11-25"  # date of the first tables that say which trainings had converged
# Published names of what is no method of its own here: how a study has it.
COMPOSED = {
    "CALM (EM)": "`cam: {head: calm}`",
    "CALM (ML)": "`cam: {head: calm}`",
    "CAM + PC1": "`cam` and `maps: [pc1]`",
    "DA-WSOL + BagCAMs": "`dawsol` and `maps: [bagcams]`",
    "Rethinking CAM (TAP, NWC, PaS)": "`cam: {head: tap}` and `maps: [nwc]`",
}
_TABLE = re.compile(r"(?P<study>\w+)-.+-\d{4}-\d{2}-\d{2}-main\.csv")
_STATUS = {"read": "", "conflicting": " (sources conflict)", "second hand": " (second hand)"}
_HEAD = """# Leaderboard

Published scores of weakly supervised localizers, and ours beside them. `eil leaderboard --out docs/leaderboard.md`
makes this page from [published.csv](../results/published.csv) and the main tables in
[results/reference](../results/reference/README.md); nobody edits it.

- **Scores of different protocols cannot be compared**, and no row is ranked: the order is protocol, method, backbone.
- *Threshold from*: where the threshold of the published maps was chosen: on the test set ("test"), on val, or we do not
  know. "–": the metric has none. Many authors chose checkpoints and seeds on test, too.
- *Ours*: under the threshold from val, mean ± half of the 95 % interval; of the whole data set and the same backbone,
  whatever the recipe. "awaits a GPU": method and backbone are here, and the score is not measured yet. †: training had
  not converged ([rule](evaluation.md#converged-or-not)); ‡: the table is older than this rule.
- "Second hand": printed by others than the authors, never a target. "Sources conflict": another source says otherwise.
"""


@dataclass(frozen=True)
class OurRow:
    """A row of one of our main tables.

    Attributes:
        file: name of the table.
        study: its study.
        dataset: the data set's name.
        part: which part of the data set it is, ``20 of 200 classes``; "" if that is not known.
        whole: whether the study has all of a known data set.
        backbone: name of the backbone.
        method: name of the method or control; ``label`` has its settings, too.
        label: as in the table.
        values: of each metric's label.
        seeds: how many.
    """

    file: str
    study: str
    dataset: str
    part: str
    whole: bool
    backbone: str
    method: str
    label: str
    values: dict[str, Value]
    seeds: str


def read_ours(reference: Path, studies: Path) -> list[OurRow]:
    """Rows of the latest main table of each study whose first protocol chooses thresholds on val; without controls.

    Args:
        reference: folder of the committed tables, ``STUDY-…-DATE-main.csv``.
        studies: folder of the studies, ``STUDY.yaml``.

    Raises:
        InputError: a table without its study, or without the columns of a main table.
    """
    latest: dict[str, Path] = {}
    for path in sorted(reference.glob("*-main.csv"), key=lambda each: each.stem[-15:]):  # by date
        match = _TABLE.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path}: expected a name like STUDY-PROCESSOR-CORES-PRECISION-DATE-main.csv")
        latest[match["study"]] = path
    found: list[OurRow] = []
    for study, path in sorted(latest.items()):
        loaded = load(studies / f"{study}.yaml")
        if protocols.find(loaded.protocols[0]).threshold_from == "val":  # whose threshold the table's columns have
            found += _rows(path, loaded)
    return found


def _rows(path: Path, study: Study) -> Iterator[OurRow]:
    data_name, chosen = study.dataset.data_name, study.dataset.settings.get("classes")
    full = FULL_SIZES.get(data_name)
    whole = full is not None and not LIMITS & study.dataset.settings.keys()
    count = len(chosen) if isinstance(chosen, list | tuple) else chosen
    part = describe_count(count, full.classes) if full and count else ""
    unjudged = f" {NOT_JUDGED}" if path.stem[-15:-5] < _JUDGED_SINCE else ""
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if not {"Backbone", "Method", "Seeds"} <= row.keys():
                raise InputError(f"{path}:{number}: expected the columns Backbone, Method and Seeds of a main table")
            if row["Method"].startswith("control: "):
                continue
            method = row["Method"].removesuffix(f" {convergence.MARK}").split(" (")[0]
            values = dict(_values(row, f"{path}:{number}"))
            identity = (
                path.name,
                study.name,
                data_name,
                part,
                whole,
                row["Backbone"],
                method,
                row["Method"] + unjudged,
            )
            yield OurRow(*identity, values, row["Seeds"])


def _values(row: dict[str, str], where: str) -> Iterator[tuple[str, Value]]:
    """Label and value of each metric that the table has under its protocol's own threshold."""
    for metric in METRICS.values():
        name = f"{metric.label}{metric.arrow}"
        if not metric.column or not row.get(name):
            continue
        try:
            yield metric.label, Value(float(row[name]), float(row.get(f"{name} ±") or "nan"), percent=True)
        except ValueError:
            raise InputError(f"{where}: {name} = {row[name]}: expected a number") from None


def page(
    published: Sequence[Published], our_rows: Sequence[OurRow], methods: Collection[str], backbones: Collection[str]
) -> str:
    """The page in Markdown.

    Args:
        published: every published score.
        our_rows: rows of our tables.
        methods: names of the methods that are here.
        backbones: likewise.
    """
    sources = {source: number for number, source in enumerate(sorted({row.source for row in published}), start=1)}
    parts = [_HEAD.rstrip()]
    for dataset in dict.fromkeys(row.dataset for row in published):
        parts.append(f"\n## {dataset}")
        rows = [row for row in published if row.dataset == dataset]
        for label in (metric.label for metric in METRICS.values() if metric.column):
            if scored := [row for row in rows if row.metric == label]:
                parts += _section(label, scored, our_rows, methods, backbones, sources)
    parts += _missing(published, methods, sources)
    parts += _elsewhere(our_rows)
    parts += ["\n## Sources\n", *(f"{number}. {_cell(source)}" for source, number in sources.items())]
    return "\n".join(parts) + "\n"


def _section(
    label: str,
    rows: Sequence[Published],
    our_rows: Sequence[OurRow],
    methods: Collection[str],
    backbones: Collection[str],
    sources: dict[str, int],
) -> Iterator[str]:
    """A table of one metric on one data set."""
    yield f"\n### {label} on {rows[0].dataset}\n"
    yield "| Method | Backbone | Published | Protocol | Threshold from | Source | Ours |\n|---|---|---|---|---|---|---|"
    for row in sorted(rows, key=lambda each: (each.protocol, each.method.casefold(), each.backbone, each.source)):
        cells = [
            row.method,
            row.backbone or "not stated",
            f"{row.value:.1f}{_STATUS[row.status]}",
            row.protocol,
            "–" if row.threshold == "none" else row.threshold,
            f"[{sources[row.source]}](#sources)",
            _ours(row, our_rows, methods, backbones),
        ]
        yield f"| {' | '.join(map(_cell, cells))} |"


def _ours(row: Published, our_rows: Sequence[OurRow], methods: Collection[str], backbones: Collection[str]) -> str:
    """Our score beside a published one, or why there is none."""
    if row.method not in COMPOSED and comparable(row.method) not in map(comparable, methods):
        return "no such method here"
    if not row.backbone:
        return "network not stated"
    if network(row.backbone) not in backbones:
        return "no such backbone here"
    if row.method in COMPOSED:
        return f"{NO_SCORE}: {COMPOSED[row.method]}"
    wanted = (row.dataset.lower(), network(row.backbone), comparable(row.method))
    found = [
        each for each in our_rows if each.whole and (each.dataset, each.backbone, comparable(each.method)) == wanted
    ]
    shown = [f"{each.values[row.metric]}{_mark(each)} ({each.study})" for each in found if row.metric in each.values]
    return "; ".join(shown) or NO_SCORE


def _missing(published: Sequence[Published], methods: Collection[str], sources: dict[str, int]) -> Iterator[str]:
    """Methods that are published and not here, and those that are here and have no published score."""
    known = set(map(comparable, [*methods, *COMPOSED]))
    here = sorted(name for name in methods if comparable(name) not in {comparable(row.method) for row in published})
    yield "\n## Gaps\n\nPublished, and not here:\n\n| Method | Data sets | Backbones | Sources |\n|---|---|---|---|"
    for method in sorted({row.method for row in published if comparable(row.method) not in known}):
        rows = [row for row in published if row.method == method]
        numbers = sorted({sources[row.source] for row in rows})
        lists = [", ".join(sorted({getattr(row, key) for row in rows})) for key in ("dataset", "backbone")]
        yield f"| {method} | {' | '.join(lists)} | {', '.join(f'[{number}](#sources)' for number in numbers)} |"
    yield f"\nHere, and without a published score that we could read: {', '.join(here) or 'none'}."


def _elsewhere(our_rows: Sequence[OurRow]) -> Iterator[str]:
    """Our scores where nothing is published: on drawn data, and on a part of a data set."""
    yield "\n## Ours where nothing is published\n\nDrawn data, or parts of data sets. Thresholds come from val."
    yield "Where several studies have the same networks, intervals are those of the first; each has its own variance.\n"
    same = defaultdict(list)  # rows of the same networks, which several studies may have
    for each in our_rows:
        if not each.whole:
            means = tuple(value.mean for value in each.values.values())
            same[each.dataset, each.part, each.backbone, each.label, means].append(each)
    labels = [key.label for key in MAIN]
    yield f"| Data | Backbone | Method | {' | '.join(labels)} | Seeds | Study |"
    yield "|" + "---|" * (len(labels) + 5)
    for rows in same.values():
        each = rows[0]
        data = ", ".join(filter(None, [each.dataset, each.part]))
        values = [str(each.values[label]) if label in each.values else "–" for label in labels]
        links = ", ".join(f"[{row.study}](../results/reference/{row.file})" for row in rows)
        yield f"| {data} | {each.backbone} | {each.label} | {' | '.join(values)} | {each.seeds} | {links} |"


def _mark(row: OurRow) -> str:
    """A dagger if the row's training had not converged, another sign if nobody judged it."""
    return next((f" {mark}" for mark in (convergence.MARK, NOT_JUDGED) if row.label.endswith(mark)), "")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
