"""Where everything lies in time around the stop: what the page and the terminal draw. Pure."""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from lastcall.drill.history import Failure, Kind
from lastcall.drill.judge import BAD, Fate, Work
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.drill.judge import Judged
    from lastcall.drill.result import Look, Result

BIN_S = 0.05
MOST_BINS = 400
MOST_ROWS = 500
_FEWEST_OF_A_KIND = 8
# A connection with more streams than this at once goes on in a further line.
_MOST_LANES = 64
_STRIPS = {Kind.NEWCOMER, Kind.LOAD}
# An axis is cut when its last part would squeeze the rest into less than a third of it.
_SQUEEZED = 3.0
_TAIL = 0.14
_LEAD_S = 1.0
_LEAST_S = 0.2


class Phase(StrEnum):
    """What an attempt was at."""

    CONNECTING = "connecting"
    SILENT = "connected, silent"
    SENDING = "sending"
    WAITING = "waiting"
    RECEIVING = "receiving"


class End(StrEnum):
    """How it ended, as drawn."""

    ANSWERED = "whole answer"
    TURNED_AWAY = "turned away in order"
    REFUSED = "no connection"
    LET_GO = "closed before it sent anything"
    FAILED = "answered with an error"
    RESET = "reset"
    CUT = "cut off"
    HUNG = "no end in time"


class Tone(StrEnum):
    """Whether that was good."""

    GOOD = "good"
    CALM = "calm"
    BAD = "bad"


@record
class Segment:
    """A stretch of time that an attempt spent in one phase."""

    phase: Phase
    from_s: float
    to_s: float


@record
class Bar:
    """One attempt: its stretches, and how it ended."""

    judged: Judged
    segments: tuple[Segment, ...]
    end: End
    tone: Tone

    @property
    def at_s(self) -> float:
        """When it was over."""
        return self.judged.attempt.over_s


@record
class Line:
    """One connection: its attempts in lanes, so that none covers another."""

    connection: int
    lanes: tuple[tuple[Bar, ...], ...]

    @property
    def bars(self) -> tuple[Bar, ...]:
        """All its attempts."""
        return tuple(bar for lane in self.lanes for bar in lane)


@record
class Group:
    """The connections of one state.

    Args:
        kind: the state.
        lines: those that are drawn.
        hidden: how many more there are.
    """

    kind: Kind
    lines: tuple[Line, ...]
    hidden: int = 0


@record
class Bin:
    """The background load that came to its end in a short stretch of time."""

    from_s: float
    to_s: float
    answered: int
    other: int
    bad: int


