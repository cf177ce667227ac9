"""Tables as CSV, Markdown and LaTeX, from records alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eil.records import Record
from eil.report.cells import Cell, as_good, chosen, group, interval
from eil.run import readable
from eil.study import Study

# column -> metric; the threshold is val's unless the column says oracle
MAIN = {
    "Top-1 Loc ↑": "test.val.top1_loc",
    "GT-known Loc ↑": "test.val.gt_known_loc",
    "MaxBoxAccV2 ↑": "test.val.max_box_acc_v2",
    "Top-1 Cls ↑": "test.val.top1_cls",
    "MaxBoxAcc (oracle) ↑": "test.oracle.gt_known_loc",
    "MaxBoxAccV2 (oracle) ↑": "test.oracle.max_box_acc_v2",
}


@dataclass(frozen=True)
class Value:
    """A mean with half the width of its 95 % interval; ``best`` if nothing is told to be better."""

    mean: float
    half: float
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of labels and values, and what stands below them."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    notes: Sequence[str]

    def csv(self) -> str:
        """Every value as two columns, its mean and the half-width of its interval, unrounded."""
        lines = []
        for row in self.rows:
            line: dict[str, str | float] = {}
            for name, cell in zip(self.header, row, strict=True):
                line[name] = cell.mean if isinstance(cell, Value) else cell
                if isinstance(cell, Value):
                    line[f"{name} ±"] = cell.half
            lines.append(line)
        return pd.DataFrame(lines).to_csv(index=False)

    def markdown(self) -> str:
        """A Markdown table with its title and notes."""
        body = [[_markdown(cell) for cell in row] for row in self.rows]
        lines = [" | ".join(row) for row in [self.header, ["---"] * len(self.header), *body]]
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in lines) + f"\n\n{notes}\n"

    def latex(self) -> str:
        """A booktabs table."""
        body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in self.rows]
        caption = _escape(" ".join([f"{self.title}.", *(f"{note.rstrip('.')}." for note in self.notes)]))
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{''.join('l' if isinstance(c, str) else 'c' for c in self.rows[0])}}}",
                r"\toprule",
                " & ".join(map(_escape, self.header)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def write(study: Study, records: Sequence[Record], planned: int, dropped: Sequence[str]) -> dict[str, str]:
    """Every table of a study in every format, file name -> content.

    Args:
        study: what was compared.
        records: of the runs that there are.
        planned: how many runs there should be.
        dropped: a line for each combination that was left out.
    """
    cells = group(records)
    notes = _notes(study, records, planned, dropped)
    tables = {}
    if cells:
        tables["main"] = main_table(study, cells, notes)
        methods = [cell for cell in cells if not cell.control]
        tables["grid"] = grid_table(study, methods, notes)
        tables |= {f"gamma_sigma_{cell}": table for cell, table in gamma_sigma_tables(study, methods, notes).items()}
    return {
        f"{name}.{suffix}": text
        for name, table in tables.items()
        for suffix, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex()))
    }


def main_table(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Methods x backbones, of a grid the settings chosen on val; a backbone's controls below its methods."""
    backbones = list(dict.fromkeys(cell.backbone for cell in cells))
    contestants = sorted(chosen(cells), key=lambda cell: (backbones.index(cell.backbone), cell.control is not None))
    kinds = [(cell.backbone, cell.method, cell.control) for cell in cells]
    many = {c.label for c in contestants if kinds.count((c.backbone, c.method, c.control)) > 1}
    note = [f"settings chosen on val by GT-known Loc: {', '.join(sorted(many))}"] if many else []
    if borrowed := {cell.method for cell in contestants if cell.control}:
        note.append(
            f"controls learn nothing: their own maps with the classification of {', '.join(sorted(borrowed))}; none is "
            "compared for the best; the oracle box is the true one, random class the map of another class"
        )
    return _cells_table(f"{study.name}: methods on {study.dataset.name}", contestants, [*notes, *note])


