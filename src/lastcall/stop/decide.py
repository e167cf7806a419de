"""The stop algorithm, pure and the same for every kind of target.

    state = fold(evolve, events)          what is known
    action = due(state, now)              what to do next

`evolve` never looks at a clock and `due` never remembers anything, so a stop that is resumed from
its journal goes on exactly where it was: there is no other state than the events.

The way of a stop: climb the soft rungs one after the other, look now and then at what holds the
target up, and at the deadline look once more, then force (with a valid consent) or leave.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

from lastcall.model import (
    Asked,
    Called,
    Cause,
    Consent,
    Consented,
    DeadlineMoved,
    Depth,
    Ended,
    Ending,
    Event,
    Finding,
    Finished,
    ForceConsent,
    Intended,
    Looked,
    LookStarted,
    Missing,
    Outcome,
    Progressed,
    Reached,
    Released,
    Resumed,
    Rung,
    Served,
    Stage,
    Started,
    Warned,
    Why,
)
from lastcall.record import record
from lastcall.stop.policy import CONSENT_MARGIN_S

if TYPE_CHECKING:
    from collections.abc import Iterable

# When to look at what holds the target up: seconds after the first ask, and how closely.
# The deadline brings one more close look of its own, before anything is forced.
LOOKS: tuple[tuple[float, Depth], ...] = (
    (1.0, Depth.QUICK),
    (5.0, Depth.DEEP),
    (30.0, Depth.DEEP),
    (120.0, Depth.DEEP),
    (600.0, Depth.DEEP),
)
FORCE_WAIT_S = 10.0
# An ask that never came through is tried again after so long, and so much longer each time.
RETRY_S = 5.0
_NOT_DONE = frozenset({Outcome.FAILED, Outcome.NOT_PERMITTED})


@record
class Attempt:
    """One go at one rung. `outcome` None means intended, and not known to have happened."""

    rung: int
    number: int
    at_s: float
    outcome: Outcome | None = None
    in_doubt: bool = False


@record
class State:
    """All that is known about one stop."""

    ladder: tuple[Rung, ...] = ()
    started_s: float = 0.0
    grace_s: float = 0.0
    deadline_s: float = 0.0
    ceiling_s: float = 0.0
    consent: ForceConsent | None = None
    attempts: tuple[Attempt, ...] = ()
    served: frozenset[str] = frozenset()
    ask_again: bool = False
    called: tuple[int, ...] = ()
    stage: Stage | None = None
    looks: int = 0
    looking: Depth | None = None
    looked_for_deadline_s: float | None = None
    holdups: tuple[Finding, ...] = ()
    ended: Ended | Missing | None = None
    unrecorded: bool = False
    finished: Finished | None = None

    @property
    def last(self) -> Attempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def climbed(self) -> Attempt | None:
        """The latest attempt at a rung of the way up, not at one the target called for."""
        steps = (a for a in reversed(self.attempts) if not self.ladder[a.rung].on_call)
        return next(steps, None)

    @property
    def asked(self) -> bool:
        """Whether any ask of the way up came through."""
        soft = (a for a in self.attempts if self.ladder[a.rung].consent is Consent.NONE)
        return any(a.outcome is Outcome.DONE and not self.ladder[a.rung].on_call for a in soft)

    def reached(self, *outcomes: Outcome | None, consent: Consent) -> bool:
        """Whether any attempt at a rung of that consent came out so."""
        return any(
            a.outcome in outcomes and self.ladder[a.rung].consent is consent for a in self.attempts
        )

    def may_force(self, now_s: float) -> bool:
        """Whether a consent to force is there and has not expired."""
        if self.consent is None or (self.unrecorded and not self.consent.unrecorded):
            return False
        until_s = self.consent.until_s
        return now_s <= (self.deadline_s + CONSENT_MARGIN_S if until_s is None else until_s)

    def may_force_harder(self, now_s: float) -> bool:
        """Whether a force that was begun with consent may go on to its next rung."""
        rungs = [self.ladder[attempt.rung] for attempt in self.attempts]
        return self.may_force(now_s - sum(force_wait_s(r) for r in rungs if _forces(r)))


def force_wait_s(rung: Rung) -> float:
    """How long force is given to work."""
    return FORCE_WAIT_S if rung.wait_s is None else rung.wait_s


def _forces(rung: Rung) -> bool:
    return rung.consent is Consent.FORCE


@record
class Carry:
    """Carry out a rung: write the intent, do it, write what came of it."""

    rung: int
    attempt: int


@record
class Look:
    """Look at what holds the target up, without standing still meanwhile."""

    depth: Depth
    at_deadline_s: float | None = None


@record
class Wait:
    """Nothing to do before this moment (boot-time clock) unless an event comes."""

    until_s: float


@record
class Finish:
    """The stop is over: write the ending."""

    result: Finished


Action: TypeAlias = Carry | Look | Wait | Finish


def fold(events: Iterable[tuple[float, Event]]) -> State:
    """The state after these (time, event) pairs."""
    return reduce(lambda state, pair: evolve(state, pair[1], pair[0]), events, State())


def evolve(state: State, event: Event, at_s: float) -> State:  # noqa: C901, PLR0912 (one arm an event)
    """The state after one more event that happened at `at_s` (boot-time clock)."""
    match event:
        case Started():
            return replace(
                state,
                ladder=event.ladder,
                started_s=at_s,
                grace_s=event.deadline_s - at_s,
                deadline_s=event.deadline_s,
                ceiling_s=event.ceiling_s,
                consent=event.consent,
            )
        case Intended(rung, number):
            attempt = Attempt(rung, number, at_s)
            called = tuple(index for index in state.called if index != rung)
            return replace(
                state, attempts=(*state.attempts, attempt), ask_again=False, called=called
            )
        case Asked(outcome=outcome):
            stage = Stage.ASKED if outcome is Outcome.DONE and state.stage is None else state.stage
            return replace(_resolve_last(state, outcome=outcome, at_s=at_s), stage=stage)
        case Served(audience):
            return replace(state, served=state.served | {audience})
        case Reached(stage):
            return replace(state, stage=stage)
        case Progressed(more_s):
            wanted_s = min(at_s + more_s, state.ceiling_s)
            return replace(state, deadline_s=max(state.deadline_s, wanted_s))
        case Called(rung_id):
            asked_for = tuple(i for i, rung in enumerate(state.ladder) if rung.id == rung_id)
            return replace(state, called=tuple(dict.fromkeys((*state.called, *asked_for))))
        case LookStarted(depth, None):
            since_s = at_s - state.attempts[0].at_s if state.attempts else 0.0
            past = sum(after_s <= since_s for after_s, _ in LOOKS)  # those that were slept through
            return replace(state, looking=depth, looks=max(state.looks + 1, past))
        case LookStarted(depth, deadline_s):
            return replace(state, looking=depth, looked_for_deadline_s=deadline_s)
        case Looked(findings=findings):
            return replace(state, looking=None, holdups=findings)
        case Consented(consent):
            return replace(state, consent=consent)
        case DeadlineMoved(deadline_s, ceiling_s=ceiling_s):
            ceilings = (state.ceiling_s, deadline_s, ceiling_s or 0.0)
            return replace(state, deadline_s=deadline_s, ceiling_s=max(ceilings))
        case Ended() | Missing():
            return state if state.ended else replace(state, ended=event, stage=Stage.ENDED)
        case Resumed(ask_again=ask_again, other_clock=other_clock):
            known = _at_this_clock(state, at_s) if other_clock else state
            return _resumed(known, at_s, ask_again=ask_again)
        case Released():
            return replace(state, looking=None)
        case Warned(finding):
            return replace(
                state, unrecorded=state.unrecorded or finding.code.startswith("journal-")
            )
        case Finished():
            return replace(state, finished=event)


def _at_this_clock(state: State, at_s: float) -> State:
    """After a reboot of this machine: what was agreed is over, and it has its whole grace anew."""
    return replace(
        state,
        consent=None,
        deadline_s=at_s + state.grace_s,
        ceiling_s=at_s + max(state.ceiling_s - state.started_s, state.grace_s),
        started_s=at_s,
        attempts=tuple(replace(attempt, at_s=at_s) for attempt in state.attempts),
        looked_for_deadline_s=None,
    )


def _resumed(state: State, at_s: float, *, ask_again: bool) -> State:
    """Another owner: what was under way is in doubt, and consent does not grow older than it was.

    A target that was never surely asked gets its whole grace anew: it must not be forced because
    lastcall died before it could ask.
    """
    deadline_s = state.deadline_s
    consent = state.consent
    if consent is not None:
        # A consent outlives its command line only in the journal, and not beyond its expiry.
        until_s = deadline_s + CONSENT_MARGIN_S if consent.until_s is None else consent.until_s
        consent = replace(consent, unrecorded=False, until_s=until_s)
    rungs = [state.ladder[attempt.rung] for attempt in state.attempts]
    if not any(map(_forces, rungs)) and not state.reached(Outcome.DONE, consent=Consent.NONE):
        deadline_s = max(deadline_s, at_s + state.grace_s)
    return replace(
        _resolve_last(state, in_doubt=True),
        looking=None,
        ask_again=ask_again,
        called=(),  # what called for it may be long past: the target sees for itself again
        consent=consent,
        deadline_s=deadline_s,
        ceiling_s=max(state.ceiling_s, deadline_s),
    )


def _resolve_last(
    state: State, *, outcome: Outcome | None = None, in_doubt: bool = False, at_s: float = 0.0
) -> State:
    last = state.last
    if last is None or last.outcome is not None:
        return state
    resolved = replace(
        last, outcome=outcome, in_doubt=in_doubt, at_s=last.at_s if in_doubt else at_s
    )
    return replace(state, attempts=(*state.attempts[:-1], resolved))


def due(state: State, now_s: float) -> Action:
    """What to do next at `now_s` (boot-time clock)."""
    if state.finished is not None:
        return Finish(state.finished)
    if state.ended is not None:
        return Finish(judge(state))
    last, climbed = state.last, state.climbed
    if last is None or climbed is None:
        return Carry(0, 1)
    if climbed.outcome is Outcome.NOT_PERMITTED and not state.asked:
        return _still_running(state, Why.NOT_PERMITTED)
    if _forces(state.ladder[last.rung]):
        return _after_force(state, last, now_s)
    # What is off already may be cleared away at any time; nothing else is asked for too late.
    if state.called and (now_s < state.deadline_s or state.stage is Stage.POWERED_OFF):
        return _carry(state, state.called[0])
    if now_s >= state.deadline_s:
        if state.stage is Stage.POWERED_OFF and now_s < (over_s := _cleared_away_s(state, last)):
            return Wait(over_s)
        return _at_deadline(state, climbed, now_s)
    if last.in_doubt and state.ladder[last.rung].repeatable:
        return _carry(state, last.rung)
    return _after_ask(state, climbed, now_s)


def _cleared_away_s(state: State, last: Attempt) -> float:
    """Until when one that is off is waited for: it lost nothing more, and must not be forced."""
    finishing = state.ladder[last.rung].on_call
    return (max(state.deadline_s, last.at_s) if finishing else state.deadline_s) + FORCE_WAIT_S


def _carry(state: State, rung: int) -> Carry:
    return Carry(rung, 1 + sum(attempt.rung == rung for attempt in state.attempts))


def _after_ask(state: State, climbed: Attempt, now_s: float) -> Action:
    """A soft rung was carried out: wait, look, repeat it as the caller wishes, or climb."""
    rung = state.ladder[climbed.rung]
    if state.ask_again:
        return _carry(state, climbed.rung)
    higher = _next_rung(state, climbed.rung, Consent.NONE)
    failed = climbed.outcome in _NOT_DONE
    over_s = climbed.at_s + rung.wait_s if rung.wait_s is not None else None
    until_s = state.deadline_s
    if higher is not None:
        if failed or rung.audience in state.served or (over_s is not None and now_s >= over_s):
            return _carry(state, higher)
    elif failed and not state.asked:
        if not state.may_force(state.deadline_s):
            return _unasked(state, now_s)
        again_s = _tried_again_s(state, climbed)
        if now_s >= again_s:
            return _carry(state, 0)
        until_s = min(until_s, again_s)
    if higher is not None and over_s is not None:
        until_s = min(until_s, over_s)
    if state.looking is None and state.looks < len(LOOKS):
        first_s, left = state.attempts[0].at_s, LOOKS[state.looks :]
        due_now = [depth for after_s, depth in left if now_s >= first_s + after_s]
        if due_now:
            return Look(due_now[-1])
        until_s = min(until_s, first_s + left[0][0])
    return Wait(until_s)


def _tried_again_s(state: State, climbed: Attempt) -> float:
    """When an ask that never came through is tried again: nobody is forced for want of a moment."""
    sure = all(attempt.outcome in _NOT_DONE for attempt in state.attempts)
    return climbed.at_s + RETRY_S * climbed.number if sure else state.deadline_s


def _unasked(state: State, now_s: float) -> Action:
    """No ask came through, and nothing else may be done: look at why, and leave."""
    if state.looking is None and state.looks:
        return _still_running(state, Why.ASK_FAILED)
    return Look(Depth.DEEP) if state.looking is None else Wait(now_s + FORCE_WAIT_S)


def _at_deadline(state: State, last: Attempt, now_s: float) -> Action:
    """The grace has run out: look closely once, then force or leave."""
    look_over_s = state.deadline_s + FORCE_WAIT_S  # among very many a look has to wait its turn
    if state.looking is not None and now_s < look_over_s:
        return Wait(look_over_s)
    if state.looked_for_deadline_s != state.deadline_s:
        return Look(Depth.DEEP, state.deadline_s)
    force = _next_rung(state, last.rung, Consent.FORCE)
    if force is not None and state.may_force(now_s):
        return Carry(force, 1)
    if state.consent is None:
        return _still_running(state, Why.DEADLINE)
    unrecorded = state.unrecorded and not state.consent.unrecorded
    return _still_running(state, Why.UNRECORDED if unrecorded else Why.NO_CONSENT)


def _after_force(state: State, last: Attempt, now_s: float) -> Action:
    """Force was used or intended: see whether it worked, never twice on a mere guess."""
    if now_s < state.deadline_s:  # a later stop of it brought a grace of its own
        return Wait(state.deadline_s)
    if last.in_doubt:
        # A probe has just shown the same identity alive, or this would be an ending.
        if state.may_force(now_s):
            return Carry(last.rung, last.number + 1)
        return _still_running(state, Why.NO_CONSENT)
    over_s = last.at_s + force_wait_s(state.ladder[last.rung])
    if now_s < over_s and last.outcome not in _NOT_DONE:
        return Wait(over_s)
    harder = _next_rung(state, last.rung, Consent.FORCE)
    if harder is not None and state.may_force_harder(now_s):
        return Carry(harder, 1)
    denied = last.outcome is Outcome.NOT_PERMITTED
    return _still_running(state, Why.NOT_PERMITTED if denied else Why.FORCE_FAILED)


def _next_rung(state: State, after: int, consent: Consent) -> int | None:
    for index in range(after + 1, len(state.ladder)):
        rung = state.ladder[index]
        if rung.consent is consent and not rung.on_call and rung.audience not in state.served:
            return index
    return None


def _still_running(state: State, why: Why) -> Finish:
    return Finish(Finished(Ending.STILL_RUNNING, why, why.value, state.holdups))


def judge(state: State) -> Finished:
    """The ending of a target that is gone. Force is never called orderly."""
    if isinstance(state.ended, Missing):
        detail = state.ended.detail
        if state.reached(Outcome.DONE, None, consent=Consent.FORCE):
            detail += "; force had been used or was about to be: count its work as lost"
        return Finished(Ending.UNKNOWN, Why.UNSEEN, detail, state.holdups)
    if state.ended is None:
        raise ValueError("a target that has not ended cannot be judged")
    asked = state.reached(Outcome.DONE, None, consent=Consent.NONE)
    forced = state.reached(Outcome.DONE, consent=Consent.FORCE)
    # One that came to nothing may have been carried out late: nobody else is blamed for it.
    in_doubt = state.reached(None, Outcome.FAILED, consent=Consent.FORCE)
    cause, detail = state.ended.cause, state.ended.detail
    if cause is Cause.REBOOTED and asked and (state.ended.runs or not forced):
        ending = Ending.REBOOTED  # it runs: whatever was tried, nothing was taken away
    elif forced:
        ending = Ending.FORCED
        if cause not in {Cause.TAKEN_AWAY, Cause.UNKNOWN, Cause.UNHANDLED}:
            detail += " while the force came: counted as forced"
    elif in_doubt and cause is Cause.TAKEN_AWAY:
        ending = Ending.FORCED
        detail += "; whether by this force is in doubt"
    else:
        ending = _unforced_ending(cause, asked=asked)
    holdups = state.holdups if ending is not Ending.ORDERLY else ()
    return Finished(ending, Why.ENDED, detail, holdups)


def _unforced_ending(cause: Cause, *, asked: bool) -> Ending:
    if cause is Cause.UNKNOWN:
        return Ending.UNKNOWN
    if cause is Cause.TAKEN_AWAY:
        return Ending.KILLED_OUTSIDE
    if not asked:
        return Ending.ENDED_BEFORE
    return {
        Cause.BY_ITSELF: Ending.ORDERLY,
        Cause.UNHANDLED: Ending.ABRUPT,
        Cause.FAILED: Ending.CRASHED,
        Cause.CUT_OFF: Ending.CUT_OFF,
        Cause.HIBERNATED: Ending.HIBERNATED,
        Cause.REBOOTED: Ending.REBOOTED,
        Cause.PANICKED: Ending.PANICKED,
    }[cause]