@record
class Scale:
    """Seconds to a place on the axis, 0 to 1. It may be cut: then a later part is drawn narrower.

    Args:
        points: (seconds, place), rising; straight lines between them.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, at_s: float) -> float:
        """The place of a moment; what lies outside stands at the edge."""
        if at_s <= self.points[0][0]:
            return self.points[0][1]
        for (a_s, a), (b_s, b) in pairwise(self.points):
            if at_s <= b_s:
                return a + (b - a) * (at_s - a_s) / (b_s - a_s)
        return self.points[-1][1]

    @property
    def cut_s(self) -> float | None:
        """Where the narrower part begins; None: there is none."""
        return self.points[1][0] if len(self.points) > 2 else None  # noqa: PLR2004 (two: one line)

    def ticks(self, most: int = 8) -> tuple[float, ...]:
        """Round moments to be marked, at most so many, and the end of a narrower part."""
        (first_s, _), (last_s, _) = self.points[:2]
        step = _round_step((last_s - first_s) / most)
        low, high = math.ceil(first_s / step - 1e-9), math.floor(last_s / step + 1e-9)
        found = [round(i * step, 6) for i in range(low, high + 1)]
        if self.cut_s is not None:
            found.append(math.floor(self.points[-1][0]))
        return tuple(found)


@record
class Timeline:
    """All of it.

    Args:
        scale: the axis.
        groups: connections by state.
        newcomers: in the order in which they came.
        load: the background load.
        looks: at the listening sockets, without repetitions.
        earlier: how many attempts were over before the axis begins.
    """

    scale: Scale
    groups: tuple[Group, ...]
    newcomers: tuple[Bar, ...]
    load: tuple[Bin, ...]
    looks: tuple[Look, ...]
    earlier: int = 0

    @property
    def hidden(self) -> int:
        """How many connections are not drawn."""
        return sum(group.hidden for group in self.groups)

    @property
    def drawn(self) -> int:
        """How many are."""
        return sum(len(group.lines) for group in self.groups)


def timeline(result: Result, most_rows: int = MOST_ROWS) -> Timeline:
    """Lay out a result.

    Args:
        result: of a drill.
        most_rows: connections drawn at most; of each state those that ended worst come first.
    """
    judged = result.judgement.judged
    scale = _scale(result)
    start_s = scale.points[0][0]
    by_kind: dict[Kind, list[Judged]] = {}
    for each in judged:
        by_kind.setdefault(each.attempt.kind, []).append(each)
    grouped = [
        (kind, _lines(by_kind[kind])) for kind in Kind if kind in by_kind and kind not in _STRIPS
    ]
    newcomers = [bar(each) for each in by_kind.get(Kind.NEWCOMER, ())]
    return Timeline(
        scale,
        tuple(_within(grouped, most_rows)),
        tuple(sorted(newcomers, key=lambda b: b.judged.attempt.attempted_s)),
        _bins(by_kind.get(Kind.LOAD, ()), scale),
        _changes(result.aftermath.looks),
        sum(each.attempt.over_s < start_s for each in judged),
    )


def bar(judged: Judged) -> Bar:
    """One attempt, cut into its phases."""
    attempt = judged.attempt
    marks = (
        (Phase.CONNECTING, attempt.attempted_s),
        (Phase.SILENT, attempt.connected_s),
        (Phase.SENDING, attempt.sent_s),
        (Phase.WAITING, attempt.sent_all_s),
        (Phase.RECEIVING, attempt.first_byte_s),
    )
    known = [(phase, at) for phase, at in marks if at is not None]
    segments: list[Segment] = []
    # A later request on an open connection begins when it is attempted, not when that connected.
    at_s = attempt.attempted_s
    for (phase, begun_s), after in zip(known, [*known[1:], None], strict=True):
        to_s = attempt.over_s if after is None else after[1]
        from_s, to_s = max(at_s, begun_s), min(max(at_s, to_s), attempt.over_s)
        if to_s > from_s:
            segments.append(Segment(phase, from_s, to_s))
        at_s = max(at_s, to_s)
    return Bar(judged, tuple(segments), end_of(judged), tone_of(judged))


def end_of(judged: Judged) -> End:
    """How an attempt ended, as it is drawn."""
    failure = judged.attempt.failure
    never = judged.attempt.connected_s is None or failure in {Failure.REFUSED, Failure.UNREACHED}
    match judged.fate:
        case Fate.ACKNOWLEDGED | Fate.UNPROVEN:
            return End.ANSWERED
        case Fate.REFUSED_CLEANLY:
            return End.REFUSED if never else End.TURNED_AWAY
        case Fate.LET_GO:
            return End.LET_GO
        case Fate.HUNG:
            return End.HUNG
        case _ if failure is None:
            return End.FAILED
        case _:
            return End.RESET if failure is Failure.RESET else End.CUT


def tone_of(judged: Judged) -> Tone:
    """Whether an attempt ended well."""
    if judged.fate in BAD or judged.work in {Work.HALF, Work.TWICE}:
        return Tone.BAD
    return Tone.GOOD if judged.fate is Fate.ACKNOWLEDGED else Tone.CALM


# -- the axis


def _scale(result: Result) -> Scale:
    """From a little before the traffic to the last end; cut when that lies far off."""
    attempts = [j.attempt for j in result.judgement.judged]
    states = [a for a in attempts if a.kind not in _STRIPS]
    begun = [a.attempted_s for a in attempts]
    own = [a.attempted_s for a in states]
    ends = sorted(a.over_s for a in attempts if a.failure is not Failure.HUNG)
    last = [a.over_s for a in attempts] + [m.at_s for m in result.moments if m.at_s >= 0]
    start_s = max(min(begun, default=0), min(own, default=0) - _LEAD_S)
    start_s = min(start_s, 0) - _LEAST_S / 2
    most_s = max([*last, _LEAST_S])
    main_s = max((end for end in ends if end > 0), default=0.0)
    typical = [end for end in ends if end > 0]
    if typical:
        main_s = min(main_s, max(4 * typical[len(typical) // 2], 1.0))
    main_s = max(main_s * 1.15, -start_s, _LEAST_S)
    if most_s - start_s <= _SQUEEZED * (main_s - start_s):
        return Scale(((start_s, 0.0), (most_s + _LEAST_S / 4, 1.0)))
    return Scale(((start_s, 0.0), (main_s, 1 - _TAIL), (most_s, 1.0)))


def _round_step(least: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-6)))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least * 0.999)


# -- connections


def _lines(judged: Iterable[Judged]) -> list[Line]:
    """Connections, in the order in which they were begun."""
    shared: dict[tuple[int, int], list[Bar]] = {}
    for each in judged:
        port = each.attempt.connection
        shared.setdefault((port, 0 if port else each.attempt.id), []).append(bar(each))
    lines = [
        Line(port, lanes[i : i + _MOST_LANES])
        for (port, _), lanes in ((key, _lanes(bars)) for key, bars in shared.items())
        for i in range(0, len(lanes), _MOST_LANES)
    ]
    return sorted(lines, key=lambda line: line.bars[0].judged.attempt.attempted_s)


def _lanes(bars: Sequence[Bar]) -> tuple[tuple[Bar, ...], ...]:
    """Bars side by side where they overlap, as the streams of HTTP/2 do."""
    lanes: list[list[Bar]] = []
    for each in sorted(bars, key=lambda b: b.judged.attempt.attempted_s):
        begun_s = each.judged.attempt.attempted_s
        free = next((lane for lane in lanes if lane[-1].at_s <= begun_s), None)
        if free is None:
            lanes.append([each])
        else:
            free.append(each)
    return tuple(tuple(lane) for lane in lanes)


def _within(grouped: Sequence[tuple[Kind, list[Line]]], most: int) -> Iterable[Group]:
    """No more lines than asked for: every state keeps its share, the worst ends first."""
    total = sum(len(line.lanes) for _, lines in grouped for line in lines)
    for kind, lines in grouped:
        own = sum(len(line.lanes) for line in lines)
        room = own if total <= most else max(_FEWEST_OF_A_KIND, own * most // total)
        kept: set[int] = set()
        for i in sorted(range(len(lines)), key=lambda i: (not _bad(lines[i]), i)):
            if kept and len(lines[i].lanes) > room:
                break
            kept.add(i)
            room -= len(lines[i].lanes)
        yield Group(kind, tuple(lines[i] for i in sorted(kept)), len(lines) - len(kept))


def _bad(line: Line) -> bool:
    return any(each.tone is Tone.BAD for each in line.bars)


# -- strips


def _bins(load: Iterable[Judged], scale: Scale) -> tuple[Bin, ...]:
    """The load by when it ended, in equal stretches of time that leave at most `MOST_BINS`."""
    first_s, last_s = scale.points[0][0], scale.points[-1][0]
    width = BIN_S
    while (last_s - first_s) / width > MOST_BINS:
        width *= 2
    counted: dict[int, Counter[Tone]] = {}
    for each in load:
        if each.attempt.over_s >= first_s:
            number = math.floor(each.attempt.over_s / width)
            counted.setdefault(number, Counter())[tone_of(each)] += 1
    return tuple(
        Bin(
            round(n * width, 6),
            round((n + 1) * width, 6),
            tones[Tone.GOOD],
            tones[Tone.CALM],
            tones[Tone.BAD],
        )
        for n, tones in sorted(counted.items())
    )


def _changes(looks: Sequence[Look]) -> tuple[Look, ...]:
    """Looks without those that saw the same as the one before, and the last one."""
    found: list[Look] = []
    for look in looks:
        if not found or _seen(look) != _seen(found[-1]):
            found.append(look)
    if looks and found[-1] is not looks[-1]:
        found.append(looks[-1])
    if len(found) <= MOST_BINS:
        return tuple(found)
    every = math.ceil(len(found) / MOST_BINS)
    parts = [found[i : i + every] for i in range(0, len(found), every)]
    return tuple(max(part, key=lambda look: look.queued) for part in parts)


def _seen(look: Look) -> tuple[int, int]:
    return look.listening, look.queued
