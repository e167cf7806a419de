"""Drawing the timeline as SVG that is as wide as its page.

Places in time are percentages, heights are pixels: so the drawing fits every width without a
script, and its letters keep their size.
"""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from lastcall.drill.judge import Work
from lastcall.drill.report.timeline import End, Phase
from lastcall.drill.report.words import MINUS, clean, when
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.drill.report.timeline import Bar, Group, Line, Scale, Segment
    from lastcall.drill.result import Moment

# Heights in pixels.
# How high a lane is, by how many there are in a state at most.
_PITCHES = ((24, 13), (120, 9), (math.inf, 6))
_PAD = 7
_FLAG = 17
_NEAR = 0.055
MOST_MOMENTS = 40

_THICK = {
    Phase.CONNECTING: 1.5,
    Phase.SILENT: 1.5,
    Phase.SENDING: 3.5,
    Phase.WAITING: 6.0,
    Phase.RECEIVING: 6.0,
}
_CLASS = {
    Phase.CONNECTING: "c",
    Phase.SILENT: "q",
    Phase.SENDING: "u",
    Phase.WAITING: "w",
    Phase.RECEIVING: "d",
}
# Narrower than this part of the axis nothing is seen.
_UNSEEN = 0.0004
# Each end has a shape of its own, as colour alone tells not everybody.
_MARKS = {
    End.ANSWERED: '<circle r="4"/>',
    End.TURNED_AWAY: '<path class="h" d="M0-4.6 4.6 0 0 4.6-4.6 0z"/>',
    End.REFUSED: '<rect class="h" x="-3.6" y="-3.6" width="7.2" height="7.2"/>',
    End.LET_GO: '<circle class="h" r="3.6"/>',
    End.FAILED: '<path d="M0-5.4 5.4 0 0 5.4-5.4 0z"/>',
    End.RESET: '<path class="x" d="M-4-4 4 4M4-4-4 4"/>',
    End.CUT: '<path class="x" d="M0-5.5V5.5M-4.5 0H0"/>',
    End.HUNG: '<path d="M-3.5-5 5 0-3.5 5z"/>',
}


@record
class Flag:
    """A moment on the axis with its number, and how high its flag stands."""

    number: int
    moment: Moment
    place: float
    level: int


def percent(place: float) -> str:
    """A place on the axis, as SVG writes it."""
    return f"{100 * place:.2f}".rstrip("0").rstrip(".") + "%"


def flags(moments: Iterable[Moment], scale: Scale) -> tuple[Flag, ...]:
    """The moments that lie on the axis, but for the stop itself, stacked where they are close."""
    found: list[Flag] = []
    last: list[float] = []
    first_s, last_s = scale.points[0][0], scale.points[-1][0]
    for moment in moments:
        if moment.code == "stop-sent" or not first_s <= moment.at_s <= last_s:
            continue
        place = scale.at(moment.at_s)
        level = next((i for i, end in enumerate(last) if place - end >= _NEAR), len(last))
        last[level : level + 1] = [place]
        found.append(Flag(len(found) + 1, moment, place, level))
        if len(found) == MOST_MOMENTS:
            break
    return tuple(found)


def shared() -> str:
    """What every drawing of the page uses: the marks of ends."""
    marks = "".join(f'<g id="m-{end.name}" class="m">{shape}</g>' for end, shape in _MARKS.items())
    small = "".join(
        f'<g id="s-{end.name}" class="m"><g transform="scale(.7)">{shape}</g></g>'
        for end, shape in _MARKS.items()
    )
    return (
        '<svg class="shared" width="0" height="0" aria-hidden="true">'
        f"<defs>{marks}{small}</defs></svg>"
    )


def grid(scale: Scale, flagged: Sequence[Flag]) -> str:
    """The lines of the axis, behind everything."""
    lines = "".join(_upright(scale.at(tick), "t") for tick in scale.ticks() if tick)
    lines += "".join(_upright(flag.place, "o") for flag in flagged)
    later = ""
    if scale.cut_s is not None:
        cut = scale.at(scale.cut_s)
        later = (
            f'<rect class="later" x="{percent(cut)}" y="0" width="{percent(1 - cut)}"'
            f' height="100%"/>{_upright(cut, "c")}'
        )
    return (
        f'<svg class="grid" aria-hidden="true">{later}{lines}{_upright(scale.at(0.0), "s")}</svg>'
    )


def _upright(place: float, kind: str) -> str:
    x = percent(place)
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'


def mark(end: End, x: str, y: float, size: str = "m") -> str:
    """The mark of an end at a place; size `s`: a small one, where there are many."""
    return f'<use href="#{size}-{end.name}" x="{x}" y="{y:g}"/>'


def drawing(height: int, label: str, inside: str) -> str:
    """A drawing as wide as its box.

    Args:
        height: in pixels.
        label: what it shows, for those who do not see it.
        inside: its shapes.
    """
    return (
        f'<svg class="plot" width="100%" height="{height}" role="img"'
        f' aria-label="{escape(label)}">{inside}</svg>'
    )


