"""What the machine itself says holds the guest up: asleep, paused, broken, elsewhere. Pure.

Source: QEMU 7.2 softmmu/runstate.c (SUSPEND, WAKEUP, RESET), qapi/block-core.json
(BLOCK_IO_ERROR), hw/misc/pvpanic.c; hw/acpi/core.c (a press made in sleep is the reason to wake).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import AGENT_NEXT, FORCE, SHUTS_DOWN
from lastcall.targets.guest.during.facts import ask_lines, first_asked_s, last, trouble_lines
from lastcall.targets.guest.ended import powered_off, rebooted
from lastcall.targets.guest.machine import Fault
from lastcall.targets.guest.words import Button, Kind, Power, System

if TYPE_CHECKING:
    from lastcall.targets.guest.evidence import Evidence
    from lastcall.targets.guest.words import Happening


_SEVERAL = 2


def of_machine(seen: Evidence) -> Finding | None:
    """What the hypervisor itself knows to hold it up; None: nothing."""
    if seen.power in {Power.OFF, Power.GONE} or powered_off(seen.happened):
        return _off(seen)
    if last(seen, Kind.MIGRATED) is not None or seen.power is Power.MIGRATING:
        return _moved(seen)
    if _panic(seen):
        return _panicked(seen)
    if _disk(seen):
        return _disk_failed(seen)
    states = {
        Power.FAILED: _failed,
        Power.SUSPENDED: _asleep,
        Power.PAUSED: _paused,
    }
    if seen.power in states:
        return states[seen.power](seen)
    return _lost(seen) or _hung(seen) or _woken(seen) or _reset(seen)


def _line(seen: Evidence, what: Happening | None) -> tuple[str, ...]:
    if what is None:
        return ()
    reason = f" ({printable(what.reason or what.detail)})" if what.reason or what.detail else ""
    return (f"{max(0.0, seen.now_s - what.at_s):.0f} s ago: {what.kind}{reason}",)


def _state(seen: Evidence) -> str:
    return f"its machine is: {seen.power}"


def _off(seen: Evidence) -> Finding:
    return Finding(
        "off",
        "it has powered off; its machine is being cleared away",
        evidence=(_state(seen), *_line(seen, powered_off(seen.happened))),
    )


def _moved(seen: Evidence) -> Finding:
    gone = last(seen, Kind.MIGRATED)
    return Finding(
        "migrating",
        "it runs on another host now: it was not stopped"
        if gone
        else "it is being moved from or to another host: the ask may have reached nobody",
        Severity.BLOCKER,
        Confidence.CERTAIN if gone else Confidence.LIKELY,
        evidence=(_state(seen), *_line(seen, gone)),
        advice="stop it where it runs now"
        if gone
        else "wait until that is over, and stop it where it runs then",
    )


def _panic(seen: Evidence) -> bool:
    """A panic that nothing has come after: no reset, say."""
    newest = last(seen, Kind.PANICKED, Kind.RESET)
    return seen.power is Power.PANICKED or (newest is not None and newest.kind is Kind.PANICKED)


def _panicked(seen: Evidence) -> Finding:
    return Finding(
        "panicked",
        "its kernel has panicked: it cannot end by itself any more",
        Severity.BLOCKER,
        Confidence.CERTAIN if seen.power is Power.PANICKED else Confidence.LIKELY,
        evidence=(_state(seen), *_line(seen, last(seen, Kind.PANICKED)), *ask_lines(seen)),
        advice=f"save a memory dump first if you want to know why; {FORCE}",
    )


def _disk(seen: Evidence) -> bool:
    newest = last(seen, Kind.IO_ERROR, Kind.RESUME)
    failed = newest is not None and newest.kind is Kind.IO_ERROR
    return failed and seen.power in {Power.PAUSED, Power.FAILED}


def _disk_failed(seen: Evidence) -> Finding:
    return Finding(
        "disk-failed",
        "its disk failed, and QEMU has paused it: it can do nothing until it goes on",
        Severity.BLOCKER,
        evidence=(_state(seen), *_line(seen, last(seen, Kind.IO_ERROR))),
        advice="mend the disk on the host (full? unreachable?), then let it go on: virsh resume, "
        f"or cont in the monitor; {FORCE}",
    )


def _failed(seen: Evidence) -> Finding:
    return Finding(
        "machine-failed",
        "QEMU has stopped it after an error: it can do nothing any more",
        Severity.BLOCKER,
        evidence=(_state(seen),),
        advice=f"look at QEMU's log; {FORCE}",
    )


def _asleep(seen: Evidence) -> Finding:
    asked_s, slept = first_asked_s(seen), last(seen, Kind.SUSPEND)
    evidence = (_state(seen), *_line(seen, slept), *ask_lines(seen))
    if seen.setup.wakes is False:
        return Finding(
            "no-wakeup",
            "it sleeps, and its machine cannot be woken",
            Severity.BLOCKER,
            evidence=evidence,
            advice=f"keep it from sleeping in the first place; {FORCE}",
        )
    wake = "let it be woken and pressed again: --allow wake"
    if asked_s is not None and slept is not None and slept.at_s >= asked_s:
        return Finding(
            "fell-asleep",
            "it fell asleep after the ask instead of shutting down",
            Severity.BLOCKER,
            evidence=evidence,
            advice=f"{wake}; {_button_sleeps(seen.system)}",
        )
    return Finding(
        "asleep",
        "it sleeps: it does not react to a press, and waking uses the press up",
        Severity.BLOCKER,
        evidence=evidence,
        advice=wake,
    )


def _button_sleeps(system: System) -> str:
    windows = f"on Windows: {SHUTS_DOWN}"
    linux = "on Linux: HandlePowerKey=poweroff in logind.conf, or the desktop's power settings"
    chosen = {System.WINDOWS: windows, System.LINUX: linux}.get(system, f"{windows}; {linux}")
    return f"have its power button shut it down, {chosen}"


def _paused(seen: Evidence) -> Finding:
    stopped = last(seen, Kind.STOP)
    return Finding(
        "paused",
        "it is paused: a press waits until it goes on",
        Severity.BLOCKER,
        evidence=(_state(seen), *_line(seen, stopped), *ask_lines(seen)),
        advice="let it go on (virsh resume, or cont in the monitor), or allow that: --allow resume",
    )


def _blind(seen: Evidence) -> bool:
    """Whether this look saw nothing of the guest at all."""
    return seen.registers is None and seen.rates is None and seen.screen is None


def _lost(seen: Evidence) -> Finding | None:
    newest = last(seen, Kind.CUT, Kind.BACK)
    cut = newest is not None and newest.kind is Kind.CUT
    if not _blind(seen) or not (cut or any(t.fault is Fault.CUT for t in seen.troubles)):
        return None
    return Finding(
        "connection-lost",
        "the connection to it is lost: what it does now cannot be seen",
        Severity.WARNING,
        evidence=(*(_line(seen, newest) if cut else ()), *trouble_lines(seen)),
        advice="lastcall tries to get it back; look whether libvirtd or QEMU still runs",
    )


def _hung(seen: Evidence) -> Finding | None:
    # One call that hangs may be the agent's, or that of one disk.
    hung = [trouble for trouble in seen.troubles if trouble.fault is Fault.HUNG]
    if not _blind(seen) or len(hung) < _SEVERAL:
        return None
    if seen.setup.on_poweroff:  # only libvirt has such a setting
        return Finding(
            "libvirt-hung",
            "libvirt does not answer for it: what the guest does cannot be seen",
            Severity.BLOCKER,
            evidence=trouble_lines(seen),
            advice="see what it waits for (virsh domjobinfo NAME; a dead disk or a stuck QEMU); "
            "restarting libvirtd leaves the guests running",
        )
    return Finding(
        "monitor-busy",
        "QEMU's monitor does not answer: what the guest does cannot be seen",
        Severity.BLOCKER,
        evidence=trouble_lines(seen),
        advice="the monitor serves one client at a time: end the other one; or QEMU itself hangs "
        "(on a dead disk, say): look at its process",
    )


def _woken(seen: Evidence) -> Finding | None:
    """It is awake again, but the press is gone: used up, or what put it to sleep."""
    slept, woke = last(seen, Kind.SUSPEND), last(seen, Kind.WAKEUP)
    if woke is None or not seen.pressed_s:
        return None
    pressed_s = seen.pressed_s[-1]
    evidence = (*_line(seen, slept), *_line(seen, woke), *ask_lines(seen))
    # It may have been asleep before anybody looked.
    slept_s = 0.0 if slept is None else slept.at_s
    if slept_s <= pressed_s <= woke.at_s:
        if _deaf(seen):
            return _dead_button(evidence, seen)
        return Finding(
            "press-used-up",
            "it was pressed while it slept: the press was used up by waking",
            Severity.BLOCKER,
            Confidence.LIKELY,
            evidence=evidence,
            advice="press again now that it is awake (--press-again auto does so by itself)",
        )
    if woke.at_s < pressed_s and seen.setup.button is Button.PM1 and _unmapped(seen):
        return _dead_button(evidence, seen)
    if slept is not None and pressed_s < slept.at_s <= woke.at_s:
        return Finding(
            "fell-asleep",
            "it fell asleep after the ask instead of shutting down; it is awake again",
            Severity.BLOCKER,
            Confidence.LIKELY,
            evidence=evidence,
            advice=_button_sleeps(seen.system),
        )
    return None


def _deaf(seen: Evidence) -> bool:
    """Whether nobody listens to the button any more, as far as that can be read."""
    if seen.registers is not None:
        return not seen.registers.hears
    unread = (t.what for t in seen.troubles if t.fault is Fault.UNSUPPORTED)
    return any("power button are mapped nowhere" in what for what in unread)


def _unmapped(seen: Evidence) -> bool:
    """Whether the button's registers are switched off, though it has them."""
    unreadable = any(trouble.fault is Fault.UNSUPPORTED for trouble in seen.troubles)
    return seen.registers is None and unreadable


