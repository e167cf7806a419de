"""How results look: plain lines when piped, a few sober colours on a terminal.

What is shown may come from strangers (a command line can hold anything), so every text is made
harmless for the terminal here, in one place.

Source: ECMA-48 (SGR); https://no-color.org.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.errors import LastcallError
    from lastcall.model import Address

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}
_NARROWEST = 40
_WIDEST = 100
_TAG_WIDTH = 8
_LABEL_WIDTH = 6
# Evidence that begins with this was not seen: it is one of the causes that are possible.
_GUESS = "may be "


@record
class Palette:
    """Colours, or none.

    Args:
        on: whether to colour at all.
    """

    on: bool = False

    @classmethod
    def of(cls, stream: IO[str]) -> Palette:
        """Colours for a terminal that can show them, unless NO_COLOR is set."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
        return cls(on=stream.isatty() and not plain)

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles (`bold`, `dim`, `red`, `green`, `yellow`, `blue`, `cyan`)."""
        if not self.on or not styles or not text:
            return text
        return f"\x1b[{';'.join(str(_CODES[style]) for style in styles)}m{text}\x1b[0m"


_STYLES: dict[Severity, tuple[str, ...]] = {
    Severity.BLOCKER: ("red", "bold"),
    Severity.WARNING: ("yellow", "bold"),
    Severity.NOTE: ("cyan",),
}


def width_of(stream: IO[str]) -> int | None:
    """How many columns to wrap at; None when the output is no terminal: then nothing is wrapped."""
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return None
    return max(_NARROWEST, min(columns or 80, _WIDEST))


def harmless(text: str) -> str:
    """The text without anything that a terminal could take for a command."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def wrap(text: str, width: int | None) -> list[str]:
    """The text in lines of at most `width` columns; a longer word stays whole, to be copied."""
    text = harmless(text)
    if width is None or len(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def finding_lines(finding: Finding, width: int | None, palette: Palette) -> list[str]:
    """A finding as people read it: how grave, what is so, what it rests on, what to do.

    Args:
        finding: what to show.
        width: columns to wrap at; None wraps nothing.
        palette: colours, or none.
    """
    sure = "" if finding.confidence is Confidence.CERTAIN else f" ({finding.confidence.value})"
    room = None if width is None else width - _TAG_WIDTH - 1
    tag = palette.paint(finding.severity.value.ljust(_TAG_WIDTH), *_STYLES[finding.severity])
    indent = " " * (_TAG_WIDTH + 1)
    title = wrap(finding.title + sure, room)
    grave = ("bold",) if finding.severity is not Severity.NOTE else ()
    lines = [f"{tag} {palette.paint(title[0], *grave)}"]
    lines += [indent + palette.paint(line, *grave) for line in title[1:]]
    for evidence in finding.evidence:
        guess = evidence.removeprefix(_GUESS)
        label = "seen:" if guess == evidence else "why?"
        lines += _labelled(label, guess, room, indent, palette, "dim")
    if finding.advice:
        lines += _labelled("do:", finding.advice, room, indent, palette, "green")
    return lines


def _labelled(
    label: str, text: str, room: int | None, indent: str, palette: Palette, style: str
) -> list[str]:
    inner = None if room is None else room - _LABEL_WIDTH
    first, *rest = wrap(text, inner)
    head = palette.paint(label.ljust(_LABEL_WIDTH), "dim")
    gap = " " * _LABEL_WIDTH
    return [
        f"{indent}{head}{palette.paint(first, style)}",
        *(f"{indent}{gap}{palette.paint(line, style)}" for line in rest),
    ]


def error_lines(error: LastcallError, of: Address | None = None) -> list[str]:
    """An error as people read it: what happened, the evidence, what to do next.

    Args:
        error: what to tell.
        of: the target that it concerns, where that is one of several.
    """
    named = of is None or of.name in error.what
    lines = [f"lastcall: {harmless(error.what if named else f'{of}: {error.what}')}"]
    lines += [f"  {harmless(line)}" for line in error.evidence]
    if error.advice:
        lines += [f"  {harmless(line)}" for line in error.advice.splitlines()]
    return lines


@record
class Cell:
    """A cell of a table.

    Args:
        text: what stands in it.
        styles: as in `Palette.paint`.
    """

    text: str
    styles: tuple[str, ...] = ()


def table_lines(
    rows: Iterable[Sequence[str | Cell]], width: int | None, palette: Palette, indent: str = "  "
) -> list[str]:
    """Rows in columns; the last column is wrapped in what room is left."""
    kept = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    if not kept:
        return []
    widths = [max(len(row[i].text) for row in kept) for i in range(len(kept[0]) - 1)]
    start = len(indent) + sum(widths) + 2 * len(widths)
    room = None if width is None else max(width - start, _NARROWEST // 2)
    lines = []
    for row in kept:
        cells = [
            palette.paint(harmless(cell.text), *cell.styles) + " " * (size - len(cell.text) + 2)
            for cell, size in zip(row, widths, strict=False)
        ]
        last = row[-1]
        first, *rest = wrap(last.text, room)
        lines.append(f"{indent}{''.join(cells)}{palette.paint(first, *last.styles)}".rstrip())
        lines += [" " * start + palette.paint(line, *last.styles) for line in rest]
    return lines
