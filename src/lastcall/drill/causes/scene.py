"""What the causes are read from: everything a drill saw, put so that it can be asked. Pure.

Times are seconds from the moment of the stop, as in the history.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from lastcall.drill import known
from lastcall.drill.history import Found, Kind
from lastcall.drill.judge import BAD, NOT_ENDED, Fate, Judged
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.drill.judge import Judgement
    from lastcall.drill.result import Aftermath, Subject
    from lastcall.model import Finding

# What comes to its end within this much of the stop was broken off at once: nothing was waited for.
AT_ONCE_S = 0.3
# Two things this close together happened together: one wake-up of a server's main loop apart.
TOGETHER_S = 0.25
# How far from its limit a server may act, as a part of the limit: it looks now and then.
_OFF = 0.1

HALF_SENT = frozenset(
    {
        Kind.SILENT,
        Kind.HALF_LINE,
        Kind.HALF_HEADERS,
        Kind.HALF_BODY,
        Kind.EXPECT_CONTINUE,
        Kind.TLS_HALF,
    }
)
WORKING = frozenset(
    {
        Kind.IN_HANDLER,
        Kind.LONG_POLL,
        Kind.STREAMING_CHUNKED,
        Kind.STREAMING_LENGTH,
        Kind.EVENTS,
        Kind.HTTP2_STREAM,
    }
)
WEBSOCKET = frozenset({Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO})
# The code of a close frame or of a stream's reset stands in their notes.
_CODED = WEBSOCKET | {Kind.HTTP2_STREAM}
PASSING = frozenset({Kind.NEWCOMER, Kind.LOAD})

# Of Linux on every machine that Python runs on but MIPS, SPARC and Alpha. signal(7).
_NUMBERS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGABRT": 6,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGSEGV": 11,
    "SIGUSR2": 12,
    "SIGTERM": 15,
}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_SIGNAL = re.compile(r"\bSIG[A-Z0-9]+\b")
_AGAIN = re.compile(r"again after ([0-9.]+) s")
_BY_SIGNAL = 128  # what shells and JVMs add to a signal's number to make an exit status


@record
class Told:
    """A cause that was found.

    Args:
        finding: what to say of it.
        explains: the attempts (by id) that need no other explanation.
    """

    finding: Finding
    explains: frozenset[int] = frozenset()


@record
class Scene:
    """Everything a drill saw.

    Args:
        subject: what was drilled, and how it was stopped.
        judgement: what became of every attempt.
        aftermath: what became of the server.
        beforehand: what `lastcall check` said of its processes.
        server: which known server it is.
    """

    subject: Subject
    judgement: Judgement
    aftermath: Aftermath
    beforehand: tuple[Finding, ...]
    server: known.Server

    @property
    def bad(self) -> tuple[Judged, ...]:
        """What was lost, badly refused or left hanging, and not before the stop."""
        return tuple(j for j in self.judgement.judged if j.fate in BAD and j.attempt.over_s > 0)

    @property
    def ended(self) -> bool:
        """Whether it ended in time."""
        return NOT_ENDED not in self.judgement.reasons

    @property
    def rolling(self) -> bool:
        """Whether the stop was to replace it."""
        return self.subject.how.startswith("replaced by")

    @property
    def to_all(self) -> bool:
        """Whether its workers were signalled, too."""
        return "whole process" in self.subject.how

    @property
    def again_s(self) -> float | None:
        """When it was asked a second time; None: once."""
        found = _AGAIN.search(self.subject.how)
        return float(found[1]) if found else None

    @property
    def signal(self) -> str:
        """The signal that stopped it; empty: a command did."""
        if self.subject.how.startswith(("replaced by", "stopped by")):
            return ""
        found = _SIGNAL.search(self.subject.how)
        return found[0] if found else ""

    @property
    def died_of(self) -> int | None:
        """The signal that ended its main process. Source: wait(2), WTERMSIG."""
        status = self.aftermath.status
        return (status & 0x7F) or None if status is not None else None

    @property
    def exit_status(self) -> int | None:
        """The exit status of its main process; None: a signal ended it, or nobody saw."""
        status = self.aftermath.status
        return None if status is None or status & 0x7F else status >> 8

    @property
    def died_of_the_ask(self) -> bool:
        """Whether the very signal ended it."""
        number = _NUMBERS.get(self.signal)
        return number is not None and self.died_of == number

    @property
    def as_asked(self) -> bool:
        """Whether its end is what a stop asks for: exit status 0, or the signal's own."""
        if not self.signal:  # a command stopped it: any usual signal may be behind it
            usual = {_NUMBERS[name] for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM")}
            signalled = self.died_of or (self.exit_status or 0) - _BY_SIGNAL
            return self.exit_status == 0 or signalled in usual
        return self.exit_status == 0 or self.died_of_the_ask or self.left_as_if_killed

    @property
    def left_as_if_killed(self) -> bool:
        """Whether it exited with the status that tells of that signal, as a JVM does (143)."""
        number = _NUMBERS.get(self.signal)
        return number is not None and self.exit_status == _BY_SIGNAL + number

    def before(self, *codes: str) -> tuple[Finding, ...]:
        """What `check` had said under one of these codes."""
        return tuple(f for f in self.beforehand if f.code in codes)

    def answered_after(self, since_s: float) -> tuple[Judged, ...]:
        """Work in hand at the stop that was answered later than this."""
        return tuple(
            j
            for j in self.judgement.judged
            if j.fate is Fate.ACKNOWLEDGED
            and j.attempt.kind in WORKING
            and (j.attempt.complete_s or 0.0) > since_s
        )

    def at_limit(self, judged: Sequence[Judged]) -> list[Judged]:
        """Those that came to their end at the limit that this server is known to have."""
        limit = known.limit(self.server)
        if limit is None:
            return []
        off_s = max(TOGETHER_S, _OFF * limit.after_s)
        return [j for j in judged if abs(j.attempt.over_s - limit.after_s) <= off_s]

    def limit_said(self, judged: Sequence[Judged]) -> tuple[str, ...]:
        """Where that limit is set, as a line of evidence, when anything met it."""
        limit = known.limit(self.server)
        return (limit.said,) if limit is not None and judged else ()

    def advice(self, code: str, otherwise: str) -> str:
        """What to change: of this very server where that is known, or of any."""
        return known.change(self.server, code) or otherwise

    def end(self) -> str:
        """How and when its main process ended, as a line of evidence."""
        at = self.aftermath.ended_s
        if at is None:
            return "its main process was not seen to end"
        if self.died_of is not None:
            how = f"of {_NAMES.get(self.died_of, f'signal {self.died_of}')}"
        elif self.exit_status is not None:
            how = f"with exit status {self.exit_status}"
        else:
            how = "unseen"
        return f"its main process ended {seconds(at)} after the stop, {how}"

    def listener(self) -> tuple[str, ...]:
        """When its port was let go, as a line of evidence."""
        at = self.aftermath.listening_s
        return () if at is None else (f"its port was listened on until {seconds(at)}",)


# -- what is said of attempts


def seconds(at: float) -> str:
    """A time for people: to the millisecond below one second."""
    return f"{at:.3f} s" if abs(at) < 1 else f"{at:.2f} s"


def span(times: Iterable[float]) -> str:
    """From when to when, after the stop."""
    given = tuple(times)
    first, last = seconds(min(given)), seconds(max(given))
    if first == last:
        return f"{first} after the stop"
    return f"{first.removesuffix(' s')} to {last} after the stop"


def ids(judged: Iterable[Judged]) -> frozenset[int]:
    """The attempts' numbers."""
    return frozenset(j.attempt.id for j in judged)


def count(judged: Sequence[object], one: str, more: str = "") -> str:
    """How many of what: `1 request`, `3 requests`."""
    return f"{len(judged)} {one if len(judged) == 1 else more or one + 's'}"


def lines(judged: Iterable[Judged]) -> tuple[str, ...]:
    """One line of evidence for all that came to the same end in the same state."""
    groups: dict[tuple[Kind, str, Found], list[float]] = defaultdict(list)
    for each in judged:
        attempt = each.attempt
        how = f"{attempt.failure}" if attempt.failure else f"answered with {attempt.status}"
        if attempt.note and attempt.kind in _CODED:
            how += f": {attempt.note}"
        groups[attempt.kind, f"{each.fate} ({how})", attempt.found].append(attempt.over_s)
    return tuple(
        f"{len(times)} x {kind}{_where(found)}: {fate}, {span(times)}"
        for (kind, fate, found), times in groups.items()
    )


def _where(found: Found) -> str:
    return "" if found is Found.UNKNOWN else f" (at the stop: {found})"
