"""Aligned columns of plain text."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence

__all__ = ["display_width", "line_width", "table", "wrapped"]


def line_width() -> int:
    """Columns to write in: those of the terminal, 80 where there is none."""
    if not sys.stdout.isatty():
        return 80
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, 140))


def display_width(text: str) -> int:
    """Columns that a text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def table(rows: Sequence[Sequence[str]], *, indent: int = 2, width: int | None = None) -> str:
    """Rows of equally many cells; the last column is wrapped, the others are as wide as their widest cell."""
    if not rows:
        return ""
    width = width or line_width()
    widths = [max(display_width(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    used = indent + sum(size + 2 for size in widths if size)
    room = max(width - used, 24)
    lines = []
    for row in rows:
        cells = [cell + " " * (size - display_width(cell)) for cell, size in zip(row[:-1], widths, strict=True) if size]
        head = " " * indent + "".join(cell + "  " for cell in cells)
        hanging = " " * (len(row[-1]) - len(row[-1].lstrip()))
        parts = textwrap.wrap(row[-1], room, subsequent_indent=hanging, break_on_hyphens=False)
        for number, part in enumerate(parts or [""]):
            lines.append(((head if number == 0 else " " * used) + part).rstrip())
    return "\n".join(lines)


def wrapped(text: str, *, indent: int = 0, width: int | None = None) -> str:
    """Return a paragraph of running text."""
    return textwrap.fill(
        " ".join(text.split()),
        width or line_width(),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
