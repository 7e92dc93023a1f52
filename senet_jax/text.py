"""Text that others wrote, made safe for the format that shows it, and text in columns."""

import csv
import io
import re
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Escapes characters that a terminal acts on or cannot show.

    Control characters, among them ESC and line breaks, direction marks and the surrogates that
    stand for bytes that are not UTF-8 become backslash escapes; all else stays.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def markdown(text: str) -> str:
    """Escapes text for a cell of a Markdown table: it is shown as it is and opens no markup."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def latex(text: str) -> str:
    """Escapes text for LaTeX: every character stands for itself."""
    return "".join(_LATEX.get(char, char) for char in printable(text))


def spreadsheet(text: str) -> str:
    """Escapes text for a cell of a CSV file that a spreadsheet opens.

    A cell that begins with "=", "+", "-" or "@" would be computed as a formula (OWASP, "CSV
    Injection"); an apostrophe before it makes it text. Quotes and commas are left to ``csv``.
    """
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def figure_text(text: str) -> str:
    """Escapes text for a figure of matplotlib: it is drawn as it is.

    Two dollar signs would begin and end mathtext, whose errors end the drawing, and legends leave
    out what begins with an underscore: a space of no width stands before it.
    """
    text = printable(text).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


_MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&$]|(?<![^\W_])_|_(?![^\W_])")
"""Markdown's markup; an underscore within a word is none."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of formulas; the last four are the full-width forms, which Excel reads too."""


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row they would be its options.
    "*": "{*}",
    "[": "{[}",
    "]": "{]}",
    **{char: f"\\{char}" for char in "#$%&_{}"},
}


def columns(rows: Sequence[tuple[str, ...]], *, numbers: bool = True) -> list[str]:
    """Rows with the first column to the left, and the others to the right if they are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index and numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left, the others to the right."""
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rules, *rows))


def comma_separated(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a CSV file; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
