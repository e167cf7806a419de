"""Properties of the decision over random worlds, crashes included."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.journal import codec
from lastcall.model import (
    Asked,
    Cause,
    Consent,
    Consented,
    DeadlineMoved,
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
    Resumed,
    Rung,
    Served,
    Started,
    Warned,
)
from lastcall.stop.decide import Carry, Finish, Look, Wait, due
from lastcall.stop.policy import CONSENT_MARGIN_S
from lastcall.stop.state import State, evolve, fold, force_wait_s

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

times = st.floats(0, 60, allow_nan=False, width=32)
soft = st.builds(
    Rung,
    st.just("ask"),
    st.just("ask"),
    wait_s=st.none() | times,
    repeatable=st.booleans(),
    audience=st.sampled_from(["", "root", "rest"]),
)
hard = st.builds(
    Rung, st.just("kill"), st.just("kill"), wait_s=times, consent=st.just(Consent.FORCE)
)
consents = st.none() | st.builds(
    ForceConsent, st.just("may"), st.just("me"), until_s=st.none() | times, unrecorded=st.booleans()
)
outcomes = st.sampled_from(list(Outcome))
endings: SearchStrategy[Event] = st.one_of(
    st.builds(Ended, st.sampled_from(list(Cause)), st.just("so")), st.just(Missing("gone"))
)
news: SearchStrategy[Event] = st.one_of(
    endings,
    st.builds(Progressed, times, st.just("busy")),
    st.builds(Consented, consents),
    st.builds(DeadlineMoved, times, st.just("me")),
    st.builds(Served, st.sampled_from(["root", "rest"])),
    st.just(Warned(Finding("journal-unusable", "full"))),
)


@dataclass
class World:
    """Plays the runner: carries out what is due, with surprises and crashes between."""

    draw: st.DrawFn
    history: list[tuple[float, Event]] = field(default_factory=list)
    state: State = field(default_factory=State)
    now_s: float = 0.0

    def tell(self, event: Event) -> None:
        """It happened now."""
        self.history.append((self.now_s, event))
        self.state = evolve(self.state, event, self.now_s)

    def crash(self) -> None:
        """The owner dies; another resumes from the journal alone."""
        self.state = fold(self.history)
        again, other_clock = self.draw(st.booleans()), self.draw(st.integers(0, 5)) == 0
        if other_clock:
            self.now_s = self.draw(times)
        self.tell(Resumed("other", again, other_clock))

    def step(self) -> bool:
        """One action of the runner; False when the stop is over."""
        match due(self.state, self.now_s):
            case Finish(result):
                self.tell(result)
                return False
            case Wait(until_s):
                assert until_s < float("inf"), "a wait must end"
                surprised = self.draw(st.booleans())
                self.now_s = max(self.now_s, self.draw(times) if surprised else until_s)
                if surprised:
                    self.tell(self.draw(news))
            case Look(depth, at_deadline_s):
                self.tell(LookStarted(depth, at_deadline_s))
                self.now_s += self.draw(st.floats(0, 5, width=32))
                if self.draw(st.integers(0, 3)) == 0:
                    self.crash()
                else:
                    self.tell(Looked(depth, ()))
            case Carry(rung, attempt):
                self.check_force(rung)
                self.tell(Intended(rung, attempt))
                if self.draw(st.integers(0, 3)) == 0:
                    self.crash()
                else:
                    self.tell(Asked(rung, attempt, self.draw(outcomes)))
        return True

    def check_force(self, rung: int) -> None:
        """Never force without a valid consent, never before the deadline."""
        state = self.state
        if state.ladder[rung].consent is not Consent.FORCE:
            return
        consent = state.consent
        assert consent is not None, "forced without consent"
        until_s = consent.until_s
        until_s = state.deadline_s + CONSENT_MARGIN_S if until_s is None else until_s
        # What was begun in time may go on for as long as it takes.
        forced = [r for a in state.attempts if (r := state.ladder[a.rung]).consent is Consent.FORCE]
        assert self.now_s <= until_s + sum(map(force_wait_s, forced))
        assert consent.unrecorded or not state.unrecorded
        first = not any(state.ladder[a.rung].consent is Consent.FORCE for a in state.attempts)
        assert not first or self.now_s >= state.deadline_s, "forced before the deadline"


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A stop played to its end (or until the draw gets boring)."""
    world = World(draw)
    ladder = (*draw(st.lists(soft, min_size=1, max_size=3)), *draw(st.lists(hard, max_size=2)))
    deadline_s = draw(times)
    ceiling_s = deadline_s + draw(times)
    world.tell(Started(ladder, deadline_s, ceiling_s, draw(consents)))
    for _ in range(60):
        if not world.step():
            break
    return world


