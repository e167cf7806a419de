"""The timeline of a drill drawn with letters: a bar a state, the stop as an upright line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.history import Kind
from lastcall.drill.report.timeline import End, Tone
from lastcall.drill.report.words import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lastcall.cli.show import Palette
    from lastcall.drill.report.timeline import Bar, Timeline

_FANCY = {
    "flight": "\N{BOX DRAWINGS LIGHT HORIZONTAL}",
    "stop": "\N{BOX DRAWINGS HEAVY VERTICAL}",
    Tone.GOOD: "\N{BLACK CIRCLE}",
    Tone.CALM: "\N{WHITE CIRCLE}",
    Tone.BAD: "\N{MULTIPLICATION X}",
    End.HUNG: "\N{BLACK RIGHT-POINTING TRIANGLE}",
}
_PLAIN = {
    "flight": "-",
    "stop": "|",
    Tone.GOOD: "o",
    Tone.CALM: ".",
    Tone.BAD: "x",
    End.HUNG: ">",
}
_LEVELS = {True: "▁▂▃▄▅▆▇█", False: ".:#"}
_STYLES: dict[object, tuple[str, ...]] = {
    "flight": ("dim",),
    "stop": ("bold",),
    Tone.GOOD: ("green",),
    Tone.CALM: ("blue",),
    Tone.BAD: ("red", "bold"),
    End.HUNG: ("red", "bold"),
    "level": ("green",),
}
# What is worse covers what is better.
_WEIGHT = {"": 0, "flight": 1, Tone.CALM: 2, Tone.GOOD: 3, End.HUNG: 4, Tone.BAD: 5}
_LEAST = 12


class Bars:
    """Bars on one axis.

    Args:
        drawn: the timeline.
        room: how many columns a bar has.
        palette: colours, or none.
        fancy: whether more than ASCII can be shown.
    """

    def __init__(self, drawn: Timeline, room: int, palette: Palette, *, fancy: bool) -> None:
        self._drawn = drawn
        self._room = max(room, _LEAST)
        self._palette = palette
        self._fancy = fancy
        self._signs = _FANCY if fancy else _PLAIN
        stop = drawn.scale.at(0.0)
        # The stop has a column of its own, so that nothing covers it.
        self._before = min(max(round(stop * (self._room - 1)), 1), self._room - 2)

    def of(self, kind: Kind) -> str:
        """The bar of one state."""
        if kind is Kind.LOAD:
            return self._load()
        if kind is Kind.NEWCOMER:
            marks = ((bar.judged.attempt.attempted_s, _sign(bar)) for bar in self._drawn.newcomers)
            return self._shown(self._cells((), marks))
        bars = [
            bar
            for group in self._drawn.groups
            if group.kind is kind
            for line in group.lines
            for bar in line.bars
        ]
        flights = ((bar.judged.attempt.attempted_s, bar.at_s) for bar in bars)
        return self._shown(self._cells(flights, ((bar.at_s, _sign(bar)) for bar in bars)))

    def axis(self) -> str:
        """The stop and a few round moments below the bars."""
        scale = self._drawn.scale
        row = [" "] * self._room
        self._put(row, self._before, "stop")
        for tick in scale.ticks(4):
            if tick and scale.points[0][0] <= tick <= scale.points[-1][0]:
                sign = "+" if tick > 0 else MINUS
                self._put(row, self._column(tick), f"{sign}{abs(tick):g} s")
        return "".join(row).rstrip()

    def legend(self) -> str:
        """What the signs mean."""
        words = {
            Tone.GOOD: "answered",
            Tone.CALM: "turned away in order",
            Tone.BAD: "lost",
            End.HUNG: "no end in time",
            "flight": "in flight",
            "stop": "the stop",
        }
        said = ", ".join(f"{self._signs[sign]} {word}" for sign, word in words.items())
        return f"{said}; each in the column of its time"

    def _column(self, at_s: float) -> int:
        scale = self._drawn.scale
        place, stop = scale.at(at_s), scale.at(0.0)
        if at_s < 0:
            return min(int(place / stop * self._before), self._before - 1)
        after = self._room - self._before - 1
        return self._before + 1 + min(int((place - stop) / (1 - stop) * after), after - 1)

    def _cells(
        self, flights: Iterable[tuple[float, float]], marks: Iterable[tuple[float, object]]
    ) -> list[object]:
        cells: list[object] = [""] * self._room
        first_s = self._drawn.scale.points[0][0]
        for begun_s, over_s in flights:
            for i in range(self._column(begun_s), self._column(over_s)):
                cells[i] = "flight"
        for at_s, sign in marks:
            i = self._column(at_s)
            if at_s >= first_s and _WEIGHT[sign] > _WEIGHT[cells[i]]:  # type: ignore[index]
                cells[i] = sign
        cells[self._before] = "stop"
        return cells

    def _shown(self, cells: Iterable[object]) -> str:
        return "".join(
            " " if cell == "" else self._palette.paint(self._signs[cell], *_STYLES[cell])  # type: ignore[index]
            for cell in cells
        )

    def _load(self) -> str:
        """Columns as high as there were answers; a cross where any was lost."""
        answered, signs = [0] * self._room, self._cells((), ())
        for each in self._drawn.load:
            i = self._column((each.from_s + each.to_s) / 2)
            answered[i] += each.answered
            sign: object = Tone.BAD if each.bad else Tone.CALM if each.other else ""
            if sign and i != self._before and signs[i] is not Tone.BAD:
                signs[i] = sign
        levels, most = _LEVELS[self._fancy], max(answered) or 1
        said = ""
        for count, sign in zip(answered, signs, strict=True):
            if count and sign in {"", Tone.CALM}:
                level = levels[min(len(levels) * count // most, len(levels) - 1)]
                said += self._palette.paint(level, *_STYLES["level"])
            else:
                said += self._shown([sign])
        return said

    def _put(self, row: list[str], column: int, text: str) -> None:
        """Write a text around a column, where nothing stands yet."""
        start = min(max(column - len(text) // 2, 0), len(row) - len(text))
        around = row[max(start - 1, 0) : start + len(text) + 1]
        if all(cell == " " for cell in around):
            row[start : start + len(text)] = text


def _sign(bar: Bar) -> object:
    return End.HUNG if bar.end is End.HUNG else bar.tone
