"""What is said of a guest that has not stopped: one row a cause, and what must not be said.

Each row also names the facts that its cause rests on: put another in the place of any of them, and
the name must vanish.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcall.model import Confidence, Severity
from lastcall.targets.guest.during import CANDIDATE_SETS, diagnose, progress
from lastcall.targets.guest.evidence import Evidence, Rates, Screen
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.press import Press
from lastcall.targets.guest.screen.phrases import Sign
from lastcall.targets.guest.screen.wordings import Kind as Says
from lastcall.targets.guest.words import (
    AgentSight,
    Button,
    Happening,
    Kind,
    Pm1,
    Power,
    Setup,
    System,
)

NOW_S = 10_000.0
PRESSED_S = NOW_S - 30
SETUP = Setup(button=Button.PM1, started_s=1.0, wakes=True)
LISTENS = Pm1(0x0001, 0x0120, 0x0001)
WAITING = Pm1(0x0101, 0x0120, 0x0001)
FIRMWARE = Pm1(0, 0, 0)
NO_DRIVER = Pm1(0, 0x0020, 0x0001)

IDLE = Rates(25.0, 0.01, 2_000.0)
BUSY = Rates(25.0, 0.8, 4e6)
SPINS = Rates(25.0, 1.0, 0.0)
STILL = Screen(moved=False, over_s=25.0)

TAKEN = Evidence(
    NOW_S,
    SETUP,
    Power.RUNNING,
    pressed_s=(PRESSED_S,),
    press=Press.TAKEN,
    before=LISTENS,
    registers=LISTENS,
    rates=IDLE,
    screen=STILL,
    moved_s=PRESSED_S,
)
WORKING = replace(TAKEN, rates=BUSY, screen=replace(STILL, moved=True), moved_s=NOW_S)
DROPPED = replace(TAKEN, press=Press.DROPPED, before=NO_DRIVER, registers=NO_DRIVER)
IN_FIRMWARE = replace(DROPPED, before=FIRMWARE, registers=FIRMWARE)
PENDING = replace(TAKEN, press=Press.PENDING, registers=WAITING)
BLIND = replace(TAKEN, registers=None, rates=None, screen=None)
BY_AGENT = replace(TAKEN, pressed_s=(), press=None, before=None, agent_asked_s=PRESSED_S)
THERE = AgentSight(connected=True, answers=True, users=("ada",))
HUNG = Trouble(Fault.HUNG, "no answer within 3 s")


def sign(kind: Says, score: float = 0.9, value: str = "") -> Sign:
    """A sign of a kind, sure enough to go by."""
    return Sign(kind, f"words of {kind.name}", "en", score, value)


def shows(seen: Evidence, *signs: Sign) -> Evidence:
    """The same with these signs on the screen."""
    screen = seen.screen or STILL
    text = "\n".join(each.words for each in signs)
    return replace(seen, screen=replace(screen, signs=signs, text=text))


def saw(seen: Evidence, *kinds: Kind, at_s: float = NOW_S - 20, guest: bool = True) -> Evidence:
    """The same after these things happened, one each second."""
    more = tuple(Happening(kind, at_s + i, guest) for i, kind in enumerate(kinds))
    return replace(seen, happened=(*seen.happened, *more))


UPDATING = shows(WORKING, sign(Says.UPDATING, value="35%"))
REASON = shows(TAKEN, sign(Says.REASON))
APP_BLOCKS = shows(TAKEN, sign(Says.APP_BLOCKS, value="Notepad"))
LOGON = shows(TAKEN, sign(Says.LOGON, value="dialog"))
STOP_JOB = shows(TAKEN, sign(Says.STOP_JOB, value="A database"))
NO_SIGNS: dict[str, Any] = {"screen": STILL}
UNSURE: dict[str, Any] = {"screen": replace(STILL, signs=(sign(Says.UPDATING, 0.6),))}

# Evidence, the first finding that it gives, and facts with any of which that name must go.
ROWS: dict[str, tuple[Evidence, str, list[dict[str, Any]]]] = {
    "dropped": (DROPPED, "press-dropped", [{"press": Press.TAKEN}, {"press": Press.PENDING}]),
    "dropped in firmware": (IN_FIRMWARE, "press-dropped", [{"press": Press.TAKEN}]),
    "halted with interrupts off": (
        replace(PENDING, rates=Rates(25.0, 0.0, 0.0)),
        "halted",
        [{"press": Press.TAKEN}, {"rates": SPINS}, {"rates": None}, {"power": Power.PAUSED}],
    ),
    "spins": (
        replace(PENDING, rates=SPINS),
        "spinning",
        [{"press": Press.TAKEN}, {"rates": IDLE}, {"rates": None}],
    ),
    "not serviced": (
        replace(PENDING, rates=None),
        "press-not-serviced",
        [{"press": Press.TAKEN}, {"rates": SPINS}, {"pressed_s": (NOW_S - 1,)}],
    ),
    "pending for a moment": (
        replace(PENDING, pressed_s=(NOW_S - 1,)),
        "press-pending",
        [{"press": Press.TAKEN}, {"pressed_s": (PRESSED_S,)}],
    ),
    "paused": (replace(PENDING, power=Power.PAUSED), "paused", [{"power": Power.RUNNING}]),
    "asleep": (replace(PENDING, power=Power.SUSPENDED), "asleep", [{"power": Power.RUNNING}]),
    "asleep for good": (
        replace(PENDING, power=Power.SUSPENDED, setup=replace(SETUP, wakes=False)),
        "no-wakeup",
        [{"setup": SETUP}],
    ),
    "fell asleep on the press": (
        saw(replace(TAKEN, power=Power.SUSPENDED), Kind.SUSPEND),
        "fell-asleep",
        [{"happened": ()}, {"pressed_s": (NOW_S - 3,)}],
    ),
    "fell asleep, and is awake again": (
        saw(TAKEN, Kind.SUSPEND, Kind.WAKEUP),
        "fell-asleep",
        [{"happened": ()}, {"pressed_s": (NOW_S - 3,)}],
    ),
    "pressed in its sleep": (
        saw(TAKEN, Kind.SUSPEND, Kind.WAKEUP, at_s=PRESSED_S - 0.5),
        "press-used-up",
        [{"happened": ()}, {"pressed_s": (NOW_S - 3,)}],
    ),
    "pressed in its sleep, and deaf since": (
        replace(
            saw(TAKEN, Kind.SUSPEND, Kind.WAKEUP, at_s=PRESSED_S - 0.5),
            registers=Pm1(0xFFFF, 0xFFFF, 0xFFFF),
        ),
        "dead-after-waking",
        [{"happened": ()}, {"registers": LISTENS}],
    ),
    "asleep before anybody looked": (
        saw(TAKEN, Kind.WAKEUP, at_s=PRESSED_S + 0.5),
        "press-used-up",
        [{"happened": ()}],
    ),
    "panicked": (replace(TAKEN, power=Power.PANICKED), "panicked", [{"power": Power.RUNNING}]),
    "panicked, and runs on": (saw(TAKEN, Kind.PANICKED), "panicked", [{"happened": ()}]),
    "panicked, says the screen": (
        shows(TAKEN, sign(Says.PANIC, value="Fatal exception")),
        "panicked",
        [NO_SIGNS],
    ),
    "panicked, takes nothing": (shows(PENDING, sign(Says.PANIC)), "panicked", [NO_SIGNS]),
    "disk failed": (
        saw(replace(TAKEN, power=Power.FAILED), Kind.IO_ERROR),
        "disk-failed",
        [{"happened": ()}, {"power": Power.RUNNING}],
    ),
    "QEMU failed": (replace(TAKEN, power=Power.FAILED), "machine-failed", []),
    "migrated": (saw(TAKEN, Kind.MIGRATED), "migrating", [{"happened": ()}]),
    "migrating": (replace(TAKEN, power=Power.MIGRATING), "migrating", [{"power": Power.RUNNING}]),
    "rebooted": (
        saw(TAKEN, Kind.RESET),
        "rebooted-instead",
        [{"happened": ()}, {"pressed_s": (NOW_S - 3,)}],
    ),
    "reset from outside": (
        saw(TAKEN, Kind.RESET, guest=False),
        "reset-outside",
        [{"happened": ()}],
    ),
    "off": (saw(TAKEN, Kind.SHUTDOWN), "off", [{"happened": ()}]),
    "the monitor hangs": (
        replace(BLIND, troubles=(HUNG, HUNG)),
        "monitor-busy",
        [{"troubles": (HUNG,)}, {"registers": LISTENS}, {"rates": IDLE}, {"screen": STILL}],
    ),
    "libvirt hangs": (
        replace(BLIND, troubles=(HUNG, HUNG), setup=replace(SETUP, on_poweroff="destroy")),
        "libvirt-hung",
        [{"troubles": (HUNG,)}, {"registers": LISTENS}, {"setup": SETUP}],
    ),
    "the connection is lost": (
        saw(BLIND, Kind.CUT),
        "connection-lost",
        [{"happened": ()}, {"screen": STILL}],
    ),
    "updating": (
        UPDATING,
        "updating",
        [NO_SIGNS, UNSURE, {"press": Press.DROPPED, "before": FIRMWARE}, {"press": Press.PENDING}],
    ),
    "says that it updates, and stands still": (
        shows(TAKEN, sign(Says.UPDATING)),
        "update-stands-still",
        [NO_SIGNS, {"rates": BUSY}, {"moved_s": NOW_S - 3}],
    ),
    "asks for a reason": (
        REASON,
        "waits-for-reason",
        [NO_SIGNS, {"system": System.LINUX}, {"press": Press.DROPPED}, {"press": Press.PENDING}],
    ),
    "an application blocks": (
        APP_BLOCKS,
        "app-blocks",
        [NO_SIGNS, {"system": System.LINUX}, {"press": Press.DROPPED}, {"press": Press.PENDING}],
    ),
    "a logon screen": (
        LOGON,
        "logon-screen",
        [
            NO_SIGNS,
            {"system": System.LINUX},
            {"press": Press.DROPPED},
            {"rates": BUSY},
            {"agent": THERE},
            {"pressed_s": (NOW_S - 3,)},
        ],
    ),
    "a stop job": (
        STOP_JOB,
        "service-ending-slowly",
        [NO_SIGNS, {"system": System.WINDOWS}, {"press": Press.DROPPED}],
    ),
    "the agent left": (
        saw(WORKING, Kind.AGENT_CLOSED),
        "service-ending-slowly",
        [{"happened": ()}, {"press": Press.DROPPED}, {"pressed_s": (NOW_S - 3,)}],
    ),
    "the agent is there no more": (
        replace(WORKING, agent_before=THERE, agent=AgentSight(connected=False)),
        "service-ending-slowly",
        [{"agent": THERE}, {"agent_before": None}],
    ),
    "shuts down, and nothing more is known": (
        shows(TAKEN, sign(Says.SHUTTING_DOWN)),
        "shutting-down",
        [NO_SIGNS, {"press": Press.DROPPED}],
    ),
    "halted instead of off": (shows(TAKEN, sign(Says.HALTED)), "ended-not-off", [NO_SIGNS]),
    "checks a disk": (shows(WORKING, sign(Says.DISK_CHECK)), "disk-check", [NO_SIGNS]),
    "checks a disk while it starts": (
        shows(IN_FIRMWARE, sign(Says.DISK_CHECK)),
        "disk-check",
        [NO_SIGNS],
    ),
    "signs that disagree": (
        shows(TAKEN, sign(Says.REASON), sign(Says.UPDATING)),
        "signs-disagree",
        [NO_SIGNS, {"screen": REASON.screen}],
    ),
    "taken, nothing moves": (
        TAKEN,
        "taken-nothing-moves",
        [{"rates": BUSY}, {"press": Press.UNREAD}, {"press": Press.DROPPED}],
    ),
    "taken, at work": (
        WORKING,
        "taken-still-working",
        [{"rates": IDLE, "screen": STILL}, {"press": Press.UNREAD}],
    ),
    "taken, nothing else is known": (
        replace(TAKEN, rates=None, screen=None),
        "taken-unexplained",
        [{"rates": IDLE}, {"rates": BUSY}],
    ),
    "nobody knows whether it was taken": (
        replace(TAKEN, press=Press.UNREAD, registers=None, before=None),
        "press-unread",
        [{"press": Press.TAKEN}, {"press": Press.DROPPED}],
    ),
    "pressed a moment ago": (
        replace(TAKEN, pressed_s=(NOW_S - 3,)),
        "just-asked",
        [{"pressed_s": (PRESSED_S,)}],
    ),
    "the agent was asked, and nothing comes of it": (
        BY_AGENT,
        "agent-no-effect",
        [{"agent_asked_s": None}, {"agent_asked_s": NOW_S - 3}],
    ),
    "dropped, then the agent was asked": (
        replace(DROPPED, agent_asked_s=PRESSED_S + 5),
        "agent-no-effect",
        [{"agent_asked_s": None}],
    ),
}
# What only words on a screen may name.
NEED_WORDS = {
    "updating",
    "update-stands-still",
    "waits-for-reason",
    "app-blocks",
    "logon-screen",
    "shutting-down",
    "ended-not-off",
    "disk-check",
}


def codes(seen: Evidence) -> list[str]:
    """The codes of its diagnosis."""
    return [finding.code for finding in diagnose(seen)]


def first(seen: Evidence) -> str:
    """The code of its answer."""
    return codes(seen)[0] if codes(seen) else ""


@pytest.mark.parametrize(("seen", "code"), [row[:2] for row in ROWS.values()], ids=ROWS.keys())
def test_each_cause_has_its_name(seen: Evidence, code: str) -> None:
    """The evidence of each row gives this answer first."""
    assert first(seen) == code


@pytest.mark.parametrize(
    ("seen", "code", "swap"),
    [(seen, code, swap) for seen, code, swaps in ROWS.values() for swap in swaps],
    ids=[f"{name}: not {', '.join(s)} {i}" for name, r in ROWS.items() for i, s in enumerate(r[2])],
)
def test_without_what_it_rests_on_the_name_goes(
    seen: Evidence, code: str, swap: dict[str, Any]
) -> None:
    """With another fact in the place of a decisive one, the answer is another."""
    assert first(replace(seen, **swap)) != code


@pytest.mark.parametrize("seen", [row[0] for row in ROWS.values()], ids=ROWS.keys())
def test_each_answer_says_what_it_rests_on_and_what_to_do(seen: Evidence) -> None:
    """Each first finding has evidence, and advice unless it is a note."""
    answer = diagnose(seen)[0]
    assert answer.evidence
    assert answer.advice or answer.severity is Severity.NOTE


def test_what_it_does_instead_of_listening_stands_beside_a_dropped_press() -> None:
    """Firmware, and a guest that starts, are named after the press that they dropped."""
    assert codes(IN_FIRMWARE) == ["press-dropped", "firmware"]
    young = replace(IN_FIRMWARE, setup=replace(SETUP, started_s=NOW_S - 40))
    assert codes(young) == ["press-dropped", "booting"]
    assert codes(DROPPED) == ["press-dropped"]
    assert codes(shows(young, sign(Says.FIRMWARE))) == ["press-dropped", "booting"]
    stuck = replace(sign(Says.FIRMWARE), words="No bootable device")
    assert codes(shows(young, stuck)) == ["press-dropped", "firmware"]
    up = replace(DROPPED, setup=young.setup)
    assert codes(up) == ["press-dropped", "booting"]
    assert codes(replace(up, agent_before=THERE)) == ["press-dropped"]


def test_that_nobody_was_asked_is_said_where_the_agent_alone_was_to_be() -> None:
    """Not where a press came to nothing, nor where the agent answers after all."""
    silent = AgentSight(connected=True, answers=False)
    nobody = replace(TAKEN, pressed_s=(), press=None, before=None, agent=silent, agent_failed=True)
    assert codes(nobody) == ["agent-silent"]
    assert codes(replace(nobody, agent=AgentSight(connected=False))) == ["agent-silent"]
    assert codes(replace(nobody, agent=THERE)) == []
    assert codes(replace(nobody, agent_failed=False)) == []


def test_a_service_without_limit_is_not_waited_for_like_one_with_a_limit() -> None:
    """Systemd never takes it away: longer is no remedy by itself, and if nothing moves it hangs."""
    limited = diagnose(STOP_JOB)[0]
    assert "at its own limit" in limited.advice
    assert (limited.severity, "may hang" in limited.title) == (Severity.WARNING, False)
    shown = STOP_JOB.screen
    assert shown is not None
    without = replace(STOP_JOB, screen=replace(shown, text="A stop job (1min / no limit)"))
    hangs = diagnose(without)[0]
    assert hangs.code == limited.code
    assert "without limit" in hangs.title
    assert (hangs.severity, "may hang" in hangs.title) == (Severity.BLOCKER, True)
    assert "never takes this one away" in hangs.advice
    works = diagnose(replace(without, rates=BUSY))[0]
    assert (works.severity, "may hang" in works.title) == (Severity.WARNING, False)


def test_a_guest_that_listens_by_now_is_to_be_pressed_again() -> None:
    """A dropped press is no dead end when the guest has come up since."""
    [finding] = diagnose(replace(IN_FIRMWARE, registers=LISTENS))
    assert "it listens now" in finding.advice


@pytest.mark.parametrize("asked", [TAKEN, replace(TAKEN, press=Press.UNREAD), BY_AGENT])
def test_without_decisive_evidence_there_is_one_finding_with_all_candidates(
    asked: Evidence,
) -> None:
    """A set of what it may be, only possible, and what would decide between them."""
    [finding] = diagnose(asked)
    assert finding.code in CANDIDATE_SETS
    assert finding.confidence is Confidence.POSSIBLE
    assert sum(line.startswith("may be ") for line in finding.evidence) >= 3
    assert "look at its screen" in finding.advice


def test_what_would_decide_is_named() -> None:
    """A reader for the screen, consent to the monitor, an agent: each where it is missing."""
    unread = replace(
        TAKEN,
        press=Press.UNREAD,
        screen=replace(STILL, unread="tesseract is not installed"),
        troubles=(Trouble(Fault.NOT_ALLOWED, "no consent"),),
    )
    [finding] = diagnose(unread)
    for step in ("tesseract", "--allow monitor", "a guest agent", "--ask press:60s,agent"):
        assert step in finding.advice
    assert "may be press-dropped: nobody in it listened to the power button" in finding.evidence


def test_who_is_logged_on_takes_a_candidate_away() -> None:
    """With a user logged on it is not that nobody is."""
    [finding] = diagnose(TAKEN)
    assert any("logon-screen" in line for line in finding.evidence)
    [finding] = diagnose(replace(TAKEN, agent=THERE))
    assert not any("logon-screen" in line for line in finding.evidence)
    assert "logged on, says the guest agent: ada" in finding.evidence


def test_candidates_are_those_of_the_system() -> None:
    """Linux has no logon policy, Windows no logind."""
    [linux] = diagnose(replace(TAKEN, system=System.LINUX))
    [windows] = diagnose(replace(TAKEN, system=System.WINDOWS))
    assert "logind" in str(linux.evidence)
    assert "logon-screen" not in str(linux.evidence)
    assert "powercfg" not in linux.advice
    assert "logind" not in str(windows.evidence)
    assert "PBUTTONACTION 3" in windows.advice


def test_a_consoles_prompt_names_nothing() -> None:
    """A login prompt stands on every text console: it is no logon screen that holds it up."""
    prompt = shows(TAKEN, sign(Says.LOGON, value="console"))
    assert first(prompt) == "taken-nothing-moves"


def test_a_session_that_is_only_locked_is_no_missing_logon() -> None:
    """The lock screen of somebody who is logged on leaves all candidates open."""
    [finding] = diagnose(replace(LOGON, agent=THERE))
    assert finding.code == "taken-nothing-moves"
    assert any("does not go with the rest" in line for line in finding.evidence)


def test_firmwares_words_on_the_screen_do_not_speak_against_the_registers() -> None:
    """What a firmware wrote stays on the screen: a press that was taken says that a system runs."""
    assert first(shows(TAKEN, sign(Says.FIRMWARE))) == "taken-nothing-moves"
    assert first(shows(UPDATING, sign(Says.FIRMWARE), sign(Says.UPDATING))) == "updating"


def test_an_update_makes_force_worse() -> None:
    """While an update is seen, the warning against force is a stronger one."""
    for seen in (UPDATING, shows(TAKEN, sign(Says.UPDATING)), shows(DROPPED, sign(Says.UPDATING))):
        assert "may never start again" in diagnose(seen)[0].advice
    assert "file system may be damaged" in diagnose(REASON)[0].advice


def test_an_agent_that_fell_silent_is_told_beside_the_answer() -> None:
    """It answered before, holds its port open, and answers no more."""
    silent = AgentSight(connected=True, answers=False)
    assert codes(replace(TAKEN, agent_before=THERE, agent=silent))[1:] == ["agent-hung"]
    assert codes(replace(BY_AGENT, agent_before=THERE, agent=silent))[1:] == ["agent-hung"]
    assert codes(replace(BY_AGENT, agent=silent))[1:] == ["agent-silent"]
    assert codes(replace(TAKEN, agent_before=THERE, agent=THERE))[1:] == []


def test_what_speaks_of_trouble_stands_beside_the_answer() -> None:
    """A watchdog that fired, and a disk that failed while the guest ran on."""
    troubled = saw(TAKEN, Kind.WATCHDOG, Kind.IO_ERROR)
    assert codes(troubled)[1:] == ["watchdog-fired", "disk-failed"]


NOBODY = AgentSight(connected=True, answers=True, users=())
MOVES = replace(STILL, moved=True)
CONFIDENCES: dict[str, tuple[Evidence, Confidence]] = {
    "an update that moves": (UPDATING, Confidence.LIKELY),
    "an update that was quiet for a moment": (
        replace(shows(TAKEN, sign(Says.UPDATING)), moved_s=NOW_S - 3),
        Confidence.POSSIBLE,
    ),
    "a reason": (REASON, Confidence.LIKELY),
    "a reason, and somebody is at it": (
        shows(replace(TAKEN, screen=MOVES), sign(Says.REASON)),
        Confidence.POSSIBLE,
    ),
    "a logon screen": (LOGON, Confidence.POSSIBLE),
    "a logon screen, and nobody is logged on": (replace(LOGON, agent=NOBODY), Confidence.LIKELY),
    "services end": (saw(WORKING, Kind.AGENT_CLOSED), Confidence.LIKELY),
    "services ended, and nothing moves": (saw(TAKEN, Kind.AGENT_CLOSED), Confidence.POSSIBLE),
    "the same, and its screen says so": (
        shows(saw(TAKEN, Kind.AGENT_CLOSED), sign(Says.SHUTTING_DOWN)),
        Confidence.LIKELY,
    ),
    "panicked, says its machine": (replace(TAKEN, power=Power.PANICKED), Confidence.CERTAIN),
    "panicked, and runs on": (saw(TAKEN, Kind.PANICKED), Confidence.LIKELY),
}


@pytest.mark.parametrize(("seen", "sure"), CONFIDENCES.values(), ids=CONFIDENCES.keys())
def test_it_is_as_sure_as_its_evidence(seen: Evidence, sure: Confidence) -> None:
    """What supports a cause, or speaks against it, changes how sure it is."""
    assert diagnose(seen)[0].confidence is sure


def test_what_is_half_known_is_no_stillness() -> None:
    """An update is not said to stand still where its disk or its processors are not known."""
    stuck = shows(TAKEN, sign(Says.UPDATING))
    for half in (Rates(25.0, None, 0.0), Rates(25.0, 0.0, None), None):
        assert first(replace(stuck, rates=half)) == "updating"


def test_a_second_press_may_have_been_a_cancel() -> None:
    """After two presses that is one candidate more, and the display one less."""
    twice = replace(TAKEN, pressed_s=(PRESSED_S - 20, PRESSED_S))
    assert "cancel" in str(diagnose(twice)[0].evidence)
    assert "its display" not in str(diagnose(twice)[0].evidence)
    assert "cancel" not in str(diagnose(TAKEN)[0].evidence)
    assert "cancel" not in str(diagnose(replace(twice, system=System.WINDOWS))[0].evidence)


def test_an_agent_that_was_the_only_ask_is_graver_when_it_hangs() -> None:
    """Beside a taken press its silence is a warning; alone it holds the stop up."""
    silent = AgentSight(connected=True, answers=False)
    beside = diagnose(replace(TAKEN, agent_before=THERE, agent=silent))[1]
    alone = diagnose(replace(BY_AGENT, agent_before=THERE, agent=silent))[1]
    assert (beside.severity, alone.severity) == (Severity.WARNING, Severity.BLOCKER)
    assert "--ask press" in alone.advice


@pytest.mark.parametrize("kind", Says)
def test_a_guests_own_words_cannot_write_on_the_terminal(kind: Says) -> None:
    """Control characters in what a guest says come through nowhere."""
    evil = Sign(kind, "\x1b[2J", "en", 0.9, "\x1b[2J")
    agent = AgentSight(connected=True, answers=False, users=("\x07",), detail="\x1b[2J")
    for bare in (TAKEN, WORKING, DROPPED, PENDING, BY_AGENT):
        seen = replace(shows(bare, evil), agent=agent)
        plea = progress(seen)
        told = [plea[1]] if plea else []
        for finding in diagnose(seen):
            told += [finding.title, finding.advice, *finding.evidence]
        assert all(each.isprintable() for each in told)


def test_figures_stand_in_the_evidence() -> None:
    """Registers, rates, stillness, words, users and the kept picture, each with its figure."""
    screen = replace(STILL, signs=(sign(Says.REASON),), kept="/var/x.png")
    told = diagnose(replace(TAKEN, screen=screen, agent=AgentSight(users=())))[0].evidence
    assert told == (
        'its screen says "words of REASON" (en, 90% alike)',
        "writes 2.0 kB/s to its disks, keeps 0.01 processors busy (over 25.0 s)",
        "its picture did not change in 25 s",
        "nothing was seen to move in it for 30 s",
        "logged on, says the guest agent: nobody",
        "pressed 30 s ago; taken by the guest's kernel",
        "right before the press: PM1_STS=0x0001 PM1_EN=0x0120 PM1_CNT=0x0001",
        "now: PM1_STS=0x0001 PM1_EN=0x0120 PM1_CNT=0x0001",
        "picture: /var/x.png",
    )


PLEAS: dict[str, tuple[Evidence, bool]] = {
    "updating": (UPDATING, True),
    "updates quietly": (
        replace(shows(TAKEN, sign(Says.UPDATING)), rates=Rates(5.0, 0.2, 50_000.0)),
        True,
    ),
    "says that it updates, and stands still": (shows(TAKEN, sign(Says.UPDATING)), False),
    "updating, but the press was dropped": (replace(UPDATING, press=Press.DROPPED), False),
    "updating, but nobody pressed": (replace(UPDATING, press=None, pressed_s=()), False),
    "updating, but paused": (replace(UPDATING, power=Power.PAUSED), False),
    "updating, but it started again": (saw(UPDATING, Kind.RESET), False),
    "taken, and writes": (WORKING, True),
    "taken, and only computes": (replace(WORKING, rates=Rates(25.0, 0.9, 0.0)), False),
    "taken, and nothing moves": (TAKEN, False),
    "services end": (saw(WORKING, Kind.AGENT_CLOSED), True),
    "services ended, and nothing moves": (saw(TAKEN, Kind.AGENT_CLOSED), False),
    "a stop job": (STOP_JOB, True),
    "a stop job without a limit": (
        replace(STOP_JOB, screen=replace(STILL, signs=(sign(Says.STOP_JOB),), text="no limit")),
        False,
    ),
    "shuts down, at work": (shows(WORKING, sign(Says.SHUTTING_DOWN)), True),
    "shuts down, nothing moves": (shows(TAKEN, sign(Says.SHUTTING_DOWN)), False),
    "a reason, while something writes": (shows(WORKING, sign(Says.REASON)), False),
    "an application, while something writes": (shows(WORKING, sign(Says.APP_BLOCKS)), False),
    "a logon screen, while something writes": (
        shows(WORKING, sign(Says.LOGON, value="dialog")),
        False,
    ),
    "a console's prompt, while something writes": (
        shows(WORKING, sign(Says.LOGON, value="console")),
        True,
    ),
    "crashed, and writes a dump": (shows(WORKING, sign(Says.PANIC)), False),
    "an update and a reason": (shows(WORKING, sign(Says.UPDATING), sign(Says.REASON)), False),
}


@pytest.mark.parametrize(("seen", "more"), PLEAS.values(), ids=PLEAS.keys())
def test_only_a_guest_at_work_gets_more_time(seen: Evidence, more: bool) -> None:  # noqa: FBT001 (a column of the table)
    """Who updates or writes after a taken ask gets more; who waits for a person gets nothing."""
    plea = progress(seen)
    assert (plea is not None) == more
    if plea is not None:
        assert 0 < plea[0] <= 300
        assert plea[1]


optional = st.none() | st.booleans()
small = st.none() | st.floats(0, 1e8)
seconds = st.floats(0, NOW_S)
registers = st.none() | st.builds(Pm1, *[st.integers(0, 0xFFFF)] * 3)
signs = st.builds(
    Sign,
    st.sampled_from(Says),
    st.text(max_size=9),
    st.just("en"),
    st.floats(0.5, 1),
    st.sampled_from(["", "dialog", "console", "clock", "\x1b[2J"]),
)
screens = st.builds(
    Screen,
    moved=optional,
    over_s=small,
    blank=st.booleans(),
    text=st.text(max_size=20),
    signs=st.lists(signs, max_size=3).map(tuple),
    unread=st.text(max_size=9),
)
agents = st.builds(
    AgentSight,
    connected=optional,
    answers=optional,
    system=st.sampled_from(System),
    users=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
    detail=st.text(max_size=9),
)
happenings = st.builds(Happening, st.sampled_from(Kind), seconds, optional, st.text(max_size=5))
evidences = st.builds(
    Evidence,
    now_s=st.just(NOW_S),
    setup=st.builds(
        Setup,
        wakes=optional,
        on_poweroff=st.sampled_from(["", "destroy"]),
        started_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    power=st.sampled_from([*Power, *[Power.RUNNING] * 9]),
    system=st.sampled_from(System),
    pressed_s=st.lists(seconds, max_size=3).map(lambda times: tuple(sorted(times))),
    agent_asked_s=st.none() | seconds,
    press=st.none() | st.sampled_from(Press),
    before=registers,
    registers=registers,
    happened=st.lists(happenings, max_size=3).map(tuple),
    rates=st.none() | st.builds(Rates, st.floats(0.2, 1e4), small, small),
    screen=st.none() | screens,
    agent_before=st.none() | agents,
    agent=st.none() | agents,
    troubles=st.lists(
        st.sampled_from(Fault).map(lambda fault: Trouble(fault, "x")), max_size=3
    ).map(tuple),
    moved_s=st.none() | seconds,
)


@settings(max_examples=400)
@given(evidences)
def test_whatever_is_seen_nothing_untrue_is_named(seen: Evidence) -> None:
    """Any evidence gives findings, and none of them says what the evidence denies."""
    told = diagnose(seen)
    names = {finding.code for finding in told}
    signs = {each.kind for each in seen.screen.signs} if seen.screen else set()
    if seen.press is Press.DROPPED:
        assert not {name for name in names if name.startswith("taken-")}
    if seen.press is not Press.DROPPED:
        assert not names & {"press-dropped", "firmware", "booting"}
    if seen.press is not Press.PENDING:
        assert not names & {"press-not-serviced", "halted", "spinning", "press-pending"}
    if not signs:
        assert not names & NEED_WORDS
    for finding in told:
        if finding.code in NEED_WORDS:
            assert finding.confidence is not Confidence.CERTAIN
        if finding.code in CANDIDATE_SETS and finding.code != "just-asked":
            assert finding.confidence is Confidence.POSSIBLE
        assert all("\x1b" not in line for line in (finding.title, *finding.evidence))


@given(evidences)
def test_a_taken_press_alone_names_nothing(seen: Evidence) -> None:
    """Without words, agent and happenings, what follows a taken press has no name."""
    screen = None if seen.screen is None else replace(seen.screen, signs=())
    bare = replace(
        seen,
        power=Power.RUNNING,
        press=Press.TAKEN,
        happened=(),
        agent=None,
        screen=screen,
        troubles=(),
    )
    [finding] = diagnose(bare)
    assert finding.code in CANDIDATE_SETS


@given(evidences)
def test_more_time_needs_an_ask_that_came_through(seen: Evidence) -> None:
    """No guest gets more time that was not asked, dropped the press, or cannot run."""
    plea = progress(seen)
    if plea is not None:
        assert seen.agent_asked_s is not None or seen.press not in {
            None,
            Press.DROPPED,
            Press.PENDING,
        }
        assert seen.power in {Power.RUNNING, Power.UNKNOWN}
        assert "\x1b" not in plea[1]
