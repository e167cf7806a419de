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


def renewed(path: str, rows: Sequence[Row], loads: tuple[float, float], parts: str) -> str:
    """All that stands between a page's marks, with these rows in place of those of their names.

    Rows that the page does not have come at its end. Which part was measured when is said below
    the table.

    Args:
        path: of the page; it has both marks.
        rows: what was measured.
        loads: of the machine, before and after.
        parts: what was measured, in a word.

    Raises:
        ValueError: it lacks a mark, or a table.
    """
    with open(path, encoding="utf-8") as file:
        _, begin, rest = file.read().partition(BEGIN)
    inside, end, _ = rest.partition(END)
    lines = inside.splitlines()
    table_ends = max((i for i, line in enumerate(lines) if line.startswith("| ")), default=None)
    if not begin or not end or table_ends is None:
        raise ValueError(f"{path} lacks a mark, or its table")
    lines = [*lines[: table_ends + 1], "\0", *lines[table_ends + 1 :]]
    fresh = table(rows)[2:]
    # "guests: 100 zoo guests: CPU time" stands in the place of what was called "guests: ..."
    subjects = {row.name.partition(":")[0] for row in rows}
    old = [i for i, line in enumerate(lines) if _subject(line) in subjects]
    place = old[0] if old else lines.index("\0")
    kept = [line for i, line in enumerate(lines) if i not in old]
    kept[place:place] = fresh
    day, (before, after) = time.strftime("%Y-%m-%d", time.gmtime()), loads
    own = f"The lines of {parts} were measured on {day}"
    kept = [line for line in kept if not line.startswith(own[: -len(day)])]
    note = f"{own}; load {before:.1f} before, {after:.1f} after."
    at = kept.index("\0")
    others = [line for line in kept[at + 1 :] if line]
    return "\n".join([BEGIN, *kept[1:at], "", note, *others, "", END])


def _subject(line: str) -> str:
    """What a line of the table is about; empty for any other line."""
    return line[2:].partition(" | ")[0].partition(":")[0] if line.startswith("| ") else ""


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
