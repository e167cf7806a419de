"""What a stop lost: the history and the server's own ledger, judged. Pure.

Words: an attempt is *acknowledged* when a whole answer came; *lost* when at least one byte of it
was sent and no whole answer came; *refused cleanly* when there was no connection, or a whole 503
(safe to try elsewhere); *refused badly* when it was connected, nothing was sent, and it was reset;
*let go* when it was closed in order before anything was sent; *hung* when it had no end in time;
*not proved* when its answer was ended by nothing but the end of the connection, after the stop, or
by our patience with an endless one: whole or cut, nobody can tell.

A server that did not reach the states that were to be tested, or was never ready, proves nothing:
that is *inconclusive*, never a pass.

Source of the words attempted, acknowledged, lost, duplicated: Jepsen (jepsen.io/consistency).
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.drill.history import Attempt, Failure, Kind
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_UNAVAILABLE, _SERVER_ERROR = 503, 500
_CLEAN = {Failure.REFUSED, Failure.UNREACHED, Failure.TURNED_AWAY}
# What may happen to newcomers while a server stops says nothing of the work that it had taken.
_NOT_IN_HAND = {Kind.NEWCOMER, Kind.LOAD}


class Fate(StrEnum):
    """What became of an attempt, as its client saw it."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED_CLEANLY = "refused cleanly"
    LET_GO = "let go"
    REFUSED_BADLY = "refused badly"
    LOST = "lost"
    HUNG = "hung"
    UNPROVEN = "not proved"


# Beyond this it is not known what came before the stop and what after it.
CLOCK_LIMIT_S = 0.1
_EFFECT_S = 0.1
_MOST_UNTRIED = 0.1

BAD = frozenset({Fate.REFUSED_BADLY, Fate.LOST, Fate.HUNG})
# A reason that others look for.
NOT_ENDED = "it did not end in time"


class Work(StrEnum):
    """What the server did for an attempt, as its own ledger says."""

    UNKNOWN = "unknown"
    NEVER_STARTED = "never started"
    HALF = "half executed"
    EXECUTED = "executed"
    TWICE = "executed twice"


class Verdict(StrEnum):
    """What a drill says of a server."""

    KEEPS = "keeps its word"
    LOSES = "loses work"
    INCONCLUSIVE = "inconclusive"


# They stand for a request in the handler: as far as the server let it come.
_BUSY = {Kind.IN_HANDLER, Kind.UNREAD, Kind.LONG_POLL, Kind.SENT}
_NOTHING_DONE = {Fate.REFUSED_CLEANLY, Fate.LET_GO}
_SOMETHING_DONE = {Work.HALF, Work.EXECUTED, Work.TWICE}


@record
class Deed:
    """One line of the server's ledger.

    Args:
        key: of the attempt.
        step: `begun`, `paid` or `ordered`: a payment is taken first, its order made last.
    """

    key: str
    step: str


@record
class Circumstances:
    """What else a judgement rests on.

    Args:
        ready: whether the server got ready to serve.
        stopped: whether the stop was sent while it served.
        ended: whether it ended in time after that.
        replaced: whether the stop was to replace it, so that newcomers must not be refused.
        effect_s: when a stop command showed its effect, in seconds after it was begun; None: not
            known, or a signal was sent.
        untried: newcomers that were due and not tried, as this machine was not in time for them.
        idle: why the stop itself did nothing: its command failed, or nothing was replaced.
        left: its processes that still ran when everything was over.
        clock_error_s: how far the times around the stop may be off.
        wanted: the states that were to be tested.
    """

    ready: bool = True
    stopped: bool = True
    ended: bool = True
    replaced: bool = False
    effect_s: float | None = None
    untried: int = 0
    idle: str = ""
    left: tuple[str, ...] = ()
    clock_error_s: float = 0.0
    wanted: tuple[Kind, ...] = ()


@record
class Judged:
    """One attempt with its fate."""

    attempt: Attempt
    fate: Fate
    work: Work


