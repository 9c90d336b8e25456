"""Pieces of the report: tables, heat cells and figures as HTML that any script can stand in.

Text of a language carries its own `lang` and `dir`. A quantity inside right-to-left text is
isolated (`<bdi dir="ltr">`), since browsers otherwise pull number and unit apart, which for a dose
is a question of safety.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import NamedTuple

from polyclinic.languages import Language

# One number: decimals, thousands apart by a space, fractions such as a half.
_NUMBER = r"(?:(?:\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)(?:[.,\u066b\u066c]\d+)*[¼-¾⅐-⅞]?|[¼-¾⅐-⅞])"
# What belongs to a number: a sign before it, ranges and ratios, a Latin unit or a sign behind it.
QUANTITY = re.compile(
    r"(?<![A-Za-z\d])(?<![A-Za-z][-‐‑])"  # the 12 of B12 and the 19 of COVID-19 stay with their names
    r"(?:(?<![^\s(])(?:[-−+±]|[<>≤≥≈][^\S\n]?))?"
    rf"{_NUMBER}(?:[^\S\n]?[-‐‑–−/:×][^\S\n]?{_NUMBER})*"
    r"(?:[^\S\n]?(?:°(?:[^\S\n]?[CF])?|[%‰٪]|mm[^\S\n]Hg|[A-Za-zµμ]+[²³]?(?:/[A-Za-zµμ]+[²³]?)*(?!\w)))?"
)


# Nothing may be fetched, not even by a style; a page is one file.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Fragment(NamedTuple):
    """One section of the report; `lead` is the sentence that says how to read it."""

    title: str
    lead: str
    html: str


def isolate(text: str) -> str:
    """Return text as HTML with every quantity kept in one piece, left to right."""
    out, last = [], 0
    for match in QUANTITY.finditer(text):
        out += [escape(text[last : match.start()]), f'<bdi dir="ltr">{escape(match.group())}</bdi>']
        last = match.end()
    return "".join([*out, escape(text[last:])])


def native(language: Language, text: str | None = None) -> str:
    """Return the native name of a language, or a text in it, with its direction."""
    shown = escape(language.native_name) if text is None else isolate(text)
    return f'<bdi lang="{escape(language.code)}-{escape(language.script)}" dir="{language.direction}">{shown}</bdi>'


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure for a cell, or a dash where there is none."""
    return "&ndash;" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share as a percentage."""
    return "&ndash;" if share is None else f"{100 * share:.1f}"


def heat(share: float, strong: bool = False) -> str:
    """Return a table cell shaded by a share from 0 to 1, with the figure inside."""
    mark = ' class="heat own"' if strong else ' class="heat"'
    return f'<td{mark} style="--share:{share:.3f}">{100 * share:.0f}</td>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text_columns: int = 1) -> str:
    """Return a table; cells are HTML, a cell that starts with `<td` is used as it is."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{_cells(row, text_columns)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str], text_columns: int) -> str:
    out = []
    for position, cell in enumerate(row):
        if cell.startswith("<td"):
            out.append(cell)
        else:
            kind = "text" if position < text_columns else "figure"
            out.append(f'<td class="{kind}">{cell}</td>')
    return "".join(out)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of named figures."""
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in pairs) + "</dl>"


def figure(svg: str, caption: str) -> str:
    """Return a drawing with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def details(summary: str, html: str) -> str:
    """Return a part that is folded until the reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def whole(title: str, html: str) -> str:
    """Return one file of HTML: head, style, heading, and what is given below it."""
    css = resources.files("polyclinic.data").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en" dir="ltr"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body>"
        f"<h1>{escape(title)}</h1>{html}</body></html>\n"
    )
