"""Titles, tables and graded remarks -> aligned plain text or self-contained HTML. Knows nothing of designs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 100
_INDENT, _GAP = 2, 2
_NUMBER = re.compile(r"[-+<>]?[\d,]*\.?\d+(e[-+]?\d+)?( %)?|-|")

# Colours are translucent or inherited, so that the page is legible on a light and on a dark background.
_STYLE = """
.sc-lmm { font-family: sans-serif; font-size: 0.9em; max-width: 62em; color: inherit; }
.sc-lmm table { border-collapse: collapse; margin: 0.2em 0 0.4em 0; }
.sc-lmm th, .sc-lmm td { padding: 0.15em 0.8em 0.15em 0; text-align: left; vertical-align: top; }
.sc-lmm th { border-bottom: 1px solid rgba(128, 128, 128, 0.6); font-weight: 600; }
.sc-lmm .number { text-align: right; font-variant-numeric: tabular-nums; }
.sc-lmm h4 { margin: 0.8em 0 0.2em 0; }
.sc-lmm p { margin: 0.15em 0; }
.sc-lmm .remark { margin: 0.4em 0; padding: 0.3em 0.7em; border-left: 4px solid; }
.sc-lmm .ok { border-color: rgb(46, 160, 90); background: rgba(46, 160, 90, 0.10); }
.sc-lmm .caution { border-color: rgb(214, 140, 20); background: rgba(214, 140, 20, 0.12); }
.sc-lmm .refused { border-color: rgb(205, 60, 60); background: rgba(205, 60, 60, 0.12); }
.sc-lmm .badge { padding: 0.1em 0.6em; border: 1px solid; border-radius: 0.8em; }
.sc-lmm .code { opacity: 0.65; font-size: 0.85em; }
"""


@dataclass(frozen=True)
class Table:
    """A titled table with sentences below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark:
    """A graded sentence and what to do about it."""

    grade: str
    code: str
    message: str
    advice: str


@dataclass(frozen=True)
class Page:
    """Everything that is shown, in order."""

    title: str
    grade: str
    lines: tuple[str, ...]
    tables: tuple[Table, ...]
    remarks: tuple[Remark, ...]


def to_text(page: Page) -> str:
    """Write the page for a terminal, no line longer than 100 characters."""
    parts = [_paragraph(f"{page.title}: {page.grade}", 0), *(_paragraph(line, _INDENT) for line in page.lines)]
    for table in page.tables:
        parts += [
            "",
            _paragraph(table.title, 0),
            *_aligned(table),
            *(_paragraph(note, _INDENT) for note in table.notes),
        ]
    if page.remarks:
        parts += ["", "Verdicts", *(_remark_text(remark) for remark in page.remarks)]
    return "\n".join(parts)


def to_html(page: Page) -> str:
    """Write the page for a notebook: one element with its own style."""
    parts = [f"<p><strong>{escape(page.title)}</strong> {_badge(page.grade)}</p>"]
    parts += [f"<p>{escape(line)}</p>" for line in page.lines]
    parts += [_remark_html(remark) for remark in page.remarks]
    for table in page.tables:
        parts += [f"<h4>{escape(table.title)}</h4>", _table_html(table)]
        parts += [f"<p>{escape(note)}</p>" for note in table.notes]
    body = "\n".join(parts)
    return f'<div class="sc-lmm">\n<style>{_STYLE}</style>\n{body}\n</div>'


def _paragraph(text: str, indent: int, first: str | None = None) -> str:
    margin = " " * indent
    lines = wrap(text, WIDTH, initial_indent=margin if first is None else first, subsequent_indent=margin)
    return "\n".join(lines)


def _remark_text(remark: Remark) -> str:
    lines = [_paragraph(remark.message, 11, f"  {remark.grade:<9}")]
    if remark.advice:
        lines.append(_paragraph(remark.advice, 14, " " * 11 + "-> "))
    return "\n".join(lines)


def _aligned(table: Table) -> list[str]:
    if not table.rows:
        return []
    numeric = _numeric_columns(table)
    widths = _widths([table.header, *table.rows])
    return [line for row in (table.header, *table.rows) for line in _row_lines(row, widths, numeric)]


def _numeric_columns(table: Table) -> list[bool]:
    return [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*table.rows, strict=True)]


def _widths(rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Natural column widths, the widest narrowed until a line fits, words being broken only if nothing else helps."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in zip(*rows, strict=True)]
    room = WIDTH - _INDENT - _GAP * (len(widths) - 1)
    while sum(widths) > room:
        loose = [k for k, width in enumerate(widths) if width > words[k]]
        widths[max(loose or range(len(widths)), key=lambda k: widths[k])] -= 1
    return widths


def _row_lines(row: tuple[str, ...], widths: list[int], numeric: list[bool]) -> list[str]:
    cells = [wrap(cell, width) if cell else [""] for cell, width in zip(row, widths, strict=True)]
    lines = []
    for pieces in zip_longest(*cells, fillvalue=""):
        padded = [p.rjust(w) if num else p.ljust(w) for p, w, num in zip(pieces, widths, numeric, strict=True)]
        lines.append((" " * _INDENT + (" " * _GAP).join(padded)).rstrip())
    return lines


def _badge(grade: str) -> str:
    return f'<span class="badge {escape(grade.split(" ")[0])}">{escape(grade)}</span>'


def _remark_html(remark: Remark) -> str:
    advice = f"<p><em>What to do:</em> {escape(remark.advice)}</p>" if remark.advice else ""
    head = f'<strong>{escape(remark.grade)}</strong> <span class="code">{escape(remark.code)}</span>'
    return f'<div class="remark {escape(remark.grade)}"><p>{head}</p><p>{escape(remark.message)}</p>{advice}</div>'


def _table_html(table: Table) -> str:
    if not table.rows:
        return ""
    css = [' class="number"' if numeric else "" for numeric in _numeric_columns(table)]
    head = "".join(f"<th{c}>{escape(cell)}</th>" for c, cell in zip(css, table.header, strict=True))
    rows = [
        "<tr>" + "".join(f"<td{c}>{escape(cell)}</td>" for c, cell in zip(css, row, strict=True)) + "</tr>"
        for row in table.rows
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
