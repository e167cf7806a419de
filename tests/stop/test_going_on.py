"""Stops that go on: asks that never came through, force that takes long, other owners' wishes."""

from __future__ import annotations

import pytest

from lastcall.model import (
    Asked,
    Consent,
    Consented,
    DeadlineMoved,
    Event,
    ForceConsent,
    Intended,
    Looked,
    LookStarted,
    Outcome,
    Progressed,
    Reached,
    Resumed,
    Rung,
    Stage,
    Started,
    Why,
)
from lastcall.stop import operation
from lastcall.stop.decide import Action, Carry, Finish, Look, Wait, due
from lastcall.stop.policy import Policy
from lastcall.stop.state import State, evolve
from lastcall.stop.wishes import Wishes

PRESS, AGENT = Rung("press", "button", 120.0), Rung("agent", "agent", 60.0)
AGENT_FORCE = Rung("agent-force", "agent", 60.0, Consent.FORCE)
END, KILL = Rung("end", "end", 15.0, Consent.FORCE), Rung("kill", "kill", 10.0, Consent.FORCE)
YES = ForceConsent("test", "a test")


class Stop:
    """A stop that began at 0, whose time the test moves."""

    def __init__(self, *ladder: Rung, grace_s: float, consent: ForceConsent | None = None) -> None:
        self.now_s = 0.0
        self.state = evolve(State(), Started(ladder, grace_s, grace_s, consent), 0.0)

    def at(self, now_s: float) -> Stop:
        """At this time, with all looks done that were due until then."""
        self.now_s = now_s
        while isinstance(look := self.due(), Look):
            self.tell(LookStarted(look.depth, look.at_deadline_s), Looked(look.depth, ()))
        return self

    def tell(self, *events: Event) -> Stop:
        """These happened now."""
        for event in events:
            self.state = evolve(self.state, event, self.now_s)
        return self

    def due(self) -> Action:
        """What is to be done now."""
        return due(self.state, self.now_s)

    def carry(self, outcome: Outcome | None = Outcome.DONE) -> str:
        """Do what is due, which must be a rung; returns its id. None: nobody knows the outcome."""
        action = self.due()
        assert isinstance(action, Carry), action
        self.tell(Intended(action.rung, action.attempt))
        if outcome is not None:
            self.tell(Asked(action.rung, action.attempt, outcome))
        return self.state.ladder[action.rung].id


class Still:
    """A clock that stands."""

    def now_s(self) -> float:
        """Boot-time clock."""
        return 1000.0

    def wall_s(self) -> float:
        """The wall's."""
        return 5000.0


def wishes(**words: object) -> Wishes:
    """Of a caller with this policy."""
    return Wishes(Policy(**words), "a test", Still())  # type: ignore[arg-type]


# Asks


def test_an_ask_that_never_came_through_is_tried_again_before_force() -> None:
    """Nobody is forced because nobody could reach it for a moment; the pauses grow."""
    stop = Stop(PRESS, END, grace_s=120, consent=YES)
    assert stop.carry(Outcome.FAILED) == "press"
    assert stop.at(4.9).due() == Wait(5.0)
    assert stop.at(5).carry(Outcome.FAILED) == "press"
    assert stop.at(14.9).due() == Wait(15.0)
    assert stop.at(15).carry() == "press"
    assert stop.at(119).due() == Wait(120.0)


def test_every_way_is_tried_again_from_the_first_on() -> None:
    """The press and the agent both failed: the press comes first again."""
    stop = Stop(PRESS, AGENT, END, grace_s=180, consent=YES)
    assert [stop.carry(Outcome.FAILED), stop.carry(Outcome.FAILED)] == ["press", "agent"]
    assert stop.at(5).carry() == "press"
    assert stop.at(124).due() == Wait(125.0)


def test_an_ask_in_doubt_is_not_tried_again() -> None:
    """The press may have come through; that the agent failed does not make it surer."""
    stop = Stop(PRESS, AGENT, END, grace_s=180, consent=YES)
    stop.carry(None)
    stop.tell(Resumed("me"))
    assert stop.at(120).carry(Outcome.FAILED) == "agent"
    assert stop.at(150).due() == Wait(180.0)


def test_a_later_way_that_is_denied_ends_nothing() -> None:
    """The press was taken: what may not be done besides does not shorten its grace."""
    stop = Stop(PRESS, AGENT, END, grace_s=180, consent=YES)
    stop.carry()
    stop.tell(Reached(Stage.TAKEN))
    assert stop.at(120).carry(Outcome.NOT_PERMITTED) == "agent"
    assert stop.at(150).due() == Wait(180.0)


def test_who_may_use_no_force_is_told_so() -> None:
    """A denied force goes on to the next, and ends as not permitted."""
    stop = Stop(PRESS, END, KILL, grace_s=10, consent=YES)
    stop.carry()
    stop.at(10)
    assert [stop.carry(Outcome.NOT_PERMITTED), stop.carry(Outcome.NOT_PERMITTED)] == ["end", "kill"]
    result = stop.due()
    assert isinstance(result, Finish)
    assert result.result.why is Why.NOT_PERMITTED


# Force


def test_a_force_that_takes_long_goes_on_to_the_next() -> None:
    """The agent of Windows has 60 s; the consent does not run out under it."""
    stop = Stop(PRESS, AGENT_FORCE, END, KILL, grace_s=60, consent=YES)
    stop.carry()
    stop.at(60)
    assert stop.at(60.4).carry() == "agent-force"
    assert stop.at(120.5).carry() == "end"
    assert stop.at(136).carry() == "kill"


