"""The guest target when things come in an unlucky order, over a machine in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from guests.fake_machine import DEAF, LISTENS, PENDING, FakeMachine
from guests.test_target import ADDRESS, stages, stop
from lastcall.model import Asked, Called, Depth, Ended, Ending, Event, Intended, Outcome, Stage, Why
from lastcall.targets.guest import following, ladder
from lastcall.targets.guest import target as target_module
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import Allow, Ask, GuestWish
from lastcall.targets.guest.words import AgentSight, Kind, Power, Setup, System

if TYPE_CHECKING:
    from lastcall.stop.runner import Run

CUT = Trouble(Fault.CUT, "libvirt is away")


def off(machine: FakeMachine) -> None:
    """The guest is off, and its QEMU stays."""
    machine.state = Power.OFF
    machine.happens(Kind.SHUTDOWN, guest=True, reason="guest-shutdown")
    machine.happens(Kind.STOP)


def quits(machine: FakeMachine) -> None:
    """QEMU ends as it is told to."""
    machine.happens(Kind.SHUTDOWN, guest=False, reason="host-qmp-quit")
    machine.happens(Kind.GONE)


class Slow(FakeMachine):
    """One whose agent lets every close look take its time."""

    async def agent(self) -> AgentSight:
        """Its agent."""
        await asyncio.sleep(0.3)
        return self.sight


def carry(target: GuestTarget, rung_id: str) -> Any:
    """Carry out the rung of that name."""
    return target.carry(next(rung for rung in target.ladder if rung.id == rung_id))


# Presses


def test_a_press_that_is_not_made_yet_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the connection is mended the registers say nothing of it, and it ends as not asked."""
    monkeypatch.setattr(target_module, "_MEND_S", 0.5)
    machine = FakeMachine(faults={"press": CUT})

    def back(run: Run) -> None:
        if isinstance(run.history[-1][1], Intended):
            asyncio.get_running_loop().call_later(0.1, machine.happens, Kind.BACK)

    finished, events = stop(machine, while_running=back)
    assert (finished.ending, finished.why) == (Ending.STILL_RUNNING, Why.ASK_FAILED)
    assert stages(events) == []
    assert machine.done == []


def test_registers_read_before_a_press_say_nothing_of_it() -> None:
    """A look that began before the second press and ends after it: that press is pending still."""

    async def main() -> None:
        machine = Slow(registers=DEAF)
        target = GuestTarget(ADDRESS, machine, GuestWish())
        await target.preflight()
        target.watch(lambda _: None)
        await carry(target, ladder.PRESS)
        machine.registers = LISTENS
        look = asyncio.create_task(target.look(Depth.DEEP))
        await asyncio.sleep(0.1)
        machine.on["press"] = lambda m: setattr(m, "registers", PENDING)
        await carry(target, ladder.AGAIN)
        await look
        assert target.memory.press is Press.PENDING
        target.close()

    asyncio.run(main())


def test_a_guest_that_resets_before_its_press_is_made_has_not_rebooted_instead() -> None:
    """Nobody asked it: its reset is its own affair."""

    async def main() -> None:
        machine = FakeMachine(faults={"press": CUT})
        target = GuestTarget(ADDRESS, machine, GuestWish())
        await target.preflight()
        told: list[object] = []
        target.watch(told.append)
        pressing = asyncio.create_task(carry(target, ladder.PRESS))
        await asyncio.sleep(0.05)
        machine.happens(Kind.RESET, guest=True)
        machine.faults.clear()
        answer = await pressing
        assert answer.outcome is Outcome.DONE
        assert not [event for event in told if isinstance(event, Ended)]
        target.close()

    asyncio.run(main())


# What it does


def test_what_happens_during_a_look_is_newer_than_its_answer() -> None:
    """It powers off while the agent is still asked: it is off, and is cleared away at once."""

    async def main() -> None:
        machine = Slow(built=Setup(stays_when_off=True))
        target = GuestTarget(ADDRESS, machine, GuestWish())
        await target.preflight()
        told: list[object] = []
        target.watch(told.append)
        await carry(target, ladder.PRESS)
        look = asyncio.create_task(target.look(Depth.DEEP))
        await asyncio.sleep(0.1)
        off(machine)
        await look
        assert target.memory.power is Power.OFF
        await asyncio.sleep(1.3)
        assert [event.rung for event in told if isinstance(event, Called)] == ["finish"]
        target.close()

    asyncio.run(main())


