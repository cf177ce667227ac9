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
class Probability:
    """A probability or p-value, between 0 and 1.

    Three decimals, and a fourth where rounding would hide on which side of 0.05 it lies; never a rounded 0 or 1.
    """

    value: float

    def __str__(self) -> str:
        """``<0.001`` and ``>0.999`` beyond three decimals."""
        if 0 <= self.value < 0.0005:
            return "<0.001"
        if 0.9995 <= self.value < 1:
            return ">0.999"
        text = f"{self.value:.3f}"
        return f"{self.value:.4f}" if text == "0.050" else text


@dataclass(frozen=True)
class Number:
    """A number without an interval; ``signed`` has a plus too."""

    value: float
    signed: bool = False

    def __str__(self) -> str:
        """With one decimal."""
        shown = round(self.value, 1) + 0.0  # no minus before a zero
        return f"{shown:+.1f}" if self.signed else f"{shown:.1f}"


Cell = str | Value | Probability | Number


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
    rows: Sequence[Sequence[Cell]]
    notes: Notes = field(default_factory=Notes)
    blocks: Sequence[int] = ()

    def formats(self) -> dict[str, str]:
        """The table in every format, by the suffix of its file."""
        return {"csv": self.csv(), "md": self.markdown(), "tex": self.latex(), "html": self.html()}

    def csv(self) -> str:
        """Numbers unrounded, a value as two columns, its mean and the half-width of its interval; a hole is empty."""
        header, columns = list[str](), list[pd.Series]()
        for name, *cells in zip(self.header, *self.rows, strict=True):
            numbers = [cell for cell in cells if not isinstance(cell, str)]
            header.append(name)
            columns.append(pd.Series([math.nan if numbers and cell == "–" else _csv_cell(cell) for cell in cells]))
            if any(isinstance(cell, Value) for cell in numbers):
                header.append(f"{name} ±")
                columns.append(pd.Series([cell.half if isinstance(cell, Value) else math.nan for cell in cells]))
        return pd.concat(columns, axis=1).to_csv(index=False, header=header)

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


def _csv_cell(cell: Cell) -> str | float:
    return cell.mean if isinstance(cell, Value) else cell.value if isinstance(cell, Probability | Number) else cell


def _is_best(cell: Cell) -> bool:
    return isinstance(cell, Value) and cell.best


def _sentence(note: str) -> str:
    """A note as a sentence; names such as resnet50 keep their small letter."""
    first = note[:1].upper() if note.split(" ", 1)[0].isalpha() else note[:1]
    return _escape(f"{first}{note[1:].rstrip('.')}.")


def _escape(text: str) -> str:
    commands = {"↑": "uparrow", "↓": "downarrow", "≥": "geq", "γ": "gamma", "σ": "sigma", "±": "pm", "Δ": "Delta"}
    signs = {sign: rf"$\{name}$" for sign, name in (commands | {"\\": "backslash"}).items()}
    signs |= {sign: rf"\{sign}" for sign in "_%&#$"} | {"{": r"\{", "}": r"\}", "–": "--", "<": "$<$", ">": "$>$"}
    signs |= {"†": r"\dag{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(character, character) for character in text)
