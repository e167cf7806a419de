"""The decision, stepped with explicit times: whole sequences, no loop, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lastcall.model import (
    Asked,
    Cause,
    Consent,
    Consented,
    DeadlineMoved,
    Depth,
    Ended,
    Ending,
    Event,
    Finding,
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
    Why,
)
from lastcall.stop.decide import Action, Carry, Finish, Look, Wait, due, judge
from lastcall.stop.state import State, evolve, fold

TERM = Rung("15@", "SIGTERM")
INT = Rung("2@", "SIGINT", wait_s=5)
KILL = Rung("9@", "SIGKILL", 10, Consent.FORCE)
YES = ForceConsent("it may go", "test", unrecorded=True)


class Stepper:
    """A stop whose time the test moves; says each action as it comes."""

    def __init__(
        self,
        *ladder: Rung,
        grace_s: float = 30,
        ceiling_s: float | None = None,
        consent: ForceConsent | None = None,
    ) -> None:
        self.now_s = 100.0
        ceiling = 100 + (grace_s if ceiling_s is None else ceiling_s)
        self.state = State()
        self.tell(Started(ladder or (TERM, KILL), 100 + grace_s, ceiling, consent))

    def tell(self, *events: Event) -> Stepper:
        """These happened now."""
        for event in events:
            self.state = evolve(self.state, event, self.now_s)
        return self

    def at(self, after_s: float) -> Stepper:
        """Move to so many seconds after the start."""
        self.now_s = 100 + after_s
        return self

    def due(self) -> Action:
        """What is to be done now."""
        return due(self.state, self.now_s)

    def carry(self, outcome: Outcome = Outcome.DONE) -> Stepper:
        """Do what is due, which must be a rung."""
        action = self.due()
        assert isinstance(action, Carry)
        return self.tell(
            Intended(action.rung, action.attempt), Asked(action.rung, action.attempt, outcome)
        )

    def look(self) -> Stepper:
        """Do what is due, which must be a look."""
        action = self.due()
        assert isinstance(action, Look)
        return self.tell(LookStarted(action.depth, action.at_deadline_s), Looked(action.depth, ()))


def ending(action: Action) -> tuple[Ending, Why]:
    """The ending that an action is."""
    assert isinstance(action, Finish)
    return action.result.ending, action.result.why


def test_looks_that_were_slept_through_are_not_made_up_for() -> None:
    """After a long sleep of the machine there is one look, not five in a row."""
    stop = Stepper(grace_s=900).carry()
    assert stop.at(700).due() == Look(Depth.DEEP)
    stop.look()
    assert stop.due() == Wait(1000)


def test_force_does_not_wait_for_ever_for_a_look() -> None:
    """Among very many targets a look may have to wait its turn: the consent must not run out."""
    stop = Stepper(consent=YES, grace_s=0.5).carry()
    action = stop.at(0.5).due()
    assert isinstance(action, Look)
    stop.tell(LookStarted(action.depth, action.at_deadline_s))
    assert stop.at(1).due() == Wait(110.5)
    assert stop.at(10.5).due() == Carry(1, 1)


def test_a_force_that_came_to_nothing_blames_nobody_else() -> None:
    """It was given up, and then the target was taken away: by whom is in doubt."""
    stop = Stepper(consent=YES, grace_s=0).carry().look().carry(Outcome.FAILED)
    stop.tell(Ended(Cause.TAKEN_AWAY, "killed"))
    action = stop.due()
    assert ending(action) == (Ending.FORCED, Why.ENDED)
    assert isinstance(action, Finish)
    assert "in doubt" in action.result.detail


def test_soft_stop_waits_looks_twice_and_leaves() -> None:
    """Without consent: ask, look after 1 s and 5 s, look closely at the deadline, leave."""
    stop = Stepper()
    assert stop.due() == Carry(0, 1)
    stop.carry()
    assert stop.due() == Wait(101)
    assert stop.at(1).due() == Look(Depth.QUICK)
    stop.look()
    assert stop.due() == Wait(105)
    assert stop.at(5).due() == Look(Depth.DEEP)
    stop.look()
    assert stop.due() == Wait(130)
    assert stop.at(30).due() == Look(Depth.DEEP, 130)
    stop.look()
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.DEADLINE)


def test_force_comes_only_at_the_deadline_and_after_a_look() -> None:
    """With consent the force follows the last look, not before."""
    stop = Stepper(consent=YES, grace_s=0.5).carry()
    assert stop.at(0.4).due() == Wait(100.5)
    stop.at(0.5).look()
    assert stop.due() == Carry(1, 1)
    stop.carry()
    assert stop.due() == Wait(110.5)
    stop.tell(Ended(Cause.TAKEN_AWAY, "killed by SIGKILL"))
    assert ending(stop.due()) == (Ending.FORCED, Why.ENDED)


def test_force_that_does_nothing_ends_as_still_running() -> None:
    """A process in the kernel's hands outlives SIGKILL: that is said, not hidden."""
    stop = Stepper(consent=YES, grace_s=0).carry().look().carry().at(10)
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.FORCE_FAILED)