def test_a_power_off_that_nobody_heard_is_no_work_of_others() -> None:
    """QEMU stays and was told to end by us: that is not "killed from outside"."""

    def unheard(machine: FakeMachine) -> None:
        machine.state = Power.OFF

    machine = FakeMachine(on={"press": unheard, "end": quits}, built=Setup(stays_when_off=True))
    finished, events = stop(machine)
    assert machine.done == ["press", "end"]
    assert Stage.POWERED_OFF in stages(events)
    assert finished.ending is Ending.UNKNOWN, finished


@pytest.mark.parametrize("kind", [Kind.PANICKED, Kind.IO_ERROR])
def test_one_that_has_failed_is_not_resumed(kind: Kind) -> None:
    """QEMU pauses it after that: it is no pause that anybody may end."""

    def fails(machine: FakeMachine) -> None:
        machine.state = Power.PANICKED if kind is Kind.PANICKED else Power.FAILED
        machine.happens(kind)
        machine.happens(Kind.STOP)

    wish = GuestWish(allow=frozenset({Allow.RESUME}))
    machine = FakeMachine(on={"press": fails})
    finished, _ = stop(machine, wish, grace_s=0.5)
    assert machine.done == ["press"]
    assert finished.ending is Ending.STILL_RUNNING


def test_one_that_is_paused_again_and_again_is_resumed_each_time() -> None:
    """More often than its happenings are kept."""

    def pauses(machine: FakeMachine) -> None:
        if machine.done.count("resume") < 600:
            machine.happens(Kind.STOP)
        else:
            machine.powers_off()

    machine = FakeMachine(on={"press": pauses, "resume": pauses})
    finished, _ = stop(machine, GuestWish(allow=frozenset({Allow.RESUME})))
    assert machine.done.count("resume") == 600
    assert finished.ending is Ending.ORDERLY


# What is called for


@pytest.mark.parametrize("rung", ["press-again", "finish"])
def test_what_was_called_for_and_failed_is_called_for_again(
    monkeypatch: pytest.MonkeyPatch, rung: str
) -> None:
    """The connection is away for a moment: it is tried again, after a pause."""
    monkeypatch.setattr(following, "_SELDOM_S", 0.2)
    monkeypatch.setattr(following, "_FINISH_S", 0.1)
    act = {"press-again": "press", "finish": "end"}[rung]
    machine = FakeMachine(registers=DEAF, on={"end": quits})
    refused = [Trouble(Fault.REFUSED, "not now")]

    def news(run: Run) -> None:
        event = run.history[-1][1]
        if isinstance(event, Called) and refused:
            machine.faults[act] = refused.pop()
        elif isinstance(event, Asked) and event.outcome is Outcome.FAILED:
            machine.faults.clear()
            machine.on["press"] = FakeMachine.powers_off
        elif isinstance(event, Asked) and rung == "finish":
            off(machine)
        elif isinstance(event, Asked):
            asyncio.get_running_loop().call_later(0.3, setattr, machine, "registers", LISTENS)

    finished, events = stop(machine, while_running=news)
    assert finished.ending is Ending.ORDERLY
    assert [event.rung for event in events if isinstance(event, Called)] == [rung, rung]


# The agent


def test_a_resumed_stop_does_not_ask_the_agent_again() -> None:
    """Nobody listens to the button, and the agent was asked by an earlier owner."""
    from lastcall.targets.guest.memory import recalled

    wish = GuestWish(asks=((Ask.PRESS, 60.0), (Ask.AGENT, 60.0)), system=System.LINUX)
    sight = AgentSight(connected=True, answers=True, system=System.LINUX)
    machine = FakeMachine(registers=DEAF, sight=sight)
    _, events = stop(machine, wish, grace_s=0.5)
    assert machine.done == ["press", "ask_agent"]

    async def resume(history: list[Event]) -> list[object]:
        later = FakeMachine(registers=DEAF, sight=sight)
        rungs = ladder.ladder_of(wish, System.LINUX)
        memory = recalled([(0.0, event) for event in history], rungs)
        target = GuestTarget(ADDRESS, later, wish, memory, rungs)
        told: list[object] = []
        target.watch(told.append)
        await asyncio.sleep(0.3)
        target.close()
        return told

    told = asyncio.run(resume(events))
    assert not [event for event in told if isinstance(event, Called)]