@record
class Judgement:
    """What the whole drill says.

    Args:
        verdict: in one word.
        reasons: why, most serious first.
        judged: every attempt, in order.
        not_reached: the states that were to be tested and were not proved to be reached.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    judged: tuple[Judged, ...]
    not_reached: tuple[Kind, ...] = ()

    def count(self, fate: Fate, kind: Kind | None = None) -> int:
        """How many came to this fate, of one kind or of all."""
        return sum(j.fate is fate and kind in {None, j.attempt.kind} for j in self.judged)


def fate(attempt: Attempt) -> Fate:
    """What became of one attempt."""
    if attempt.complete_s is not None and attempt.status is not None:
        if attempt.status == _UNAVAILABLE:
            return Fate.REFUSED_CLEANLY
        if attempt.status >= _SERVER_ERROR:
            return Fate.LOST
        after = attempt.over_s > 0
        return Fate.UNPROVEN if attempt.unframed and after else Fate.ACKNOWLEDGED
    if attempt.connected_s is None or attempt.failure in _CLEAN:
        return Fate.REFUSED_CLEANLY
    if attempt.failure is Failure.HUNG:
        return Fate.HUNG
    if attempt.failure is Failure.TOO_LONG:
        return Fate.UNPROVEN
    if attempt.sent_s is not None:
        return Fate.LOST
    return Fate.LET_GO if attempt.failure is Failure.CLOSED else Fate.REFUSED_BADLY


def work(key: str, ledger: Mapping[str, Counter[str]] | None) -> Work:
    """What the server did for an attempt.

    Args:
        key: that it carried; empty: none, so that nothing can be known.
        ledger: None: it keeps none.
    """
    if ledger is None or not key:
        return Work.UNKNOWN
    steps = ledger.get(key)
    if steps is None:
        return Work.NEVER_STARTED
    if max(steps["paid"], steps["ordered"]) > 1:
        return Work.TWICE
    if steps["paid"] != steps["ordered"]:
        return Work.HALF
    return Work.EXECUTED if steps["ordered"] else Work.NEVER_STARTED


def judge(
    attempts: Sequence[Attempt], deeds: Iterable[Deed] | None, around: Circumstances
) -> Judgement:
    """The judgement over a whole drill.

    Args:
        attempts: the history.
        deeds: the server's ledger; None when it keeps none.
        around: what else it rests on.
    """
    ledger = None if deeds is None else _by_key(deeds)
    ours = sum(a.failure is Failure.OURS for a in attempts)
    made = (a for a in attempts if a.failure is not Failure.OURS)
    everything = tuple(_judged(a, work(a.key, ledger)) for a in made)
    # What was not in its state tells nothing of that state; but what is lost is lost in any.
    judged = tuple(j for j in everything if j.attempt.reached or _lost_after(j))
    reached = {a.kind for a in attempts if a.reached}
    asked = (*around.wanted, *(a.kind for a in attempts if not a.reached))
    not_reached = tuple(kind for kind in dict.fromkeys(asked) if kind not in reached)
    bad = _faults(judged, around)
    missing = tuple(_missing(everything, not_reached))
    unsure = _doubts(everything, around)
    if ours:
        unsure.append(f"this machine ran out of files or ports: {ours} attempts were not made")
    if not bad:
        unsure += _unproved(judged, around, in_handler=bool(reached & _BUSY))
    if unsure:
        return Judgement(Verdict.INCONCLUSIVE, (*unsure, *bad, *missing), judged, not_reached)
    verdict = Verdict.LOSES if bad else Verdict.KEEPS
    return Judgement(verdict, (*bad, *missing), judged, not_reached)


def _unproved(judged: Sequence[Judged], around: Circumstances, *, in_handler: bool) -> list[str]:
    """Why a drill that lost nothing proves nothing all the same."""
    said = []
    if Kind.IN_HANDLER in around.wanted and not in_handler:
        said.append("no request was in the handler when the stop came")
    held = [j for j in judged if j.attempt.kind not in _NOT_IN_HAND]
    if unproven := sum(j.fate is Fate.UNPROVEN for j in held):
        said.append(
            f"{unproven} answers ended with their connection, or had no end: whole or cut, nobody"
            " can tell (no Content-Length, not chunked)"
        )
    if around.effect_s is not None and not any(
        j.attempt.over_s >= around.effect_s - _EFFECT_S and _in_hand(j.attempt) for j in held
    ):
        said.append(
            f"the stop command took effect after {around.effect_s:.1f} s, when nothing that was in"
            " flight at its start was in flight any more"
        )
    return said


def _missing(everything: Sequence[Judged], not_reached: Sequence[Kind]) -> list[str]:
    """What was not tested, and what is known of why."""
    said = []
    early = [j.attempt for j in everything if not j.attempt.reached and j.attempt.over_s <= 0]
    for kind in dict.fromkeys((*not_reached, *(a.kind for a in early))):
        mine = [a for a in early if a.kind is kind]
        why = f"not reached, so not tested: {kind}" if kind in not_reached else f"{kind}:"
        if mine:
            took_s = max(a.over_s - a.attempted_s for a in mine)
            how = f"answered with {mine[-1].status}" if mine[-1].status else "over"
            many = "" if kind in not_reached else f" {len(mine)} not tested,"
            why += f"{many} {how} before the stop came, within {took_s:.2g} s"
        said.append(why)
    return said


def _judged(attempt: Attempt, done: Work) -> Judged:
    """An attempt with its fate; what was turned away and executed all the same was not refused."""
    came_to = fate(attempt)
    if came_to in _NOTHING_DONE and done in _SOMETHING_DONE:
        came_to = Fate.LOST
    if came_to is Fate.HUNG and done is Work.HALF:
        done = Work.UNKNOWN  # it may have been in the middle of it until we ended it
    return Judged(attempt, came_to, done)


def _lost_after(judged: Judged) -> bool:
    return judged.fate in BAD and judged.attempt.over_s > 0


def _by_key(deeds: Iterable[Deed]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for deed in deeds:
        found.setdefault(deed.key, Counter())[deed.step] += 1
    return found


def _doubts(judged: Sequence[Judged], around: Circumstances) -> list[str]:
    """Why the drill proves nothing."""
    if not around.ready:
        return ["the server never got ready"]
    if not around.stopped:
        return ["the server was gone before it was stopped"]
    if around.idle:
        return [around.idle]
    if not any(j.attempt.reached and _in_hand(j.attempt) for j in judged):
        return ["nothing was in flight when the stop came"]
    said = []
    if early := sum(j.fate in BAD and j.attempt.over_s <= 0 for j in judged):
        many = "1 attempt" if early == 1 else f"{early} attempts"
        said.append(f"{many} had failed before the stop came: it does not serve soundly")
    newcomers = sum(j.attempt.kind is Kind.NEWCOMER for j in judged)
    if around.untried > _MOST_UNTRIED * (newcomers + around.untried):
        said.append(f"the machine was too slow: {around.untried} newcomers were due and not tried")
    if around.clock_error_s > CLOCK_LIMIT_S:
        off_ms = around.clock_error_s * 1000
        said.append(f"the machine was too slow: times may be off by {off_ms:.0f} ms")
    return said


def _in_hand(attempt: Attempt) -> bool:
    """Whether the server had it in hand when the stop came (time 0)."""
    if attempt.connected_s is None or attempt.connected_s > 0:
        return False
    return attempt.kind not in _NOT_IN_HAND or (
        attempt.sent_s is not None and attempt.sent_s <= 0 < attempt.over_s
    )


def _faults(judged: Sequence[Judged], around: Circumstances) -> list[str]:
    """What it did wrong, in words, most serious first."""
    half = sum(j.work is Work.HALF for j in judged)
    twice = sum(j.work is Work.TWICE for j in judged)
    lost: Counter[tuple[Kind, str]] = Counter()
    for each in judged:
        if _lost_after(each) or (around.replaced and _sent_away(each)):
            lost[each.attempt.kind, _ending(each)] += 1
    said = [f"{half} half executed: paid, and no order made"] if half else []
    said += [f"{twice} executed twice"] if twice else []
    said += [f"{count} x {kind}: {how}" for (kind, how), count in lost.most_common()]
    if around.left and not around.replaced:
        said.append(f"left behind: {', '.join(around.left)}")
    said += [] if around.ended else [NOT_ENDED]
    return said


def _sent_away(judged: Judged) -> bool:
    """Whether a newcomer found no service: that is allowed only where nothing takes over."""
    return judged.fate is Fate.REFUSED_CLEANLY and judged.attempt.kind in _NOT_IN_HAND


def _ending(judged: Judged) -> str:
    """The fate with how it came, and what the server had done by then."""
    attempt = judged.attempt
    how = f"{judged.fate}"
    if attempt.failure is not None:
        how += f" ({attempt.failure})"
    elif attempt.status is not None:
        how += f" (answered with {attempt.status})"
    if judged.fate is Fate.LOST and judged.work not in {Work.UNKNOWN, Work.HALF, Work.TWICE}:
        how += f", {judged.work}"
    return how
