"""A table as CSV, Markdown, LaTeX and HTML, whatever is in it."""

import html
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

_CSS = (
    "body{font:14px sans-serif;margin:2em}h1{font-size:18px}table{border-collapse:collapse}"
    "th,td{padding:.25em .8em;text-align:left;white-space:nowrap}tr:first-child{border-bottom:1px solid}"
    "table{border-top:2px solid;border-bottom:2px solid}tr.block{border-top:1px solid}"
    "li{color:#555;max-width:60em}img{max-width:100%}"
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
    """Rows of labels and values, and what stands below them.

    Attributes:
        title: what it shows.
        header: a name a column.
        rows: as many cells each.
        notes: the first three belong to a caption (what ± is, the protocol), the others below the table.
        blocks: rows that begin a block, above which a line stands.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    notes: Sequence[str]
    blocks: Sequence[int] = ()

    def csv(self) -> str:
        """Every value as two columns, its mean and the half-width of its interval, unrounded; a hole is empty."""
        columns = zip(*self.rows, strict=True)
        measured = [any(isinstance(cell, Value) for cell in column) for column in columns]
        lines = []
        for row in self.rows:
            line: dict[str, str | float] = {}
            for name, cell, number in zip(self.header, row, measured, strict=True):
                hole = Value(math.nan, math.nan) if number and cell == "–" else cell
                line[name] = hole.mean if isinstance(hole, Value) else hole
                if number:
                    line[f"{name} ±"] = hole.half if isinstance(hole, Value) else math.nan
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
        lines = [_html_row("th", self.header)]
        lines += [_html_row("td", map(_html, row), k in self.blocks) for k, row in enumerate(self.rows)]
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
        """A booktabs table over both columns, no wider than the text; further notes stand small below it."""
        body = []
        for k, row in enumerate(self.rows):
            body += [r"\midrule"] if k in self.blocks else []
            body.append(" & ".join(_latex(cell) for cell in row) + r" \\")
        below = [r"\par\smallskip\raggedright\footnotesize", *map(_sentence, self.notes[3:])] if self.notes[3:] else []
        return "\n".join(
            [
                r"% \usepackage{booktabs,graphicx}",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{' '.join([_escape(f'{self.title}.'), *map(_sentence, self.notes[:3])])}}}",
                r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
                rf"\begin{{tabular}}{{{''.join('l' if isinstance(c, str) else 'c' for c in self.rows[0])}}}",
                r"\toprule",
                " & ".join(map(_escape, self.header)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                *below,
                r"\end{table*}",
                "",
            ]
        )


def _markdown(cell: str | Value) -> str:
    if isinstance(cell, str):
        return cell
    text = cell.text(" ± ")
    return f"**{text}**" if cell.best else text


def _html(cell: str | Value) -> str:
    text = html.escape(cell if isinstance(cell, str) else cell.text(" ± "))
    return f"<b>{text}</b>" if isinstance(cell, Value) and cell.best else text


def _html_row(kind: str, cells: Iterable[str], block: bool = False) -> str:
    return ('<tr class="block">' if block else "<tr>") + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def _latex(cell: str | Value) -> str:
    if isinstance(cell, str):
        return _escape(cell)
    text = cell.text(r" $\pm$ ")
    return rf"\textbf{{{text}}}" if cell.best else text


def _sentence(note: str) -> str:
    """A note as a sentence; names such as resnet50 keep their small letter."""
    first = note[:1].upper() if note.split(" ", 1)[0].isalpha() else note[:1]
    return _escape(f"{first}{note[1:].rstrip('.')}.")


def _escape(text: str) -> str:
    commands = {"↑": "uparrow", "↓": "downarrow", "≥": "geq", "γ": "gamma", "σ": "sigma", "±": "pm", "\\": "backslash"}
    signs = {sign: rf"$\{name}$" for sign, name in commands.items()}
    signs |= {sign: rf"\{sign}" for sign in "_%&#$"} | {"{": r"\{", "}": r"\}", "–": "--"}
    signs |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(character, character) for character in text)