def test_sequence_climbs_when_a_rung_has_had_its_time() -> None:
    """INT for 5 s, then TERM until the deadline."""
    stop = Stepper(INT, TERM, KILL).carry().at(1).look()
    assert stop.due() == Wait(105)
    assert stop.at(5).due() == Carry(1, 1)


def test_served_audience_is_skipped() -> None:
    """When the root has ended, its other rungs are skipped and the rest is asked at once."""
    ladder = (
        replace(INT, audience="root"),
        replace(TERM, audience="root"),
        replace(TERM, audience="rest"),
        KILL,
    )
    stop = Stepper(*ladder).carry().tell(Served("root"))
    assert stop.due() == Carry(2, 1)


def test_progress_moves_the_deadline_up_to_the_ceiling() -> None:
    """A target that asks for more gets it, but never beyond the policy's ceiling."""
    stop = Stepper(grace_s=10, ceiling_s=25).carry().at(1).look().at(5).look().at(9)
    assert stop.tell(Progressed(10, "installing")).due() == Wait(119)
    assert stop.at(18).tell(Progressed(60, "installing")).due() == Wait(125)
    assert isinstance(stop.at(25).due(), Look)


def test_progress_without_a_ceiling_changes_nothing() -> None:
    """Without --extend-up-to the grace is the grace."""
    stop = Stepper(grace_s=10).carry().at(1).look().at(5).look()
    assert stop.tell(Progressed(10, "installing")).due() == Wait(110)


def test_not_permitted_ends_at_once() -> None:
    """Waiting for one whom we may not ask is pointless."""
    stop = Stepper(consent=YES).carry(Outcome.NOT_PERMITTED)
    action = stop.due()
    assert ending(action) == (Ending.STILL_RUNNING, Why.NOT_PERMITTED)
    assert isinstance(action, Finish)
    assert action.result.exit_code == 4


def test_failed_ask_ends_at_once_without_consent_and_waits_with_it() -> None:
    """An ask that cannot be delivered: a look at why, and nothing to wait for but force."""
    stop = Stepper().carry(Outcome.FAILED)
    assert stop.due() == Look(Depth.DEEP)
    stop.tell(LookStarted(Depth.DEEP))
    assert isinstance(stop.due(), Wait)
    stop.tell(Looked(Depth.DEEP, ()))
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.ASK_FAILED)
    assert isinstance(Stepper(consent=YES).carry(Outcome.FAILED).due(), Wait)


def test_overtaking_force_moves_the_deadline() -> None:
    """A second command's consent and deadline make the force due."""
    stop = Stepper().carry().at(0.5).tell(Consented(YES), DeadlineMoved(100.5, "other"))
    stop.look()
    assert stop.due() == Carry(1, 1)


def test_expired_consent_forces_nothing() -> None:
    """A stop that is resumed a minute after its deadline must be told anew."""
    stop = Stepper(consent=YES, grace_s=10).carry().at(70.1).look()
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.NO_CONSENT)


def test_consent_with_its_own_expiry() -> None:
    """An expiry of its own counts, not the default."""
    stop = Stepper(consent=replace(YES, until_s=105), grace_s=10).carry().at(10).look()
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.NO_CONSENT)


def test_unrecorded_force_needs_this_command_line() -> None:
    """Without a journal only a consent from this very command line counts."""
    warned = Warned(Finding("journal-unusable", "no journal"))
    here = Stepper(consent=YES, grace_s=0).carry().tell(warned).look()
    assert here.due() == Carry(1, 1)
    elsewhere = replace(YES, unrecorded=False)
    there = Stepper(consent=elsewhere, grace_s=0).carry().tell(warned).look()
    assert ending(there.due()) == (Ending.STILL_RUNNING, Why.UNRECORDED)


def test_resumed_stop_does_not_ask_again() -> None:
    """An ask in doubt is not repeated: a second signal may mean 'at once'."""
    stop = Stepper().tell(Intended(0, 1), Resumed("other"))
    assert stop.due() == Wait(101)
    assert Stepper().tell(Intended(0, 1), Resumed("other", ask_again=True)).due() == Carry(0, 2)