def quiet_end(state: State, now_s: float) -> tuple[list[tuple[int, int]], Finished]:
    """What happens from here on if the target never answers: the rungs carried, and the ending."""
    carried: list[tuple[int, int]] = []
    for _ in range(200):
        match due(state, now_s):
            case Finish(result):
                return carried, result
            case Wait(until_s):
                assert until_s > now_s, "a wait must lie ahead"
                now_s = until_s
            case Look(depth, at_deadline_s):
                for event in (LookStarted(depth, at_deadline_s), Looked(depth, ())):
                    state = evolve(state, event, now_s)
            case Carry(rung, attempt):
                carried.append((rung, attempt))
                for asked in (Intended(rung, attempt), Asked(rung, attempt, Outcome.DONE)):
                    state = evolve(state, asked, now_s)
    raise AssertionError("it goes round in circles")


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_force_needs_consent_and_the_deadline_in_every_world(world: World) -> None:
    """The checks stand in `World.check_force`; what was forced is never called orderly."""
    finished = world.state.finished
    forced = world.state.reached(Outcome.DONE, consent=Consent.FORCE)
    if finished is not None and forced:
        assert finished.ending is not Ending.ORDERLY


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_every_stop_ends_or_waits(world: World) -> None:
    """From wherever the world stopped, silence leads to exactly one ending, in few steps."""
    if world.state.looking is not None:
        world.tell(Looked(world.state.looking, ()))
    _, result = quiet_end(world.state, world.now_s)
    assert isinstance(result.ending, Ending)


@settings(max_examples=300, deadline=None)
@given(worlds(), st.data())
def test_resuming_at_any_prefix_gives_the_same_result(world: World, data: st.DataObject) -> None:
    """Read back from the journal's form and resumed, it ends as it would have without the crash.

    Unless the crash left an attempt in doubt (it must not act as if it knew), nobody was surely
    asked (then the grace begins anew), the journal was lost (nothing to resume from), or a wish was
    pending (each resume brings its own).
    """
    cut = data.draw(st.integers(1, len(world.history)))
    prefix = world.history[:cut]
    state, now_s = fold(prefix), prefix[-1][0]
    stored = [(at_s, json.dumps(codec.encode(event))) for at_s, event in prefix]
    read = fold((at_s, codec.decode(*json.loads(text))) for at_s, text in stored)
    assert read == state
    in_doubt = state.last is not None and state.last.outcome is None
    asked = state.reached(Outcome.DONE, consent=Consent.NONE)
    if in_doubt or state.unrecorded or state.ask_again or not asked:
        return
    resumed = evolve(read, Resumed("other"), now_s)
    if state.looking is not None:  # the look's result was lost with its owner
        state = evolve(state, Looked(state.looking, state.holdups), now_s)
    carried, result = quiet_end(state, now_s)
    assert quiet_end(resumed, now_s) == (carried, result)


@settings(max_examples=200, deadline=None)
@given(worlds(), st.data())
def test_a_resumed_stop_asks_nobody_twice_unless_harmless(
    world: World, data: st.DataObject
) -> None:
    """Killed anywhere and resumed: a soft rung that may not be repeated is not, if it was heard."""
    cut = data.draw(st.integers(1, len(world.history)))
    state = fold(world.history[:cut])
    now_s = world.history[cut - 1][0]
    done = {(a.rung, a.number) for a in state.attempts}
    carried, _ = quiet_end(evolve(state, Resumed("other"), now_s), now_s)
    for rung, number in carried:
        assert (rung, number) not in done
        if number > 1 and not state.ladder[rung].repeatable:
            if state.ladder[rung].consent is Consent.FORCE:
                assert state.attempts[-1].outcome is None, "only a force in doubt is tried again"
            else:
                failed = {Outcome.FAILED, Outcome.NOT_PERMITTED}
                assert {a.outcome for a in state.attempts} <= failed, "nobody may have heard it"


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_the_ending_stands(world: World) -> None:
    """After an ending nothing changes it."""
    if world.state.finished is None:
        return
    later = evolve(world.state, Ended(Cause.BY_ITSELF, "late"), world.now_s + 1)
    assert due(later, world.now_s + 100) == Finish(world.state.finished)
