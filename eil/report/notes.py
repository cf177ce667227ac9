"""What a table says of itself, by name: what ± means, protocol, data, machines, and what is missing."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from eil.core.files import InputError
from eil.core.metric_definitions import GT_KNOWN_LOC, TOP1_CLS
from eil.core.records import Record
from eil.data import class_subset
from eil.evaluation import protocols, statistics
from eil.report.configurations import Configuration, by_backbone, outlying_methods
from eil.report.differences import compared
from eil.study.study import Study

if TYPE_CHECKING:
    from eil.backbones import BackboneInfo

_MOST_LINES = 20  # below a table, of failures and of combinations that were left out
_HARDLY = 0.05  # share of the way from guessing to 100 %
MODEL = (
    "variance pooled over the methods of a backbone, seeds as blocks; a method or setting whose seeds differ far more "
    "has its own, as has each map extractor"
)


@dataclass(frozen=True)
class Notes:
    """The lines below a table, in this order; an empty field has none.

    Attributes:
        columns: what the columns mean, where their headers do not say it.
        interval: what ± and bold mean.
        protocol: by which the scores were made.
        geometry: how the images' geometry differs from what a protocol expects.
        data: which part of the data set it is, and what was made of it.
        pretrained: backbones that do not start from random weights, and what they have seen.
        imported: runs with weights that were not trained here, a line each.
        machine: that evaluated.
        missing: how many runs the table lacks.
        failed: runs that failed, a line each.
        collapsed: runs that classify far worse than the others on their backbone, a line each.
        left_out: runs that do not belong in the table, a line each.
        detectable: the smallest difference that the study could detect.
        outlying: methods whose seeds are not in the pooled variance.
        convergence: what the dagger of a row means.
        choice: which settings of a grid are shown.
        controls: what the controls are.
        unequal: how methods on one backbone differ in stride, resize, crop, epochs or rate, a line for each backbone.
        published: sources of published scores, a line each.
        other: anything else.
    """

    columns: str = ""
    interval: str = ""
    protocol: str = ""
    geometry: str = ""
    data: tuple[str, ...] = ()
    pretrained: str = ""
    imported: tuple[str, ...] = ()
    machine: str = ""
    missing: str = ""
    failed: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    detectable: str = ""
    outlying: str = ""
    convergence: str = ""
    choice: str = ""
    controls: str = ""
    unequal: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def caption(self) -> list[str]:
        """The lines that a caption needs: columns, interval and protocol."""
        return [line for line in (self.columns, self.interval, self.protocol) if line]

    def below(self) -> list[str]:
        """All lines that are not in the caption."""
        caption = self.caption()
        return [line for line in self.lines() if line not in caption]

    def lines(self) -> list[str]:
        """All lines, in the fields' order."""
        values = [getattr(self, field.name) for field in fields(self)]
        return [line for value in values for line in ((value,) if isinstance(value, str) else value) if line]


def of_study(study: Study, records: Sequence[Record], planned: int, left_out: Sequence[str]) -> Notes:
    """What every table of a study says.

    Args:
        study: what was compared.
        records: of the runs that there are.
        planned: how many runs there should be.
        left_out: lines about runs that do not belong here.

    Raises:
        InputError: records of several protocols, or of another than the study's first.
    """
    done = [record for record in records if record.status == "done"]
    used = {record.protocol for record in done}
    if used - {study.protocols[0]}:
        raise InputError(f"study {study.name}: records of protocol {', '.join(sorted(used))}: evaluate again")
    failed = [record for record in records if record.status == "failed"]
    missing = planned - len(done)
    return Notes(
        interval=_interval(study, done),
        protocol=f"protocol {', '.join(used) or 'none'}; oracle columns: threshold chosen on test, intervals over "
        "seeds alone; last checkpoint",
        geometry=other_geometry(study.protocols[:1], done),
        data=tuple(_of_the_data(study, done)),
        pretrained=_pretrained(records),
        imported=tuple(_imported(done)),
        machine=_machine(done),
        missing=f"{missing} runs are missing from this table" if missing else "",
        failed=_first(f"failed: {record.run.name}: {' '.join((record.error or '').split())}" for record in failed),
        collapsed=_first(_collapsed(done), rest=""),
        left_out=_first(left_out),
    )