def test_force_is_not_begun_after_the_consent() -> None:
    """What may go on may not begin late."""
    stop = Stop(PRESS, END, KILL, grace_s=60, consent=YES)
    stop.carry()
    stop.at(59).tell(Resumed("me"))
    assert isinstance(stop.at(121).due(), Finish)


def test_a_force_that_was_begun_does_not_go_on_days_later() -> None:
    """It was left after its first rung: a consent is not older than a force takes."""
    stop = Stop(PRESS, END, KILL, grace_s=60, consent=YES)
    stop.carry()
    assert stop.at(60).carry() == "end"
    stop.now_s = 90_000
    assert isinstance(stop.tell(Resumed("me")).due(), Finish)


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.FAILED, None])
def test_a_later_stop_has_its_grace_before_force_goes_on(outcome: Outcome | None) -> None:
    """It was left in the middle of force; another one asks for 60 s more."""
    stop = Stop(PRESS, END, KILL, grace_s=60, consent=YES)
    stop.carry()
    assert stop.at(60).carry(outcome) == "end"
    stop.now_s = 5000
    stop.tell(Resumed("me"), Consented(YES), DeadlineMoved(5060, "me"))
    assert stop.due() == Wait(5060)
    assert stop.at(5060).carry() == ("end" if outcome is None else "kill")


# Clocks


def test_times_of_another_boot_are_forgotten() -> None:
    """The consent is gone, the grace is whole, and nothing waits for a moment long past."""
    stop = Stop(PRESS, AGENT, END, grace_s=180, consent=YES)
    stop.now_s = 900_000
    stop.state = evolve(State(), Started((PRESS, AGENT, END), 900_180, 900_180, YES), 900_000)
    stop.carry()
    stop.now_s = 50
    stop.tell(Resumed("me", other_clock=True))
    assert (stop.state.consent, stop.state.deadline_s) == (None, 230)
    assert stop.at(170.5).carry() == "agent"
    assert isinstance(stop.at(230).due(), Finish)


@pytest.mark.parametrize(
    ("at_s", "wall_s", "other"),
    [
        (990.0, 4990.0, False),  # ten seconds ago by both clocks
        (990.0, 4950.0, False),  # set a little since
        (990.0, 1000.0, True),  # this clock began anew, and has come as far again
        (9000.0, 4990.0, True),  # it has not come as far yet
        (990.0, 9000.0, True),  # the wall's clock was set back: better ask anew
    ],
)
def test_another_boot_is_seen_by_the_clocks(at_s: float, wall_s: float, *, other: bool) -> None:
    """The last event's times, against those of now (1000 s after boot, 5000 by the wall)."""
    assert operation._other_clock((at_s, wall_s, Resumed("me")), Still()) is other  # type: ignore[arg-type]


# What callers want


def test_a_later_stop_brings_its_ceiling() -> None:
    """`--extend-up-to` counts from its own beginning."""
    stop = Stop(PRESS, END, grace_s=120)
    stop.carry()
    stop.now_s = 1000
    events = wishes(extend_up_to_s=600.0).going_on(stop.state, Resumed("me"), anew=True)
    stop.tell(*events)
    assert (stop.state.deadline_s, stop.state.ceiling_s) == (1120, 1600)
    stop.at(1100).tell(Progressed(180, "installs updates"))
    assert stop.state.deadline_s == 1280


@pytest.mark.parametrize(
    ("words", "ask_again", "deadline_s", "ceiling_s"),
    [
        ({}, False, 120, 120),
        ({"grace_s": 5.0}, False, 1005, 1005),
        ({"extend_up_to_s": 600.0}, False, 1120, 1600),
        ({}, True, 1120, 1120),
    ],
)
def test_a_resumption_brings_what_is_said(
    words: dict[str, float], deadline_s: float, ceiling_s: float, *, ask_again: bool
) -> None:
    """Longer, up to a ceiling, or asked again with a grace of its own; else all is as it was."""
    stop = Stop(PRESS, END, grace_s=120)
    stop.carry()
    stop.now_s = 1000
    resumed = Resumed("me", ask_again=ask_again)
    stop.tell(*wishes(**words).going_on(stop.state, resumed, anew=False))
    assert (stop.state.deadline_s, stop.state.ceiling_s) == (deadline_s, ceiling_s)
    assert isinstance(stop.due(), Carry) is ask_again


def test_a_resumption_takes_nothing_from_a_later_deadline() -> None:
    """What is far ahead stays, unless another grace is said."""
    stop = Stop(PRESS, END, grace_s=9000)
    stop.carry()
    stop.now_s = 1000
    resumed = Resumed("me")
    stop.tell(*wishes(extend_up_to_s=600.0).going_on(stop.state, resumed, anew=False))
    assert stop.state.deadline_s == 9000


def test_a_request_reckons_with_how_the_target_is_asked() -> None:
    """Force without a grace: a guest's two minutes, not a process's half."""
    ask = wishes(force_reason="so").request(7, (PRESS, END))
    assert (ask["do"], ask["deadline_s"]) == ("force", 1120)
    ask = wishes(extend_up_to_s=600.0).request(7, (PRESS, END))
    assert (ask["do"], "deadline_s" in ask, ask["ceiling_s"]) == ("extend", False, 1600)
    assert wishes().request(7, (PRESS, END))["do"] == "follow"
