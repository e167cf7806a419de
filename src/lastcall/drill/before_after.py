"""The same servers without lastcall and with it, after many stops: one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.drill.compare import COLUMNS, counted, plain_text
from lastcall.drill.history import Kind
from lastcall.drill.judge import Fate
from lastcall.record import record

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from lastcall.drill.endurance import Endured
    from lastcall.drill.tally import Tally

_HUNDRED = 100
_HEAD = (
    "server",
    "stops that lost work, without lastcall",
    "what was lost",
    "with lastcall",
    "what came of the rest",
    "ended after, without",
    "with",
)
_BAD = (Fate.LOST, Fate.REFUSED_BADLY, Fate.HUNG)


@record
class Pair:
    """A server without lastcall and with it. Either may be absent."""

    bare: Endured | None = None
    twin: Endured | None = None

    @property
    def name(self) -> str:
        """Of the server, without what differs."""
        one = self.bare or self.twin
        assert one is not None  # noqa: S101 (made from one of them)
        return one.server.beside or one.server.name


def pairs(rows: Sequence[Endured]) -> list[Pair]:
    """Each server beside its twin, in the order in which they came."""
    bare = {row.server.name: row for row in rows if not row.server.beside}
    twins = {row.server.beside: row for row in rows if row.server.beside}
    return [Pair(bare.get(name), twins.get(name)) for name in dict.fromkeys((*bare, *twins))]


def table(rows: Sequence[Endured]) -> str:
    """Markdown: a line a server, and below it what has to be known of some of them."""
    lines = [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
    for pair in pairs(rows):
        bare, twin = pair.bare, pair.twin
        cells = (
            plain_text(pair.name),
            rate_of(bare),
            plain_text(lost_of(bare.tally)) if bare else "",
            rate_of(twin),
            rest_of(twin.tally) if twin else "",
            end_of(bare.tally) if bare else "",
            end_of(twin.tally) if twin else "",
        )
        lines.append(f"| {' | '.join(cell or '—' for cell in cells)} |")
    return "\n".join([*lines, "", *_notes(rows)])


def rate_of(row: Endured | None) -> str:
    """How many stops lost anything: `0 of 200 (0 to 1.9 %)`."""
    if row is None:
        return ""
    tally = row.tally
    if not tally.stops:
        return f"not drilled: {plain_text(row.missing)}" if row.missing else "not drilled"
    low, high = tally.interval
    said = f"{tally.losing} of {tally.stops} ({percent(low)} to {percent(high)} %)"
    if tally.stops < row.wanted:
        said += f"; {row.wanted} were wanted"
    return f"**{said}**" if row.server.beside and not tally.losing else said


def percent(rate: float) -> str:
    """A rate as a number of percent, with one digit where that matters."""
    number = f"{rate * _HUNDRED:.1f}"
    return number.removesuffix(".0")


def lost_of(tally: Tally) -> str:
    """What was lost, reset or hung, by the columns of the comparison: `WebSocket 40 of 80 lost`."""
    said = []
    for column, kinds in COLUMNS.items():
        found = tally.of(kinds)
        bad = [f"{found[fate]} {fate}" for fate in _BAD if found[fate]]
        if bad:
            said.append(f"{column} {', '.join(bad)} of {found.total()}")
    others = [reason for reason in tally.reasons if _of_the_whole(reason)]
    return "; ".join([*said, *others])


def _of_the_whole(reason: str) -> bool:
    """Whether a reason is about no single state: half executed, left behind, did not end."""
    return not any(reason.startswith(f"{kind}:") for kind in Kind)


def rest_of(tally: Tally) -> str:
    """What came of the attempts that were not lost: `7,800 answered, 400 refused`."""
    found = tally.of(Kind)
    for fate in _BAD:
        del found[fate]  # a Counter does not mind one that is not there
    return counted(found)


def end_of(tally: Tally) -> str:
    """When it ended after the stop: `0.3 s, 0.5 s at most`."""
    ends = tally.end_s
    if ends is None:
        return "not in time" if tally.ends else ""
    missing = sum(tally.ends.values()) - len(tally.ended_s)
    late = f"; {missing} times not in time" if missing else ""
    return f"{ends[0]:.2f} s, {ends[1]:.2f} s at most{late}"


def states_of(tally: Tally) -> dict[str, Counter[Fate]]:
    """The fates by the columns of the comparison, those that were tried."""
    found = {column: tally.of(kinds) for column, kinds in COLUMNS.items()}
    return {column: fates for column, fates in found.items() if fates}


def never_reached(tally: Tally) -> list[Kind]:
    """The states that were reached in no stop."""
    return [kind for kind in Kind if tally.stops and tally.missed.get(kind.key) == tally.stops]


def _notes(rows: Sequence[Endured]) -> list[str]:
    """What a reader has to know of those with lastcall, server by server."""
    lines = []
    for row in rows:
        if row.server.beside and (said := notes_of(row, advice=True)):
            lines += [f"**{plain_text(row.server.name)}** ({plain_text(row.version)})", ""]
            lines += [f"- {label}: {plain_text(text)}" for label, text in said]
            lines.append("")
    return lines


def notes_of(row: Endured, *, advice: bool = False) -> list[tuple[str, str]]:
    """What went wrong and why, what was repeated, and what was never reached, each with its label.

    Args:
        row: a server.
        advice: whether the causes say what to do.
    """
    tally = row.tally
    said = [(_stops(number), reason) for reason, number in tally.reasons.items()]
    for code, (title, what_to_do) in tally.causes.items():
        said.append(("why", f"{title} ({code})" + (f". {what_to_do}" if advice else "")))
    if tally.unsaid:
        lost = f", {tally.unsaid_losing} of which had lost something" if tally.unsaid_losing else ""
        said.append(("repeated", f"{_stops(tally.unsaid)} that proved nothing{lost}"))
    if missed := never_reached(tally):
        said.append(("never reached", ", ".join(kind.key for kind in missed)))
    if row.missing and tally.stops:
        said.append(("not complete", row.missing))
    return said


def _stops(number: int) -> str:
    return f"{number} stop{'' if number == 1 else 's'}"