def _first(lines: Iterable[str], rest: str = "; the table failures and `eil check` list all") -> tuple[str, ...]:
    """The first of many lines, and how many there are more."""
    found = list(lines)
    more = f"… and {len(found) - _MOST_LINES} more of this kind{rest}"
    return tuple([*found[:_MOST_LINES], more] if len(found) > _MOST_LINES else found)


def seeds_alone(study: Study) -> str:
    """What ± means in tables whose scores have no bootstrap replicates."""
    return f"percent, mean ± half-width of the 95 % interval over {len(study.seeds)} seeds alone (Student's t; {MODEL})"


def detectable(configurations: Sequence[Configuration]) -> str:
    """The smallest difference from the first method that the study could detect, on each backbone; "" if unknown."""
    found = []
    for backbone, (base, *others) in by_backbone(configurations):
        estimates = [each for other in others if (each := compared(other, base, GT_KNOWN_LOC)) is not None]
        if estimates:
            least = sorted(each.minimum_detectable_effect() for each in estimates)
            needed = _seeds_needed(base, sorted(each.se_images_shared for each in estimates)[len(estimates) // 2])
            found.append(f"{least[0]:.1f} to {least[-1]:.1f} on {backbone}{needed}")
    start = "smallest detectable difference in GT-known Loc from the first method, in points"
    return f"{start}: {', '.join(found)}" if found else ""


def outlying(configurations: Sequence[Configuration]) -> str:
    """A line on methods whose seeds differ far more than the others' in GT-known Loc; "" if there is none."""
    found = [
        f"{', '.join(methods)} on {backbone}"
        for backbone, (base, *_) in by_backbone(configurations)
        if (methods := outlying_methods(base, GT_KNOWN_LOC))
    ]
    start = "in GT-known Loc seeds differ far more than those of the other methods"
    return f"{start}: {', '.join(found)}" if found else ""


def _seeds_needed(base: Configuration, shared: float) -> str:
    """`` (2 seeds are few: 2 points would need 40)``, for two seeds; "" for more, or where nothing is measured."""
    model = base.pooled_variance(GT_KNOWN_LOC)
    if len(base.records) != 2 or model is None or not model.residual_df:
        return ""
    count = statistics.seeds_needed(model, shared)
    return f" (2 seeds are few: 2 points would need {f'{count} seeds' if count else 'more test images'})"


def _info(backbone: str) -> "BackboneInfo":
    from eil.backbones import factory  # torch: seconds

    return factory.definition(backbone)[0]


def unequal(configurations: Sequence[Configuration]) -> tuple[str, ...]:
    """A line for each backbone whose methods differ in what may explain a difference in score besides the method."""
    lines = []
    for backbone, of_backbone in by_backbone(configurations):
        given = {each.records[0].run.output_stride for each in of_backbone}
        default = _info(backbone).output_strides[0] if len(given) > 1 else None
        held: dict[str, dict[str, list[str]]] = {}  # key -> value -> methods
        for run in (each.records[0].run for each in of_backbone if not (each.reuses_network or each.imported)):
            values = {
                "output_stride": run.output_stride or default,
                **{key: getattr(run.recipe, key) for key in ("resize", "crop", "epochs", "learning_rate")},
            }
            for key, value in values.items():
                names = held.setdefault(key, {}).setdefault(str(value), [])
                names += [run.method] if run.method not in names else []
        parts = []
        for key, found in held.items():
            if len(found) > 1:
                values_with_methods = (f"{value} ({', '.join(names)})" for value, names in found.items())
                parts.append(f"{key} {', '.join(values_with_methods)}")
        lines += [f"methods on {backbone} are trained unequally: {'; '.join(parts)}"] if parts else []
    return tuple(lines)


def other_geometry(names: Sequence[str], records: Sequence[Record]) -> str:
    """A line if the images' geometry is not the one that these protocols expect; else ""."""
    used = {record.run.recipe.geometry for record in records}
    expected = {name: protocols.find(name).geometry for name in names}
    others = [f"{name} ({geometry})" for name, geometry in expected.items() if used - {geometry}]
    if not others:
        return ""
    return f"the images' geometry is {', '.join(sorted(used))}, other than that of {', '.join(others)}"


def _interval(study: Study, done: Sequence[Record]) -> str:
    images = {record.provenance["images"] for record in done}
    resampled = any(record.replicates for record in done)
    if resampled and len(study.seeds) == 1:
        over = "images alone (bootstrap, the threshold chosen anew; one seed: how much trainings differ is not in it)"
    else:
        over = "images (bootstrap, the threshold chosen anew) and " if resampled else ""
        over += f"{len(study.seeds)} seeds (Student's t; {MODEL})"
    return (
        f"percent, mean ± half-width of the 95 % interval over {over}, "
        f"{' / '.join(map(str, sorted(images)))} test images; bold: the best on its backbone, and all that do not "
        "differ from it significantly at 5 % (paired differences, the same model, Holm's correction); intervals are "
        "clipped to 0 to 100, [low, high] where that shortens them"
    )


def _of_the_data(study: Study, records: Sequence[Record]) -> list[str]:
    """Which part of the data set this is, and what was made of it."""
    given = {key: value for key, value in study.dataset.settings.items() if "/" not in str(value)}
    size, listed = _part(records), given.get("classes")
    if size:
        given.pop("classes", None)
    elif isinstance(listed, list | tuple):  # may be long; study.yaml has it
        given["classes"] = f"{len(listed)} by name"
    facts = [*size, *(f"{key} = {value}" for key, value in given.items())]
    notes = [f"data: {study.dataset.name}, {', '.join(facts)}"] if facts else []
    if any(record.provenance.get("boxed_masks") for record in records):
        notes.append("boxes: one around each object's mask")
    if any(record.run.recipe.crops > 1 for record in records):
        notes.append("classified by the mean softmax of ten crops, localized on one")
    return notes


def _part(records: Sequence[Record]) -> list[str]:
    """``a part of it: 20 of 200 classes`` where the records' data are one."""
    found = {(record.provenance.get("classes"), record.provenance.get("whole_classes")) for record in records}
    return sorted(
        f"a part of it: {class_subset.describe_count(n, whole)}" for n, whole in found if n and whole and n < whole
    )


def _pretrained(records: Sequence[Record]) -> str:
    found: dict[str, list[str]] = {}  # what was seen -> backbones
    for name in sorted({record.run.backbone for record in records if record.run.pretrained}):
        found.setdefault(_info(name).pretrained_on, []).append(name)
    return "; ".join(f"{', '.join(names)}: pretrained on {seen}" for seen, names in found.items())


def _imported(done: Sequence[Record]) -> Iterator[str]:
    for record in done:
        found = record.training.get("imported")
        if found:
            source = f"{found['file']}, sha256 {found['sha256'][:12]}…, by {found['naming']}'s names"
            name = f"{record.run.method} on {record.run.backbone}"
            yield f"{name}: imported, not trained here ({source}); ± over images alone"


def _collapsed(done: Sequence[Record]) -> Iterator[str]:
    """A line for each training that is hardly above guessing, or less than half as far as the best of its backbone.

    Such a training can pass for a converged one, since nothing in it improves any more.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}  # backbone -> run -> how far above guessing, Top-1 Cls
    for record in done:
        if not record.run.reuses_network and (value := record.value(TOP1_CLS)) is not None:
            guessing = 100 / record.provenance.get("classes", math.inf)
            above = (value - guessing) / (100 - guessing) if guessing < 100 else 1.0
            found.setdefault(record.run.backbone, {})[record.run.name] = above, value
    for backbone, by_run in found.items():
        best, percent = max(by_run.values())
        for name, (above, value) in by_run.items():
            if above < max(best / 2, _HARDLY):
                yield (
                    f"{name} classifies {value:.1f} % correctly, the best run on {backbone} {percent:.1f} %: "
                    "its training may have failed"
                )


def _machine(done: Sequence[Record]) -> str:
    where = [r.provenance | {"precision": r.run.recipe.precision} for r in done if "versions" in r.provenance]
    machines = sorted({f"{p['processor']}, {p['precision']}, torch {p['versions']['torch']}" for p in where})
    return f"evaluated on: {'; '.join(machines)}" if machines else ""
