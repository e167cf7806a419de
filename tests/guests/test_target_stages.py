"""The stages of a guest's stop where they are easily told wrong, over a machine in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from guests.fake_machine import FakeMachine
from guests.test_target import ADDRESS, stages, stop
from lastcall.model import Asked, Depth, Ending, Event, Finding, Outcome, Reached, Stage
from lastcall.targets.guest import during
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import Ask, GuestWish
from lastcall.targets.guest.words import AgentSight, Kind, Power, System

if TYPE_CHECKING:
    from lastcall.stop.runner import Run

THERE = AgentSight(connected=True, answers=True, system=System.LINUX)
BY_AGENT = GuestWish(asks=((Ask.AGENT, None),))


def asks(events: list[Event]) -> list[Asked]:
    """What became of each ask."""
    return [event for event in events if isinstance(event, Asked)]


def test_an_agent_that_leaves_while_it_is_asked() -> None:
    """Its port closes before the ask is over: services are ending all the same."""
    machine = FakeMachine(sight=THERE, on={"ask_agent": lambda m: m.happens(Kind.AGENT_CLOSED)})

    def heed(run: Run) -> None:
        last = run.history[-1][1]
        if isinstance(last, Reached) and last.stage is Stage.DRAINING:
            machine.powers_off()

    finished, events = stop(machine, BY_AGENT, while_running=heed)
    assert finished.ending is Ending.ORDERLY
    assert stages(events) == [Stage.DRAINING, Stage.POWERED_OFF]


def test_an_agent_that_refuses_was_not_asked() -> None:
    """What it does later is no answer to that."""
    no = Trouble(Fault.REFUSED, "it will not")

    def leaves(machine: FakeMachine) -> None:
        machine.happens(Kind.AGENT_CLOSED)
        raise no

    finished, events = stop(FakeMachine(sight=THERE, on={"ask_agent": leaves}), BY_AGENT)
    assert finished.ending is Ending.STILL_RUNNING
    assert [ask.outcome for ask in asks(events)] == [Outcome.FAILED]


def test_an_agent_that_does_not_answer_is_not_asked() -> None:
    """Nor is it said that the guest runs Windows: the silence is the reason."""
    for sight in (AgentSight(connected=True, answers=False), AgentSight(connected=False)):
        machine = FakeMachine(sight=sight)
        finished, events = stop(machine, BY_AGENT)
        assert finished.ending is Ending.STILL_RUNNING
        assert machine.done == []
        assert [finding.code for finding in finished.findings] == ["agent-silent"]
        (asked,) = asks(events)
        assert "no guest agent answers" in asked.detail
        assert "Windows" not in asked.detail


def test_one_that_falls_asleep_ends_no_services() -> None:
    """Its drivers close the agent's port as well."""

    def sleeps(machine: FakeMachine) -> None:
        machine.happens(Kind.SUSPEND)
        machine.happens(Kind.AGENT_CLOSED)
        machine.state = Power.SUSPENDED

    _, events = stop(FakeMachine(on={"press": sleeps}), grace_s=0.5)
    assert Stage.DRAINING not in stages(events)


def test_what_is_seen_late_is_no_step_back() -> None:
    """Registers that show "taken" only after the services end tell nothing new."""
    machine = FakeMachine(on={"press": lambda m: m.happens(Kind.AGENT_CLOSED)})
    _, events = stop(machine, grace_s=0.5)
    assert stages(events) == [Stage.DRAINING]


def test_a_power_off_that_the_host_made_is_no_stage_of_the_guest() -> None:
    """Ended by force it never powered off; the detail says what that costs."""

    def ends(machine: FakeMachine) -> None:
        machine.happens(Kind.SHUTDOWN, guest=False, reason="host-qmp-quit")
        machine.happens(Kind.GONE)

    finished, events = stop(FakeMachine(on={"end": ends}), grace_s=0.3, force=True)
    assert finished.ending is Ending.FORCED
    assert Stage.POWERED_OFF not in stages(events)
    detail = asks(events)[-1].detail
    assert "what is not saved or not yet written is lost" in detail
    assert "may not start any more" not in detail


def test_force_in_the_middle_of_an_update_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs more than a power cut at another time."""
    seen = (Finding("updating", "it installs updates"),)
    monkeypatch.setattr(during, "diagnose", lambda _: seen)
    machine = FakeMachine(on={"end": lambda m: m.happens(Kind.GONE)})
    _, events = stop(machine, grace_s=0.3, force=True)
    assert "it may not start any more" in asks(events)[-1].detail


class Counting(FakeMachine):
    """Counts how often its agent is talked to."""

    talks = 0

    async def agent(self) -> AgentSight:
        """Its agent."""
        self.talks += 1
        return await super().agent()


@pytest.mark.parametrize(
    ("state", "talks"),
    [(Power.RUNNING, 2), (Power.PAUSED, 0), (Power.SUSPENDED, 0), (Power.PANICKED, 0)],
)
def test_the_agent_of_one_that_stands_still_is_left_alone(state: Power, talks: int) -> None:
    """It would answer only once nobody listens: qemu-ga then tries without end."""

    async def look() -> int:
        machine = Counting(state=state)
        target = GuestTarget(ADDRESS, machine, GuestWish())
        try:
            await target.preflight()
            await target.look(Depth.DEEP)
        finally:
            target.close()
        return machine.talks

    assert asyncio.run(look()) == talks
