"""A table as CSV, Markdown, LaTeX and HTML, whatever is in it."""

import html
import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from eil.report.notes import Notes

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

_CSS = (
    "body{font:14px sans-serif;margin:2em}h1{font-size:18px}table{border-collapse:collapse}"
    "th,td{padding:.25em .8em;text-align:left;white-space:nowrap}thead{border-bottom:1px solid}"
    "table{border-top:2px solid;border-bottom:2px solid}"
    "li{color:#555;max-width:60em}img{max-width:100%}"
)
_HEAD = 4  # lines of a LaTeX tabular before its first row


@dataclass(frozen=True)
class Value:
    """A mean with half the width of its 95 % interval; ``best`` if nothing is significantly better.

    The interval of a percentage is clipped to 0 to 100, and both its ends are shown where that shortens it.
    """

    mean: float
    half: float
    best: bool = False
    percent: bool = False

    def __str__(self) -> str:
        """With one decimal; without the interval if there is none."""
        mean = f"{round(self.mean, 1) + 0.0:.1f}"  # no minus before a zero
        if math.isnan(self.half):
            return mean
        low, high = self.mean - self.half, self.mean + self.half
        if self.percent and self.half and not 0 <= low <= high <= 100:
            return f"{mean} [{max(low, 0):.1f}, {min(high, 100):.1f}]"
        return f"{mean} ± {self.half:.1f}"


@dataclass(frozen=True)
class Table:
    """Rows of labels and values, and what stands below them.

    Attributes:
        title: what it shows.
        header: a name a column.
        rows: as many cells each.
        notes: what the table says of itself.
        blocks: rows that begin a block, above which a line stands.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Value]]
    notes: Notes = field(default_factory=Notes)
    blocks: Sequence[int] = ()

    def formats(self) -> dict[str, str]:
        """The table in every format, by the suffix of its file."""
        return {"csv": self.csv(), "md": self.markdown(), "tex": self.latex(), "html": self.html()}

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
        body = [[f"**{cell}**" if _is_best(cell) else str(cell) for cell in row] for row in self.rows]
        lines = [" | ".join(row) for row in [self.header, ["---"] * len(self.header), *body]]
        notes = "\n".join(f"- {note}" for note in self.notes.lines())
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in lines) + f"\n\n{notes}\n"

    def html(self, pictures: Sequence[Path] = ()) -> str:
        """A page of its own, with PNG files below the table; it needs nothing from elsewhere."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes.lines())
        title = html.escape(self.title)
        encoded = [b64encode(path.read_bytes()).decode() for path in pictures]
        return (
            f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_CSS}</style>\n<h1>{title}</h1>\n'
            + self._styled(html.escape).to_html(table_uuid="table")
            + f"\n<ul>{notes}</ul>\n"
            + "".join(f'<img src="data:image/png;base64,{each}"><br>\n' for each in encoded)
        )

    def latex(self) -> str:
        """A booktabs table over both columns, no wider than the text; further notes stand small below it."""
        columns = "".join("l" if isinstance(cell, str) else "c" for cell in self.rows[0])
        lines = self._styled(_escape).to_latex(hrules=True, column_format=columns, convert_css=True).splitlines()
        for k in reversed(self.blocks):
            lines.insert(_HEAD + k, r"\midrule")
        below = [_sentence(note) for note in self.notes.below()]
        return "\n".join(
            [
                r"% \usepackage{booktabs,graphicx}",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{' '.join([_escape(f'{self.title}.'), *map(_sentence, self.notes.caption())])}}}",
                r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
                *lines[:-1],
                rf"{lines[-1]}}}",
                *([r"\par\smallskip\raggedright\footnotesize", *below] if below else []),
                r"\end{table*}",
                "",
            ]
        )

    def _styled(self, escape: Callable[[str], str]) -> "Styler":
        """The table with the best in bold and a line above each block, its texts escaped."""
        css = pd.DataFrame([["font-weight: bold;" if _is_best(cell) else "" for cell in row] for row in self.rows])
        css.loc[list(self.blocks)] += "border-top: 1px solid;"
        frame = pd.DataFrame([[escape(str(cell)) for cell in row] for row in self.rows])
        styler = frame.style.hide(axis="index").apply(lambda _: css, axis=None)
        return styler.relabel_index([escape(name) for name in self.header], axis="columns")


def _is_best(cell: str | Value) -> bool:
    return isinstance(cell, Value) and cell.best


def _sentence(note: str) -> str:
    """A note as a sentence; names such as resnet50 keep their small letter."""
    first = note[:1].upper() if note.split(" ", 1)[0].isalpha() else note[:1]
    return _escape(f"{first}{note[1:].rstrip('.')}.")


def _escape(text: str) -> str:
    commands = {"↑": "uparrow", "↓": "downarrow", "≥": "geq", "γ": "gamma", "σ": "sigma", "±": "pm", "Δ": "Delta"}
    signs = {sign: rf"$\{name}$" for sign, name in (commands | {"\\": "backslash"}).items()}
    signs |= {sign: rf"\{sign}" for sign in "_%&#$"} | {"{": r"\{", "}": r"\}", "–": "--"}
    signs |= {"†": r"\dag{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(character, character) for character in text)