def axis(scale: Scale, flagged: Sequence[Flag]) -> str:
    """The axis: moments as numbered flags, and seconds below them."""
    high = (max((flag.level for flag in flagged), default=-1) + 1) * _FLAG
    stop = scale.at(0.0)
    levels = high or _FLAG
    said = []
    for flag in flagged:
        y = levels - flag.level * _FLAG - _FLAG / 2
        x = percent(flag.place)
        said.append(
            f'<g class="flag"><title>{escape(told(flag.moment))}</title>'
            f'<circle cx="{x}" cy="{y:g}" r="7.5"/>'
            f'<text x="{x}" y="{y + 3.5:g}">{flag.number}</text></g>'
        )
    base = levels + 15
    ticks = [tick for tick in scale.ticks() if abs(scale.at(tick) - stop) > _NEAR]
    for i, tick in enumerate(ticks):
        side = " last" if scale.at(tick) > 1 - _NEAR else ""
        alternate = " alt" if i % 2 else ""
        said.append(
            f'<text class="tick{side}{alternate}" x="{percent(scale.at(tick))}" y="{base}">'
            f"{_tick(tick)}</text>"
        )
    said.append(f'<text class="tick stop" x="{percent(stop)}" y="{base}">stop</text>')
    return drawing(base + 6, "time in seconds from the stop", "".join(said))


def _tick(at_s: float) -> str:
    sign = MINUS if at_s < 0 else "+"
    return f"{sign}{abs(at_s):g} s"


def told(moment: Moment) -> str:
    """A moment with its time."""
    return f"{when(moment.at_s)}: {clean(moment.what, 300)}"


# -- connections


def connections(group: Group, scale: Scale, label: str) -> str:
    """The rows of one state."""
    lanes = sum(len(line.lanes) for line in group.lines)
    pitch = next(high for most, high in _PITCHES if lanes <= most)
    said, y = [], float(_PAD)
    for line in group.lines:
        said.append(_row(line, scale, y, pitch))
        y += pitch * len(line.lanes)
    return drawing(int(y) + _PAD, label, "".join(said))


def _row(line: Line, scale: Scale, top: float, pitch: int) -> str:
    """One connection: a field to point at, its bars, and on top of them the marks."""
    words = "\n\n".join(about(bar) for bar in line.bars[:8])
    field = f'<rect class="f" x="0" y="{top:g}" width="100%" height="{pitch * len(line.lanes)}"/>'
    shapes, marks = [], []
    for i, lane in enumerate(line.lanes):
        middle = top + pitch * i + pitch / 2
        shapes += [_idle(lane, scale, middle)]
        for bar in lane:
            stretches = "".join(_stretch(s, scale, middle) for s in bar.segments)
            end = mark(bar.end, percent(scale.at(bar.at_s)), middle)
            shapes.append(f'<g class="{bar.tone}">{stretches}</g>')
            marks.append(f'<g class="{bar.tone}">{end}</g>')
    bars = "".join((*shapes, *marks))
    return f'<g class="r"><title>{escape(words)}</title>{field}{bars}</g>'


def _idle(lane: Sequence[Bar], scale: Scale, middle: float) -> str:
    """A thin line where an open connection carried nothing between two attempts."""
    said = ""
    for one, other in pairwise(lane):
        a, b = scale.at(one.at_s), scale.at(other.judged.attempt.attempted_s)
        said += f'<rect class="i" x="{percent(a)}" y="{middle - 0.5:g}" width="{percent(b - a)}"'
        said += ' height="1"/>'
    return said


def _stretch(segment: Segment, scale: Scale, middle: float) -> str:
    a, b = scale.at(segment.from_s), scale.at(segment.to_s)
    if b - a < _UNSEEN:
        return ""
    thick = _THICK[segment.phase]
    return (
        f'<rect class="{_CLASS[segment.phase]}" x="{percent(a)}" y="{middle - thick / 2:g}"'
        f' width="{percent(b - a)}" height="{thick:g}"/>'
    )


def sample(phase: Phase) -> str:
    """A stretch of a phase, for the legend."""
    thick = _THICK[phase]
    place = f'x="1" y="{7 - thick / 2:g}" width="24" height="{thick:g}"'
    return f'<rect class="{_CLASS[phase]}" {place}/>'


def about(bar: Bar) -> str:
    """All that is known of one attempt, in a few lines."""
    attempt = bar.judged.attempt
    fate = f"{bar.judged.fate}" + (f" ({attempt.failure})" if attempt.failure else "")
    lines = [f"#{attempt.id} {attempt.kind}", fate]
    if attempt.status is not None:
        lines[1] += f", status {attempt.status}"
    lines += [f"{word} {when(at)}" for word, at in times(bar)]
    if bar.judged.work is not Work.UNKNOWN:
        lines.append(f"ledger: {bar.judged.work}")
    if attempt.connection:
        lines.append(f"connection {attempt.connection}: {attempt.found} at the stop")
    if attempt.note:
        lines.append(clean(attempt.note, 200))
    return "\n".join(lines)


def times(bar: Bar) -> list[tuple[str, float]]:
    """What happened to an attempt, with when."""
    attempt = bar.judged.attempt
    known = [
        ("begun", attempt.attempted_s),
        ("connected", attempt.connected_s),
        ("first byte sent", attempt.sent_s),
        ("all sent", attempt.sent_all_s),
        ("first byte of the answer", attempt.first_byte_s),
        ("answer whole" if attempt.complete_s is not None else "over", attempt.over_s),
    ]
    return [(word, at) for word, at in known if at is not None]