def test_one_that_was_never_surely_asked_gets_its_grace_anew() -> None:
    """Resumed long after the deadline: it is asked and waited for, and the consent has expired."""
    late = Stepper(consent=YES, grace_s=10).at(100).tell(Resumed("other"))
    assert late.due() == Carry(0, 1)
    late.carry()
    assert late.due() == Wait(201)
    late.at(101).look().at(105).look().at(110).look()
    assert ending(late.due()) == (Ending.STILL_RUNNING, Why.NO_CONSENT)
    soon = Stepper(consent=YES, grace_s=10).at(20).tell(Intended(0, 1), Resumed("other"))
    assert soon.due() == Wait(121)
    soon.at(21).look().at(25).look().at(30).look()
    assert soon.due() == Carry(1, 1)


def test_harmless_ask_in_doubt_is_repeated() -> None:
    """What is harmless to repeat is repeated after a crash in the middle."""
    press = Rung("press", "press the button", repeatable=True)
    assert Stepper(press).tell(Intended(0, 1), Resumed("other")).due() == Carry(0, 2)


def test_force_in_doubt_is_tried_again_only_with_a_valid_consent() -> None:
    """`Resumed` says that a probe found the same identity alive; the consent must still hold."""
    doubt = (Intended(1, 1), Resumed("other"))
    stop = Stepper(consent=YES, grace_s=0).carry().look().tell(*doubt)
    assert stop.due() == Carry(1, 2)
    assert ending(stop.at(61).due()) == (Ending.STILL_RUNNING, Why.NO_CONSENT)


def test_force_in_doubt_waits_for_the_grace_of_a_later_stop() -> None:
    """Whoever stops it once more gives it a grace: no force comes before that is over."""
    later = (Intended(1, 1), Resumed("other"), DeadlineMoved(130.0, "other"))
    stop = Stepper(consent=YES, grace_s=0).carry().look().tell(*later)
    assert stop.due() == Wait(130.0)
    assert stop.at(30).due() == Carry(1, 2)


def test_look_cut_off_by_a_crash_is_begun_again() -> None:
    """A look that died with its owner does not hold up the one who resumes."""
    stop = Stepper(grace_s=1).carry().at(1).tell(LookStarted(Depth.DEEP, 101.0))
    assert isinstance(stop.due(), Wait)
    stop.tell(Resumed("other"))
    assert ending(stop.due()) == (Ending.STILL_RUNNING, Why.DEADLINE)


@pytest.mark.parametrize(
    ("cause", "asked", "expected"),
    [
        (Cause.BY_ITSELF, True, Ending.ORDERLY),
        (Cause.BY_ITSELF, False, Ending.ENDED_BEFORE),
        (Cause.UNHANDLED, True, Ending.ABRUPT),
        (Cause.FAILED, True, Ending.CRASHED),
        (Cause.FAILED, False, Ending.ENDED_BEFORE),
        (Cause.TAKEN_AWAY, True, Ending.KILLED_OUTSIDE),
        (Cause.TAKEN_AWAY, False, Ending.KILLED_OUTSIDE),
        (Cause.UNKNOWN, True, Ending.UNKNOWN),
        (Cause.UNKNOWN, False, Ending.UNKNOWN),
    ],
)
def test_unforced_endings(cause: Cause, expected: Ending, *, asked: bool) -> None:
    """Every cause of an unforced end has its ending."""
    stop = Stepper().carry(Outcome.DONE if asked else Outcome.GONE).tell(Ended(cause, "so"))
    assert ending(stop.due()) == (expected, Why.ENDED)


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.REBOOTED}))
def test_a_forced_stop_is_never_orderly(cause: Cause) -> None:
    """Once force was delivered the ending is `forced`, whatever the target says."""
    stop = Stepper(consent=YES, grace_s=0).carry().look().carry().tell(Ended(cause, "so"))
    assert ending(stop.due()) == (Ending.FORCED, Why.ENDED)


def test_force_in_doubt_is_told() -> None:
    """Killed while it is not known whether our force did it: forced, and the doubt is said."""
    stop = Stepper(consent=YES, grace_s=0).carry().look().tell(Intended(1, 1), Resumed("other"))
    stop.tell(Ended(Cause.TAKEN_AWAY, "killed by SIGKILL"))
    action = stop.due()
    assert isinstance(action, Finish)
    assert (action.result.ending, "in doubt" in action.result.detail) == (Ending.FORCED, True)


def test_missing_is_unknown_and_the_first_end_counts() -> None:
    """What nobody saw is unknown; a later report changes nothing."""
    stop = Stepper().carry().tell(Missing("gone"), Ended(Cause.BY_ITSELF, "late"))
    assert ending(stop.due()) == (Ending.UNKNOWN, Why.UNSEEN)


def test_a_living_target_cannot_be_judged() -> None:
    """Judging before the end is a mistake of the caller."""
    with pytest.raises(ValueError, match="not ended"):
        judge(fold([]))