def grid_table(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Every cell of the grid."""
    return _cells_table(f"{study.name}: every setting on {study.dataset.name}", cells, notes)


def gamma_sigma_tables(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> dict[str, Table]:
    """GT-known Loc over gamma and sigma, one table per backbone, method and other settings."""
    tables = {}
    for name, grid in gamma_sigma_grids(cells).items():
        gammas = sorted({float(cell.settings["gamma"]) for cell in grid})
        sigmas = sorted({float(cell.settings["sigma"]) for cell in grid})
        at = {(float(cell.settings["gamma"]), float(cell.settings["sigma"])): cell for cell in grid}
        metric = "test.val.gt_known_loc"
        best = max(grid, key=lambda cell: float(np.mean(cell.values(metric))))
        rows = [[f"{gamma:g}", *(_value(at.get((gamma, sigma)), best, metric) for sigma in sigmas)] for gamma in gammas]
        header = ["γ", *(f"σ = {sigma:g}" for sigma in sigmas)]
        tables[name] = Table(
            f"{study.name}: GT-known Loc ↑ of {name.replace('_', ' ')} over γ and σ", header, rows, notes
        )
    return tables


def gamma_sigma_grids(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells of methods that have both a gamma and a sigma, by what else they are; two or more of a kind."""
    grids: dict[str, list[Cell]] = {}
    for cell in cells:
        others = {key: value for key, value in cell.settings.items() if key not in ("gamma", "sigma")}
        pair = [cell.settings.get(key) for key in ("gamma", "sigma")]
        if all(isinstance(value, int | float) for value in pair):
            label = "_".join([cell.backbone, cell.method, *(f"{k}-{readable(v)}" for k, v in sorted(others.items()))])
            grids.setdefault(label, []).append(cell)
    return {label: grid for label, grid in grids.items() if len(grid) > 1}


def _cells_table(title: str, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    rows: list[list[str | Value]] = []
    for cell in cells:
        rivals = [other for other in cells if other.backbone == cell.backbone and not other.control]
        values = []
        for metric in MAIN.values():
            best = max(rivals, key=lambda other: float(np.mean(other.values(metric))), default=None)
            values.append(_value(cell, best, metric))
        rows.append([cell.backbone, cell.label, *values, str(len(cell.records))])
    return Table(title, ["Backbone", "Method", *MAIN, "Seeds"], rows, notes)


def _value(cell: Cell | None, best: Cell | None, metric: str) -> Value | str:
    if cell is None:
        return "–"
    mean, half = interval(cell.values(metric))
    return Value(mean, half, best is not None and not cell.control and as_good(cell, best, metric))


def _notes(study: Study, records: Sequence[Record], planned: int, dropped: Sequence[str]) -> list[str]:
    """What every table says of itself: protocol, numbers, holes."""
    done = [record for record in records if record.status == "done"]
    images = {record.provenance["images"] for record in done}
    notes = [
        f"percent, mean ± half-width of the 95 % interval over {study.seeds} seeds (Student's t), "
        f"{' / '.join(map(str, sorted(images)))} test images; bold: the best on its backbone and all whose paired "
        "difference to it has an interval that holds 0",
        "threshold chosen on val, oracle columns: on test; last checkpoint; box of the largest contour (IoU ≥ 0.5) "
        "for Top-1 and GT-known Loc, best of all contours for MaxBoxAccV2 (IoU 0.3, 0.5, 0.7)",
    ]
    if any(record.run.pretrained for record in records):
        names = ", ".join(sorted({record.run.backbone for record in records if record.run.pretrained}))
        notes.append(f"{names}: pretrained on ImageNet, with the labels of its 1,000 classes")
    where = [r.provenance | {"precision": r.run.recipe.precision} for r in done if "versions" in r.provenance]
    machines = sorted({f"{p['processor']}, {p['precision']}, torch {p['versions']['torch']}" for p in where})
    notes += [f"evaluated on: {'; '.join(machines)}"] if machines else []
    missing = planned - len(done)
    if missing:
        notes.append(f"{missing} runs are missing from this table")
    notes += [f"failed: {record.run.name}: {record.error}" for record in records if record.status == "failed"]
    return notes + [f"left out: {line}" for line in dropped]


def _markdown(cell: str | Value) -> str:
    if isinstance(cell, str):
        return cell
    text = f"{cell.mean:.1f}" if math.isnan(cell.half) else f"{cell.mean:.1f} ± {cell.half:.1f}"
    return f"**{text}**" if cell.best else text


def _latex(cell: str | Value) -> str:
    if isinstance(cell, str):
        return _escape(cell)
    text = f"{cell.mean:.1f}" if math.isnan(cell.half) else rf"{cell.mean:.1f} $\pm$ {cell.half:.1f}"
    return rf"\textbf{{{text}}}" if cell.best else text


def _escape(text: str) -> str:
    signs = {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "≥": r"$\geq$",
        "γ": r"$\gamma$",
    }
    signs |= {"σ": r"$\sigma$", "–": "--", "#": r"\#"}
    return "".join(signs.get(character, character) for character in text)
