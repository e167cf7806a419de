"""Rungs that a target calls for itself: `decide` with `Called`."""

from __future__ import annotations

from lastcall.model import (
    Asked,
    Called,
    Cause,
    Consent,
    Ended,
    Ending,
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
from lastcall.stop.decide import Action, Carry, Finish, Look, Wait, due
from lastcall.stop.state import State, evolve

PRESS = Rung("press", "button", 60.0)
AGENT = Rung("agent", "agent", 30.0)
WAKE = Rung("wake", "wake", repeatable=True, on_call=True)
AGAIN = Rung("again", "button, again", on_call=True)
FINISH = Rung("finish", "clear away", repeatable=True, on_call=True)
END = Rung("end", "end", 10.0, Consent.FORCE)
LADDER = (PRESS, AGENT, WAKE, AGAIN, FINISH, END)
YES = ForceConsent("test", "a test")


class Guest:
    """A stop whose time the test moves."""

    def __init__(
        self, grace_s: float = 90.0, consent: ForceConsent | None = None, ceiling_s: float = 0.0
    ) -> None:
        self.now_s = 100.0
        self.state = State()
        end_s = 100.0 + grace_s
        self.tell(Started(LADDER, end_s, max(end_s, 100 + ceiling_s), consent))

    def tell(self, *events: Event) -> Guest:
        """These happened now."""
        for event in events:
            self.state = evolve(self.state, event, self.now_s)
        return self

    def at(self, after_s: float) -> Guest:
        """So many seconds after the start, with all looks done that were due until then."""
        self.now_s = 100.0 + after_s
        while isinstance(look := self.due(), Look):
            self.tell(LookStarted(look.depth, look.at_deadline_s), Looked(look.depth, ()))
        return self

    def due(self) -> Action:
        """What is to be done now."""
        return due(self.state, self.now_s)

    def carry(self, outcome: Outcome = Outcome.DONE) -> str:
        """Do what is due, which must be a rung; returns its id."""
        action = self.due()
        assert isinstance(action, Carry)
        attempt = (action.rung, action.attempt)
        self.tell(Intended(*attempt), Asked(*attempt, outcome))
        return LADDER[action.rung].id


def test_what_is_on_call_is_skipped_on_the_way_up() -> None:
    """Press, then the agent, then force: the rungs on call are climbed only when called for."""
    stop = Guest(consent=YES)
    assert stop.carry() == "press"
    assert stop.at(60).carry() == "agent"
    assert stop.at(90).carry() == "end"


def test_a_call_is_carried_out_at_once_and_once() -> None:
    """Called for, the rung is next; then the stop waits where it was."""
    stop = Guest()
    stop.carry()
    stop.at(5.5).tell(Called("wake", "it sleeps"))
    assert stop.carry() == "wake"
    assert isinstance(stop.due(), Wait)
    stop.tell(Called("again", "it woke"), Called("again", "it woke"))
    assert stop.carry() == "again"
    assert isinstance(stop.due(), Wait)


def test_attempts_are_numbered_by_rung() -> None:
    """A rung that is called for twice has attempts 1 and 2."""
    stop = Guest()
    stop.carry()
    for number in (1, 2):
        stop.tell(Called("again", "so"))
        assert stop.due() == Carry(3, number)
        stop.carry()


def test_a_call_does_not_move_the_way_up() -> None:
    """How long the press is waited for counts from the press, whatever was called for meanwhile."""
    stop = Guest()
    stop.carry()
    stop.at(59).tell(Called("again", "so"))
    stop.carry()
    assert stop.at(60).carry() == "agent"


def test_a_rung_of_the_way_up_can_be_called_for_early() -> None:
    """The agent is asked at once when the press cannot be heard, and its wait counts from then."""
    stop = Guest()
    stop.carry()
    stop.at(2).tell(Called("agent", "nobody listens"))
    assert stop.carry() == "agent"
    action = stop.at(70).due()
    assert isinstance(action, Wait)
    assert action.until_s == 190


def test_a_failed_call_ends_nothing() -> None:
    """Waking may fail or not be permitted: the stop goes on."""
    for outcome in (Outcome.FAILED, Outcome.NOT_PERMITTED, Outcome.GONE):
        stop = Guest()
        stop.carry()
        stop.tell(Called("wake", "it sleeps"))
        stop.carry(outcome)
        assert isinstance(stop.due(), Wait)


def test_a_failed_second_ask_does_not_end_a_stop_whose_first_came_through() -> None:
    """The agent cannot be asked, but the button was pressed: it has its whole grace."""
    stop = Guest()
    stop.carry()
    stop.at(6).tell(Called("agent", "nobody listens"))
    assert stop.carry(Outcome.FAILED) == "agent"
    assert isinstance(stop.due(), Wait)
    stop.tell(Called("again", "it listens now"))
    assert stop.carry() == "again"


def test_nothing_is_called_for_at_the_deadline() -> None:
    """Once the grace is over, a call does not delay the force."""
    stop = Guest(grace_s=10, consent=YES)
    stop.carry()
    stop.at(10).tell(Called("again", "so"))
    assert stop.carry() == "end"


def test_what_is_off_is_cleared_away_even_late() -> None:
    """The guest is off at the last moment: its QEMU is ended without force."""
    stop = Guest(grace_s=10)
    stop.carry()
    stop.at(9.9).tell(Reached(Stage.POWERED_OFF))
    stop.at(10).tell(Called("finish", "it is off"))
    assert stop.carry() == "finish"
    result = stop.tell(Ended(Cause.BY_ITSELF, "off")).due()
    assert isinstance(result, Finish)
    assert (result.result.ending, result.result.why) == (Ending.ORDERLY, Why.ENDED)


def test_a_resumed_stop_forgets_calls_and_repeats_what_is_harmless() -> None:
    """What was called for may be long past; a wake in doubt is repeated, a press is not."""
    stop = Guest()
    stop.carry()
    stop.tell(Called("wake", "it sleeps"), Resumed("another"))
    assert isinstance(stop.due(), Wait)
    stop.tell(Intended(2, 1), Resumed("another"))
    assert stop.carry() == "wake"
    stop.tell(Intended(3, 1), Resumed("another"))
    assert isinstance(stop.due(), Wait)


def test_an_unknown_call_is_nothing() -> None:
    """A journal of another version may name rungs that this ladder lacks."""
    stop = Guest()
    stop.carry()
    before = stop.due()
    assert stop.tell(Called("dance", "why not")).due() == before


def test_a_plea_at_the_deadline_moves_it_up_to_the_ceiling() -> None:
    """A guest that updates gets more time, and not more than the ceiling."""
    stop = Guest(grace_s=10, ceiling_s=15)
    stop.carry()
    stop.at(9).now_s = 110.0
    look = stop.due()
    assert isinstance(look, Look)
    stop.tell(LookStarted(look.depth, look.at_deadline_s), Progressed(60, "it updates"))
    stop.tell(Looked(look.depth, ()))
    assert stop.due() == Wait(115)
    result = stop.at(15).due()
    assert isinstance(result, Finish)
    assert result.result.ending is Ending.STILL_RUNNING


def test_one_that_came_back_is_not_called_forced() -> None:
    """It runs again: neither orderly nor forced."""
    stop = Guest(grace_s=0, consent=YES)
    stop.carry()
    assert stop.at(0.1).carry() == "end"
    result = stop.tell(Ended(Cause.REBOOTED, "it came back", runs=True)).due()
    assert isinstance(result, Finish)
    assert result.result.ending is Ending.REBOOTED


def test_one_that_wanted_to_reboot_and_was_forced_is_called_forced() -> None:
    """Its machine is gone, as with -no-reboot: force was used, and nothing runs again."""
    stop = Guest(grace_s=0, consent=YES)
    stop.carry()
    assert stop.at(0.1).carry() == "end"
    result = stop.tell(Ended(Cause.REBOOTED, "it wanted to start again")).due()
    assert isinstance(result, Finish)
    assert result.result.ending is Ending.FORCED


def test_one_that_is_off_at_the_deadline_is_not_forced() -> None:
    """Off in the last moment, or cleared away in it: it lost nothing more, and is waited for."""
    for cleared in (False, True):
        stop = Guest(grace_s=5, consent=YES)
        stop.carry()
        stop.at(4.9).tell(Reached(Stage.POWERED_OFF))
        if cleared:
            stop.at(14).tell(Called("finish", "it stays"))
            assert stop.carry() == "finish"
        assert stop.at(14.5).due() == Wait(100 + (24 if cleared else 15))
        result = stop.tell(Ended(Cause.BY_ITSELF, "off")).due()
        assert isinstance(result, Finish)
        assert result.result.ending is Ending.ORDERLY


def test_one_that_is_off_and_stays_for_good_is_left_or_forced() -> None:
    """Nobody waits for ever for a QEMU that does not go."""
    for consent in (None, YES):
        stop = Guest(grace_s=5, consent=consent)
        stop.carry()
        stop.at(4.9).tell(Reached(Stage.POWERED_OFF))
        stop.at(15.1)
        if consent is None:
            assert isinstance(stop.due(), Finish)
        else:
            assert stop.carry() == "end"
