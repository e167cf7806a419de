"""What is said of a guest before it is asked: one row a fact, and whatever else may come."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record
from lastcall.targets.guest.before import findings
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.wish import Allow, Ask, GuestWish
from lastcall.targets.guest.words import AgentSight, Button, Pm1, Power, Setup, System

NOW_S = 10_000.0
LISTENS = Pm1(0x0001, 0x0120, 0x0001)
FIRMWARE = Pm1(0, 0, 0)
NO_DRIVER = Pm1(0, 0x0020, 0x0001)
WAITING = Pm1(0x0100, 0x0100, 0x0001)

BLOCKER, WARNING, NOTE = Severity.BLOCKER, Severity.WARNING, Severity.NOTE
PRESS = GuestWish()
BOTH = GuestWish(asks=((Ask.PRESS, 60.0), (Ask.AGENT, None)))
AGENT = GuestWish(asks=((Ask.AGENT, None),))
LINUX_AGENT = AgentSight(
    connected=True, answers=True, system=System.LINUX, name="Debian", users=("ada",)
)
WINDOWS_AGENT = AgentSight(connected=True, answers=True, system=System.WINDOWS, users=("ada",))


@record
class Known:
    """What `findings` is given; by default a guest with which all is well."""

    setup: Setup = Setup(button=Button.PM1, started_s=1.0, agent=False)
    power: Power = Power.RUNNING
    registers: Pm1 | None = LISTENS
    agent: AgentSight | None = None
    wish: GuestWish = PRESS
    troubles: tuple[Trouble, ...] = ()

    def findings(self) -> tuple[Finding, ...]:
        """What is said of it."""
        return findings(
            self.setup,
            self.power,
            self.registers,
            self.agent,
            self.wish,
            self.troubles,
            NOW_S,
        )


WELL = Known()
OLD = Setup(button=Button.PM1, started_s=1.0, agent=False)
YOUNG = replace(OLD, started_s=NOW_S - 5)
WITH_AGENT = replace(OLD, agent=True)
UNCONSENTED = Trouble(Fault.NOT_ALLOWED, "the monitor is not read without consent")
HUNG = Trouble(Fault.HUNG, "QEMU's monitor said nothing for 3 s")


ROWS: dict[str, tuple[Known, dict[str, Severity]]] = {
    "it listens": (WELL, {"listens": NOTE}),
    "up, but no driver for the button": (
        replace(WELL, registers=NO_DRIVER),
        {"button-not-heard": BLOCKER},
    ),
    "up, but no driver, and the agent is asked next": (
        replace(WELL, setup=WITH_AGENT, registers=NO_DRIVER, agent=LINUX_AGENT, wish=BOTH),
        {"button-not-heard": WARNING, "agent-answers": NOTE},
    ),
    "no driver, and on Windows the agent is no next ask": (
        replace(WELL, setup=WITH_AGENT, registers=NO_DRIVER, agent=WINDOWS_AGENT, wish=BOTH),
        {"button-not-heard": BLOCKER, "agent-answers": NOTE, "agent-closes-apps": WARNING},
    ),
    "no driver, and the button is not pressed at all": (
        replace(WELL, setup=WITH_AGENT, registers=NO_DRIVER, agent=LINUX_AGENT, wish=AGENT),
        {"button-not-heard": NOTE, "agent-answers": NOTE},
    ),
    "in firmware": (
        replace(WELL, registers=FIRMWARE),
        {"button-not-heard": BLOCKER, "firmware": NOTE},
    ),
    "started just now": (
        replace(WELL, setup=YOUNG, registers=FIRMWARE),
        {"button-not-heard": WARNING, "booting": NOTE},
    ),
    "started just now, ACPI is on already": (
        replace(WELL, setup=YOUNG, registers=NO_DRIVER),
        {"button-not-heard": WARNING, "booting": NOTE},
    ),
    "started just now, but its agent answers: it is up": (
        replace(WELL, setup=replace(YOUNG, agent=True), registers=NO_DRIVER, agent=LINUX_AGENT),
        {"button-not-heard": BLOCKER, "agent-answers": NOTE},
    ),
    "started just now, and it is not to be pressed again": (
        replace(WELL, setup=YOUNG, registers=FIRMWARE, wish=GuestWish(press_again=False)),
        {"button-not-heard": BLOCKER, "booting": NOTE},
    ),
    "started just now, and listens already": (replace(WELL, setup=YOUNG), {"listens": NOTE}),
    "nobody knows when it was started": (
        replace(WELL, setup=replace(OLD, started_s=None), registers=FIRMWARE),
        {"button-not-heard": BLOCKER, "firmware": NOTE},
    ),
    "an earlier press waits": (replace(WELL, registers=WAITING), {"press-pending": WARNING}),
    "no ACPI": (
        replace(WELL, setup=replace(OLD, button=Button.NONE), registers=None),
        {"acpi-off": BLOCKER},
    ),
    "a generic event device": (
        replace(WELL, setup=replace(OLD, button=Button.GED), registers=None),
        {"button-unread": NOTE},
    ),
    "Windows on a generic event device": (
        replace(
            WELL,
            setup=replace(OLD, button=Button.GED),
            registers=None,
            wish=GuestWish(system=System.WINDOWS),
        ),
        {"button-unread": BLOCKER},
    ),
    "nothing was read": (replace(WELL, registers=None), {"button-unread": NOTE}),
    "libvirt's monitor without consent": (
        replace(WELL, registers=None, troubles=(UNCONSENTED,)),
        {"monitor-unread": NOTE},
    ),
    "the hypervisor says nothing": (
        replace(WELL, power=Power.UNKNOWN, registers=None, troubles=(HUNG,)),
        {"button-unread": NOTE, "monitor-busy": WARNING},
    ),
    "several calls hang": (
        replace(WELL, registers=None, troubles=(HUNG, HUNG)),
        {"button-unread": NOTE, "monitor-busy": WARNING},
    ),
    "one call hangs, the agent's perhaps": (
        replace(WELL, troubles=(HUNG,)),
        {"listens": NOTE, "not-found-out": NOTE},
    ),
    "something could not be found out": (
        replace(WELL, troubles=(Trouble(Fault.REFUSED, "no such command"),) * 2),
        {"listens": NOTE, "not-found-out": NOTE},
    ),
    "paused": (replace(WELL, power=Power.PAUSED), {"paused": BLOCKER, "listens": NOTE}),
    "paused, and may be let go on": (
        replace(WELL, power=Power.PAUSED, wish=GuestWish(allow=frozenset({Allow.RESUME}))),
        {"paused": NOTE, "listens": NOTE},
    ),
    "asleep": (replace(WELL, power=Power.SUSPENDED), {"asleep": BLOCKER}),
    "asleep, and may be woken": (
        replace(WELL, power=Power.SUSPENDED, wish=GuestWish(allow=frozenset({Allow.WAKE}))),
        {"asleep": NOTE},
    ),
    "asleep for good": (
        replace(
            WELL,
            setup=replace(OLD, wakes=False),
            power=Power.SUSPENDED,
            wish=GuestWish(allow=frozenset({Allow.WAKE})),
        ),
        {"no-wakeup": BLOCKER},
    ),
    "off": (replace(WELL, power=Power.OFF), {"off": NOTE}),
    "gone": (replace(WELL, power=Power.GONE), {"off": NOTE}),
    "panicked": (replace(WELL, power=Power.PANICKED), {"panicked": BLOCKER}),
    "failed": (replace(WELL, power=Power.FAILED), {"machine-failed": BLOCKER}),
    "migrating": (replace(WELL, power=Power.MIGRATING), {"migrating": BLOCKER}),
    "on_poweroff=restart": (
        replace(WELL, setup=replace(OLD, on_poweroff="restart")),
        {"poweroff-restarts": BLOCKER, "listens": NOTE},
    ),
    "on_poweroff=preserve": (
        replace(WELL, setup=replace(OLD, on_poweroff="preserve")),
        {"stays-when-off": WARNING, "listens": NOTE},
    ),
    "on_poweroff=destroy": (
        replace(WELL, setup=replace(OLD, on_poweroff="destroy", stays_when_off=False)),
        {"listens": NOTE},
    ),
    "-no-shutdown": (
        replace(WELL, setup=replace(OLD, stays_when_off=True)),
        {"stays-when-off": NOTE, "listens": NOTE},
    ),
    "the agent answers": (
        replace(WELL, setup=WITH_AGENT, agent=LINUX_AGENT),
        {"listens": NOTE, "agent-answers": NOTE},
    ),
    "the agent is silent, and nobody needs it": (
        replace(WELL, setup=WITH_AGENT, agent=AgentSight(connected=True, answers=False)),
        {"listens": NOTE, "agent-silent": NOTE},
    ),
    "the agent is silent, and would be asked": (
        replace(WELL, setup=WITH_AGENT, agent=AgentSight(connected=False), wish=BOTH),
        {"listens": NOTE, "agent-silent": WARNING},
    ),
    "the agent alone would be asked, and there is none": (
        replace(WELL, wish=AGENT),
        {"listens": NOTE, "agent-silent": BLOCKER},
    ),
    "the agent was not looked at": (
        replace(WELL, setup=WITH_AGENT, wish=AGENT),
        {"listens": NOTE, "agent-silent": NOTE},
    ),
    "the agent on Windows": (
        replace(WELL, setup=WITH_AGENT, agent=WINDOWS_AGENT, wish=BOTH),
        {"listens": NOTE, "agent-answers": NOTE, "agent-closes-apps": WARNING},
    ),
    "the agent on what nobody knows": (
        replace(WELL, setup=WITH_AGENT, agent=AgentSight(connected=True, answers=True), wish=BOTH),
        {"listens": NOTE, "agent-answers": NOTE, "agent-closes-apps": WARNING},
    ),
    "the agent on Windows, which is not asked": (
        replace(WELL, setup=WITH_AGENT, agent=WINDOWS_AGENT),
        {"listens": NOTE, "agent-answers": NOTE},
    ),
    "nobody is logged on to Windows": (
        replace(WELL, setup=WITH_AGENT, agent=replace(WINDOWS_AGENT, users=())),
        {"listens": NOTE, "agent-answers": NOTE, "nobody-logged-on": WARNING},
    ),
    "nobody is logged on to Linux": (
        replace(WELL, setup=WITH_AGENT, agent=replace(LINUX_AGENT, users=())),
        {"listens": NOTE, "agent-answers": NOTE},
    ),
    "nobody knows who is logged on to Windows": (
        replace(WELL, setup=WITH_AGENT, agent=replace(WINDOWS_AGENT, users=None)),
        {"listens": NOTE, "agent-answers": NOTE},
    ),
}


@pytest.mark.parametrize(("known", "expected"), ROWS.values(), ids=ROWS.keys())
def test_each_fact_has_its_finding(known: Known, expected: dict[str, Severity]) -> None:
    """Every row is told by these findings, with this severity, and by no other."""
    assert {finding.code: finding.severity for finding in known.findings()} == expected


def test_a_listening_guest_is_told_with_its_registers() -> None:
    """That all is well is said, for certain, and with what it rests on."""
    [finding] = WELL.findings()
    assert finding.confidence is Confidence.CERTAIN
    assert finding.evidence == ("PM1_STS=0x0001 PM1_EN=0x0120 PM1_CNT=0x0001",)


def test_consent_to_the_monitor_is_asked_for_with_its_price() -> None:
    """Who has not consented reads what it would tell, how to allow it, and that it taints."""
    [finding] = replace(WELL, registers=None, troubles=(UNCONSENTED,)).findings()
    assert "--allow monitor" in finding.advice
    assert any("tainted" in line for line in finding.evidence)


def test_what_may_be_done_to_it_is_advised_where_it_is_not_allowed() -> None:
    """A paused and a sleeping guest come with the option that helps, unless it is given."""
    for power, allow in ((Power.PAUSED, Allow.RESUME), (Power.SUSPENDED, Allow.WAKE)):
        bad = replace(WELL, power=power)
        assert f"--allow {allow}" in bad.findings()[0].advice
        allowed = replace(bad, wish=GuestWish(allow=frozenset({allow})))
        assert not any("--allow" in finding.advice for finding in allowed.findings())


def test_under_kvm_a_missing_driver_may_be_firmware() -> None:
    """With KVM, ACPI reads as on in bare firmware, too: the evidence says so."""
    kvm = replace(WELL, setup=replace(OLD, accelerator="kvm"), registers=NO_DRIVER)
    [finding] = kvm.findings()
    assert any("KVM" in line for line in finding.evidence)


def test_the_gravest_comes_first() -> None:
    """Blockers stand before warnings, and these before notes."""
    bad = replace(
        WELL,
        setup=replace(WITH_AGENT, on_poweroff="restart"),
        agent=replace(WINDOWS_AGENT, users=()),
    )
    assert [finding.severity for finding in bad.findings()] == [BLOCKER, WARNING, NOTE, NOTE]


def test_a_guests_own_words_cannot_write_on_the_terminal() -> None:
    """Control characters in what an agent says do not come through."""
    evil = AgentSight(connected=True, answers=True, name="\x1b[2Jx", users=("\x07\n",) * 99)
    told = replace(WELL, setup=WITH_AGENT, agent=evil).findings()
    lines = [line for finding in told for line in finding.evidence]
    assert all(line.isprintable() and len(line) < 1000 for line in lines)


registers = st.none() | st.builds(Pm1, *[st.integers(0, 0xFFFF)] * 3)
optional = st.none() | st.booleans()
agents = st.builds(
    AgentSight,
    connected=optional,
    answers=optional,
    system=st.sampled_from(System),
    name=st.text(max_size=20),
    users=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    detail=st.text(max_size=20),
)
knowns = st.builds(
    Known,
    setup=st.builds(
        Setup,
        button=st.sampled_from(Button),
        wakes=optional,
        stays_when_off=optional,
        on_poweroff=st.sampled_from(["", "destroy", "restart", "preserve", "?"]),
        agent=optional,
        started_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    power=st.sampled_from(Power),
    registers=registers,
    agent=st.none() | agents,
    wish=st.builds(
        GuestWish,
        asks=st.sampled_from([PRESS.asks, BOTH.asks, AGENT.asks]),
        allow=st.frozensets(st.sampled_from(Allow)),
        press_again=st.booleans(),
        system=st.sampled_from(System),
    ),
    troubles=st.lists(
        st.sampled_from(Fault).map(lambda fault: Trouble(fault, "x")), max_size=3
    ).map(tuple),
)


@given(knowns)
def test_whatever_is_known_something_true_is_said(known: Known) -> None:
    """Anything gives findings; a button is never said to be heard that the registers deny."""
    told = known.findings()
    codes = [finding.code for finding in told]
    assert len(codes) == len(set(zip(codes, (f.title for f in told), strict=True)))
    assert all(f.title for f in told)
    if "listens" in codes:
        assert known.registers is not None
        assert known.registers.hears
    if {"button-not-heard", "booting", "firmware"} & set(codes):
        assert known.registers is not None
        assert not known.registers.hears
