"""What is known of one stop: the fold of its events. Pure.

`evolve` never looks at a clock, so a stop that is resumed from its journal is exactly where it was:
there is no other state than the events.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from lastcall.model import (
    Asked,
    Called,
    Consent,
    Consented,
    DeadlineMoved,
    Depth,
    Ended,
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
        return self.may_force(now_s - sum(force_wait_s(r) for r in rungs if forces(r)))


def force_wait_s(rung: Rung) -> float:
    """How long force is given to work."""
    return FORCE_WAIT_S if rung.wait_s is None else rung.wait_s


def forces(rung: Rung) -> bool:
    """Whether it takes work away."""
    return rung.consent is Consent.FORCE


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
    if not any(map(forces, rungs)) and not state.reached(Outcome.DONE, consent=Consent.NONE):
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
