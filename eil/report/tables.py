"""Tables as CSV, Markdown, LaTeX and HTML, from records alone."""

import html
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eil.evaluation import protocols
from eil.report import published
from eil.report.cells import OWN, Cell, as_good_as_the_best, chosen, interval
from eil.run import readable
from eil.study import Study

# column -> metric; the threshold is the protocol's unless the column says oracle
MAIN = {
    "Top-1 Loc ↑": "test.own.top1_loc",
    "GT-known Loc ↑": "test.own.gt_known_loc",
    "MaxBoxAccV2 ↑": "test.own.max_box_acc_v2",
    "Top-1 Cls ↑": "test.own.top1_cls",
    "GT-known Loc (oracle) ↑": "test.oracle.gt_known_loc",
    "MaxBoxAccV2 (oracle) ↑": "test.oracle.max_box_acc_v2",
}
METRIC = MAIN["GT-known Loc ↑"]
_CSS = (
    "body{font:14px sans-serif;margin:2em}h1{font-size:18px}table{border-collapse:collapse}"
    "th,td{padding:.25em .8em;text-align:left;white-space:nowrap}tr:first-child{border-bottom:1px solid}"
    "table{border-top:2px solid;border-bottom:2px solid}li{color:#555;max-width:60em}img{max-width:100%}"
)


@dataclass(frozen=True)
class Value:
    """A mean with half the width of its 95 % interval; ``best`` if nothing is told to be better."""

    mean: float
    half: float
    best: bool = False

    def text(self, sign: str) -> str:
        """With one decimal; without the interval if there is none."""
        mean = f"{round(self.mean, 1) + 0.0:.1f}"  # no minus before a zero
        return mean if math.isnan(self.half) else f"{mean}{sign}{self.half:.1f}"


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

    def html(self, pictures: Sequence[Path] = ()) -> str:
        """A page of its own, with PNG files below the table; it needs nothing from elsewhere."""
        lines = [_html_row("th", self.header), *(_html_row("td", map(_html, row)) for row in self.rows)]
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        title = html.escape(self.title)
        return (
            f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_CSS}</style>\n'
            f"<h1>{title}</h1>\n<table>\n"
            + "\n".join(lines)
            + f"\n</table>\n<ul>{notes}</ul>\n"
            + "".join(f'<img src="data:image/png;base64,{b64encode(p.read_bytes()).decode()}"><br>\n' for p in pictures)
        )

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
    table = cells_table(f"{study.name}: methods on {study.dataset.subject}", contestants, MAIN, [*notes, *note])
    return _beside_published(table, study, contestants)


def _beside_published(table: Table, study: Study, cells: Sequence[Cell]) -> Table:
    """Two columns more, the published score and ours less it, for each metric of which there is any."""
    header, rows, notes = list(table.header), [list(row) for row in table.rows], list(table.notes)
    for column in (name for name, metric in MAIN.items() if metric.startswith(OWN)):
        metric = column.removesuffix(" ↑")
        keys = [(study.dataset.subject, c.backbone, c.control or c.method, metric, study.protocols[0]) for c in cells]
        scores = [
            published.find(*key) if _as_published(study, cell) else None for key, cell in zip(keys, cells, strict=True)
        ]
        if any(scores):
            header += [f"published {metric}", "difference"]
            for row, cell, score in zip(rows, cells, scores, strict=True):
                ours = cell.mean(MAIN[column])
                row.extend([f"{score.value:.1f}", f"{ours - score.value:+.1f}"] if score else ["–", "–"])
            notes += sorted({f"published {metric}: {score.source}" for score in scores if score})
    return Table(table.title, header, rows, notes)


def _as_published(study: Study, cell: Cell) -> bool:
    """Published scores are of networks pretrained on ImageNet, of all test images, in the protocol's own geometry."""
    run = cell.records[0].run
    part = {"classes", "images_per_class", "test_per_class"} & study.dataset.settings.keys()
    same = run.recipe.geometry == protocols.find(study.protocols[0]).geometry and run.recipe.crops == 1
    return bool(run.pretrained) and not part and same


def grid_table(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> Table:
    """Every cell of the grid."""
    return cells_table(f"{study.name}: every setting on {study.dataset.subject}", cells, MAIN, notes)


def gamma_sigma_tables(study: Study, cells: Sequence[Cell], notes: Sequence[str]) -> dict[str, Table]:
    """GT-known Loc over gamma and sigma, one table per backbone, method and other settings."""
    tables = {}
    for name, grid in gamma_sigma_grids(cells).items():
        gammas = sorted({float(cell.settings["gamma"]) for cell in grid})
        sigmas = sorted({float(cell.settings["sigma"]) for cell in grid})
        at = {(float(cell.settings["gamma"]), float(cell.settings["sigma"])): cell for cell in grid}
        best = as_good_as_the_best(grid, METRIC)
        rows: list[list[str | Value]] = []
        for gamma in gammas:
            line = [at.get((gamma, sigma)) for sigma in sigmas]
            rows.append([f"{gamma:g}", *(Value(*interval(c, METRIC), c in best) if c else "–" for c in line)])
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


def cells_table(
    title: str, cells: Sequence[Cell], columns: Mapping[str, str], notes: Sequence[str], bold: bool = True
) -> Table:
    """A row a cell, a column a metric that all cells know; ``bold`` marks the best on each backbone."""
    shown = {name: metric for name, metric in columns.items() if cells and all(cell.has(metric) for cell in cells)}
    best: dict[str, list[Cell]] = {metric: [] for metric in shown.values()}
    for backbone in dict.fromkeys(cell.backbone for cell in cells) if bold else ():
        rivals = [cell for cell in cells if cell.backbone == backbone and not cell.control]
        for metric in best:
            best[metric] += as_good_as_the_best(rivals, metric)
    rows: list[list[str | Value]] = []
    for cell in cells:
        values = [Value(*interval(cell, metric), cell in winners) for metric, winners in best.items()]
        rows.append([cell.backbone, cell.label, *values, str(len(cell.records))])
    return Table(title, ["Backbone", "Method", *shown, "Seeds"], rows, notes)


def _markdown(cell: str | Value) -> str:
    if isinstance(cell, str):
        return cell
    text = cell.text(" ± ")
    return f"**{text}**" if cell.best else text


def _html(cell: str | Value) -> str:
    text = html.escape(cell if isinstance(cell, str) else cell.text(" ± "))
    return f"<b>{text}</b>" if isinstance(cell, Value) and cell.best else text


def _html_row(kind: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def _latex(cell: str | Value) -> str:
    if isinstance(cell, str):
        return _escape(cell)
    text = cell.text(r" $\pm$ ")
    return rf"\textbf{{{text}}}" if cell.best else text


def _escape(text: str) -> str:
    commands = {"↑": "uparrow", "↓": "downarrow", "≥": "geq", "γ": "gamma", "σ": "sigma", "±": "pm", "\\": "backslash"}
    signs = {sign: rf"$\{name}$" for sign, name in commands.items()}
    signs |= {sign: rf"\{sign}" for sign in "_%&#$"} | {"{": r"\{", "}": r"\}", "–": "--"}
    signs |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(character, character) for character in text)