def _dead_button(evidence: tuple[str, ...], seen: Evidence) -> Finding:
    registers = () if seen.registers is None else (str(seen.registers),)
    return Finding(
        "dead-after-waking",
        "it woke up, and its power button is dead: a press reaches nobody any more",
        Severity.BLOCKER,
        Confidence.LIKELY,
        evidence=(*evidence, *registers, *trouble_lines(seen)),
        advice="on q35 with SeaBIOS nobody maps the button's registers again after sleep (S3): "
        f"shut it down from inside, or {AGENT_NEXT}",
    )


def _reset(seen: Evidence) -> Finding | None:
    own = rebooted(seen.happened, first_asked_s(seen))
    if own is not None:
        return Finding(
            "rebooted-instead",
            "it started again instead of powering off",
            Severity.BLOCKER,
            Confidence.CERTAIN if own.guest else Confidence.LIKELY,
            evidence=(*_line(seen, own), *ask_lines(seen)),
            advice="look who restarted it (an update, a person in it, a panic that reboots), and "
            "stop it again once it is up",
        )
    reset = last(seen, Kind.RESET)
    if reset is None or not seen.pressed_s or reset.at_s < seen.pressed_s[-1]:
        return None
    return Finding(
        "reset-outside",
        "it was reset from outside after the press: that press is lost",
        Severity.BLOCKER,
        evidence=(*_line(seen, reset), *ask_lines(seen)),
        advice="look who resets it (a watchdog, another tool), and stop it again once it is up",
    )
