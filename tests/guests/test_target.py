"""The guest target over a machine in memory; `test_qmp_stop.py` has the real ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from guests.fake_machine import DEAF, LISTENS, PENDING, FakeMachine
from lastcall.clock import SystemClock, now_s
from lastcall.model import (
    Address,
    Asked,
    Called,
    Ending,
    Event,
    Finished,
    ForceConsent,
    Intended,
    Outcome,
    Reached,
    Stage,
    Started,
    Why,
)
from lastcall.stop.runner import Run
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.memory import recalled
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.target import GuestTarget
from lastcall.targets.guest.wish import Allow, Ask, GuestWish
from lastcall.targets.guest.words import AgentSight, Kind, Power, Setup, System

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = Address("qmp", "fake")


def stop(
    machine: FakeMachine,
    wish: GuestWish | None = None,
    *,
    grace_s: float = 20.0,
    force: bool = False,
    while_running: Callable[[Run], None] | None = None,
) -> tuple[Finished, list[Event]]:
    """Stop it without a journal; returns the ending and all events."""

    async def work() -> tuple[Finished, list[Event]]:
        target, clock = GuestTarget(ADDRESS, machine, wish or GuestWish()), SystemClock()
        await target.preflight()
        run = Run(0, target, clock, None, lambda run, _, __: while_running and while_running(run))
        consent = ForceConsent("a test", "a test", unrecorded=True) if force else None
        end_s = clock.now_s() + grace_s
        run.note(Started(target.ladder, end_s, end_s, consent))
        finished = await run.drive()
        assert finished is not None
        return finished, [event for _, event in run.history]

    finished, events = asyncio.run(work())
    assert machine.closed
    return finished, events


def stages(events: list[Event]) -> list[Stage]:
    """How far it came, in order."""
    return [event.stage for event in events if isinstance(event, Reached)]


def test_one_that_listens_and_powers_off() -> None:
    """Pressed once, taken, off: orderly, with its stages."""
    machine = FakeMachine(on={"press": FakeMachine.powers_off})
    finished, events = stop(machine)
    assert (finished.ending, finished.why) == (Ending.ORDERLY, Why.ENDED)
    assert machine.done == ["press"]
    assert stages(events) == [Stage.POWERED_OFF]


def test_the_stages_of_one_that_takes_its_time() -> None:
    """Delivered while pending, taken when the bit clears, draining when the agent goes."""
    machine = FakeMachine(on={"press": lambda m: setattr(m, "registers", PENDING)})

    def heed(run: Run) -> None:
        last = run.history[-1][1]
        if isinstance(last, Reached) and last.stage is Stage.DELIVERED:
            machine.registers = LISTENS
        elif isinstance(last, Reached) and last.stage is Stage.TAKEN:
            machine.happens(Kind.AGENT_CLOSED)
        elif isinstance(last, Reached) and last.stage is Stage.DRAINING:
            machine.powers_off()

    _, events = stop(machine, while_running=heed)
    assert stages(events) == [
        Stage.DELIVERED,
        Stage.TAKEN,
        Stage.DRAINING,
        Stage.POWERED_OFF,
    ]


def test_one_that_is_deaf_is_pressed_again_once_it_listens() -> None:
    """The press was dropped during its boot: a second one follows when somebody listens."""
    machine = FakeMachine(registers=DEAF)

    def heed(run: Run) -> None:
        if isinstance(run.history[-1][1], Asked) and machine.done == ["press"]:
            # After the follower's first look, which sees that the press was dropped.
            asyncio.get_running_loop().call_later(0.3, setattr, machine, "registers", LISTENS)
        elif machine.done == ["press", "press"]:
            machine.powers_off()

    finished, events = stop(machine, while_running=heed)
    assert finished.ending is Ending.ORDERLY
    assert machine.done == ["press", "press"]
    assert [event.rung for event in events if isinstance(event, Called)] == ["press-again"]


def test_never_again_means_never_beside_waking_too() -> None:
    """`--press-again never --allow wake`: the rung is there for waking alone."""
    machine = FakeMachine(registers=DEAF)

    def heed(run: Run) -> None:
        if isinstance(run.history[-1][1], Asked):
            asyncio.get_running_loop().call_later(0.2, setattr, machine, "registers", LISTENS)

    wish = GuestWish(press_again=False, allow=frozenset({Allow.WAKE}))
    stop(machine, wish, grace_s=3.5, while_running=heed)
    assert machine.done == ["press"]


def test_one_that_libvirt_is_to_keep_is_not_cleared_away() -> None:
    """`on_poweroff` says what becomes of it: nobody destroys it against that."""

    def off(machine: FakeMachine) -> None:
        machine.state = Power.OFF
        machine.happens(Kind.SHUTDOWN, guest=True, reason="guest-shutdown")

    machine = FakeMachine(built=Setup(on_poweroff="preserve"), on={"press": off})
    stop(machine, grace_s=2.5)
    assert machine.done == ["press"]


def test_one_that_is_found_gone_without_a_word_has_no_known_ending() -> None:
    """No event came, and a look finds it gone: unknown, not still running."""
    machine = FakeMachine(
        registers=PENDING, on={"press": lambda m: setattr(m, "state", Power.GONE)}
    )
    finished, _ = stop(machine)
    assert finished.ending is Ending.UNKNOWN


def test_never_again_means_never() -> None:
    """With `--press-again never` a dropped press stays the only one."""
    machine = FakeMachine(registers=DEAF)
    finished, _ = stop(machine, GuestWish(press_again=False), grace_s=0.5)
    assert finished.ending is Ending.STILL_RUNNING
    assert machine.done == ["press"]


def test_one_that_sleeps_is_woken_only_where_that_is_allowed() -> None:
    """Waking uses the press up: after it, one more is due."""

    def wakes(machine: FakeMachine) -> None:
        machine.state = Power.RUNNING
        machine.registers = LISTENS
        machine.happens(Kind.WAKEUP)

    asleep = FakeMachine(registers=PENDING, state=Power.SUSPENDED)
    finished, _ = stop(asleep, grace_s=0.5)
    assert (finished.ending, asleep.done) == (Ending.STILL_RUNNING, ["press"])

    machine = FakeMachine(registers=PENDING, state=Power.SUSPENDED, on={"wake": wakes})

    def heed(_: Run) -> None:
        if machine.done == ["press", "wake", "press"]:
            machine.powers_off()

    finished, _ = stop(machine, GuestWish(allow=frozenset({Allow.WAKE})), while_running=heed)
    assert finished.ending is Ending.ORDERLY
    assert machine.done == ["press", "wake", "press"]


def test_one_that_is_paused_is_resumed_only_where_that_is_allowed() -> None:
    """The press that waited works after it; it is not made twice."""
    paused = FakeMachine(registers=PENDING, state=Power.PAUSED)
    finished, _ = stop(paused, grace_s=0.5)
    assert (finished.ending, paused.done) == (Ending.STILL_RUNNING, ["press"])

    machine = FakeMachine(
        registers=PENDING, state=Power.PAUSED, on={"resume": FakeMachine.powers_off}
    )
    finished, _ = stop(machine, GuestWish(allow=frozenset({Allow.RESUME})))
    assert (finished.ending, machine.done) == (Ending.ORDERLY, ["press", "resume"])


def test_a_qemu_that_stays_is_cleared_away_without_force() -> None:
    """With -no-shutdown the guest is off and its QEMU is not gone: it is told to end."""

    def off(machine: FakeMachine) -> None:
        machine.state = Power.OFF
        machine.happens(Kind.SHUTDOWN, guest=True, reason="guest-shutdown")
        machine.happens(Kind.STOP)

    def ends(machine: FakeMachine) -> None:
        machine.happens(Kind.SHUTDOWN, guest=False, reason="host-qmp-quit")
        machine.happens(Kind.GONE)

    machine = FakeMachine(on={"press": off, "end": ends})
    finished, events = stop(machine)
    assert finished.ending is Ending.ORDERLY
    assert machine.done == ["press", "end"]
    assert [event.rung for event in events if isinstance(event, Called)] == ["finish"]


def test_force_ends_qemu_and_then_kills_it() -> None:
    """With consent: `quit` first, and SIGKILL when that comes to nothing."""

    def dies(machine: FakeMachine) -> None:
        machine.happens(Kind.GONE)

    hung = Trouble(Fault.HUNG, "QEMU does not answer")
    machine = FakeMachine(registers=PENDING, faults={"end": hung}, on={"kill": dies})
    finished, events = stop(machine, grace_s=0.3, force=True)
    assert finished.ending in {Ending.FORCED, Ending.UNKNOWN}
    assert machine.done == ["press", "kill"]
    outcomes = [event.outcome for event in events if isinstance(event, Asked)]
    assert outcomes == [Outcome.DONE, Outcome.FAILED, Outcome.DONE]


def test_the_agent_is_asked_when_nobody_hears_the_button() -> None:
    """`--ask press:60s,agent`: it does not wait a minute for a press that was dropped."""
    machine = FakeMachine(
        registers=DEAF,
        sight=AgentSight(connected=True, answers=True, system=System.LINUX, name="Debian"),
        on={"ask_agent": FakeMachine.powers_off},
    )
    finished, _ = stop(machine, GuestWish(asks=((Ask.PRESS, 60.0), (Ask.AGENT, 60.0))))
    assert finished.ending is Ending.ORDERLY
    assert machine.done == ["press", "ask_agent"]


def test_one_that_boots_is_pressed_again_when_its_agent_is_not_up() -> None:
    """`--ask press,agent` is not worse than `--ask press`: the agent is no way out here."""
    machine = FakeMachine(registers=DEAF, sight=AgentSight(connected=False))

    def heed(run: Run) -> None:
        last = run.history[-1][1]
        if isinstance(last, Asked) and last.outcome is Outcome.FAILED:
            machine.registers = LISTENS
        elif machine.done == ["press", "press"]:
            machine.powers_off()

    wish = GuestWish(asks=((Ask.PRESS, 60.0), (Ask.AGENT, 60.0)))
    finished, _ = stop(machine, wish, while_running=heed)
    assert (finished.ending, machine.done) == (Ending.ORDERLY, ["press", "press"])


def test_the_agent_of_a_windows_guest_needs_consent_to_force() -> None:
    """There it closes applications by force: it is part of the force, and called so."""
    windows = AgentSight(connected=True, answers=True, system=System.WINDOWS, name="Windows")
    wish = GuestWish(asks=((Ask.PRESS, 0.2), (Ask.AGENT, 60.0)))
    machine = FakeMachine(sight=windows, on={"ask_agent": FakeMachine.powers_off})
    finished, _ = stop(machine, wish, grace_s=0.4)
    assert (finished.ending, machine.done) == (Ending.STILL_RUNNING, ["press"])

    machine = FakeMachine(sight=windows, on={"ask_agent": FakeMachine.powers_off})
    finished, _ = stop(machine, wish, grace_s=0.4, force=True)
    assert (finished.ending, machine.done) == (Ending.FORCED, ["press", "ask_agent"])


def test_the_agent_of_an_unknown_system_is_not_asked() -> None:
    """It may be Windows: nothing is closed by force without consent."""
    wish = GuestWish(asks=((Ask.AGENT, 60.0),))
    machine = FakeMachine(sight=AgentSight(connected=True, answers=True))
    finished, events = stop(machine, wish, grace_s=0.4)
    assert (finished.ending, finished.why) == (Ending.STILL_RUNNING, Why.ASK_FAILED)
    assert machine.done == []
    asked = next(event for event in events if isinstance(event, Asked))
    assert "--guest-os" in asked.detail


def test_a_press_that_qemu_does_not_answer_is_no_failure() -> None:
    """It may come through later: nothing is claimed, and the stop waits."""
    machine = FakeMachine(faults={"press": Trouble(Fault.HUNG, "no answer within 3 s")})
    finished, events = stop(machine, grace_s=0.4)
    assert finished.why is Why.DEADLINE
    asked = next(event for event in events if isinstance(event, Asked))
    assert asked.outcome is Outcome.DONE
    assert "may come through later" in asked.detail


@pytest.mark.parametrize(
    ("fault", "ending"),
    [(Fault.DENIED, Why.NOT_PERMITTED), (Fault.REFUSED, Why.ASK_FAILED)],
)
def test_a_press_that_cannot_be_made_is_said(fault: Fault, ending: Why) -> None:
    """Not permitted and failed are told apart, and nothing else is tried."""
    machine = FakeMachine(faults={"press": Trouble(fault, "no")})
    finished, _ = stop(machine, grace_s=5)
    assert (finished.ending, finished.why) == (Ending.STILL_RUNNING, ending)


def test_a_press_waits_while_the_connection_is_mended() -> None:
    """Libvirtd restarts: nothing was sent yet, so it is tried again."""
    machine = FakeMachine(on={"press": FakeMachine.powers_off})
    machine.faults["press"] = Trouble(Fault.CUT, "no connection just now")

    def heed(_: Run) -> None:
        asyncio.get_running_loop().call_later(0.4, machine.faults.clear)

    finished, _ = stop(machine, while_running=heed)
    assert (finished.ending, machine.done) == (Ending.ORDERLY, ["press"])


def test_one_that_reboots_has_not_stopped() -> None:
    """It came back by itself after the ask."""
    machine = FakeMachine(on={"press": lambda m: m.happens(Kind.RESET, guest=True)})
    finished, _ = stop(machine)
    assert finished.ending is Ending.REBOOTED


def test_what_the_journal_says_of_a_press() -> None:
    """A press in doubt counts as made; only one to a deaf guest is known to have been lost."""
    rungs = GuestTarget(ADDRESS, FakeMachine(), GuestWish()).ladder
    started: tuple[float, Event] = (1.0, Started(rungs, 10, 10))
    facts: dict[str, str | int | None] = {"rung": "press", "hears": 0}
    done: list[tuple[float, Event]] = [
        started,
        (2.0, Intended(0, 1, facts)),
        (2.1, Asked(0, 1, Outcome.DONE)),
    ]
    memory = recalled(done, rungs)
    memory.sampled(DEAF, now_s(), memory.pressed)
    assert (memory.asked_s, memory.press) == (2.0, Press.DROPPED)

    for hears, registers, became in (
        (0, DEAF, Press.DROPPED),
        (0, LISTENS, Press.UNSURE),
        (1, LISTENS, Press.UNSURE),
        (1, DEAF, Press.UNSURE),
    ):
        in_doubt = Intended(0, 1, {"rung": "press", "hears": hears})
        memory = recalled([started, (2.0, in_doubt)], rungs)
        memory.sampled(registers, now_s(), memory.pressed)
        assert (memory.asked_s, memory.press) == (2.0, became)

    failed: list[tuple[float, Event]] = [
        started,
        (2.0, Intended(0, 1, facts)),
        (2.1, Asked(0, 1, Outcome.FAILED)),
    ]
    assert recalled(failed, rungs).press is None


def test_happenings_without_end_fill_no_memory() -> None:
    """A guest that is reset for ever is remembered by its last resets and its power-off."""
    machine = FakeMachine()

    async def work() -> GuestTarget:
        target = GuestTarget(ADDRESS, machine, GuestWish())
        machine.happens(Kind.SHUTDOWN, guest=True, reason="guest-shutdown")
        for _ in range(3000):
            machine.happens(Kind.WATCHDOG)
        return target

    happened = asyncio.run(work()).memory.happened
    assert len(happened) <= 500
    assert happened[0].kind is Kind.SHUTDOWN
