"""The stop algorithm, pure and the same for every kind of target.

    state = fold(evolve, events)          what is known
    action = due(state, now)              what to do next

`evolve` never looks at a clock and `due` never remembers anything, so a stop that is resumed from
its journal goes on exactly where it was: there is no other state than the events.

The way of a stop: climb the soft rungs one after the other, look now and then at what holds the
target up, and at the deadline look once more, then force (with a valid consent) or leave.
"""

from __future__ import annotations

from typing import TypeAlias

from lastcall.model import (
    Cause,
    Consent,
    Depth,
    Ending,
    Finished,
    Missing,
    Outcome,
    Stage,
    Why,
)
from lastcall.record import record
from lastcall.stop.state import (
    FORCE_WAIT_S,
    LOOKS,
    Attempt,
    State,
    force_wait_s,
    forces,
)

# An ask that never came through is tried again after so long, and so much longer each time.
RETRY_S = 5.0
_NOT_DONE = frozenset({Outcome.FAILED, Outcome.NOT_PERMITTED})


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
    if forces(state.ladder[last.rung]):
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
