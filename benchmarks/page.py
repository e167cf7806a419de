"""Writes what was measured into docs/benchmarks.md, between two marks; the rest is by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measure import Row

BEGIN = "<!-- measured: begin (written by `make bench`) -->"
END = "<!-- measured: end -->"
HEADS = ("what", "lastcall", "against", "takes", "ratio", "aim", "reached")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table: medians, with the smallest and largest sample."""
    lines = [HEADS, tuple("---" for _ in HEADS), *(row.cells() for row in rows)]
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]


def measured(rows: Sequence[Row], machine: str, loads: tuple[float, float], words: str) -> str:
    """All that stands between the marks."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    before, after = loads
    return "\n".join(
        [
            BEGIN,
            "",
            f"Measured on {day}, {words}; load {before:.1f} before, {after:.1f} after.",
            "",
            f"Machine: {machine}.",
            "",
            *table(rows),
            "",
            END,
        ]
    )


def write(path: str, text: str) -> None:
    """Put it between the marks of a page; a page without them is made.

    Raises:
        ValueError: it has only one of them.
    """
    try:
        with open(path, encoding="utf-8") as file:
            page = file.read()
    except FileNotFoundError:
        page = f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the mark {END if begin else BEGIN}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + text + tail)
