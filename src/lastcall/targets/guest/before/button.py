"""Whether a guest will hear its power button. Pure.

Source: ACPI 6.5, 4.8.3; QEMU 7.2 hw/acpi/core.c (acpi_pm1_evt_power_down), hw/acpi/
generic_event_device.c (reading the event selector clears it); cloud-hypervisor issue 7929 (Windows
and hardware-reduced ACPI).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import AGENT_NEXT, FORCE, YOUNG_S
from lastcall.targets.guest.before.known import age
from lastcall.targets.guest.machine import Fault
from lastcall.targets.guest.words import Button, Power, System

if TYPE_CHECKING:
    from lastcall.targets.guest.before.known import Known
    from lastcall.targets.guest.words import Pm1, Setup


def of_button(known: Known) -> list[Finding]:
    """Whether a press will be heard, as far as can be known."""
    if known.power is Power.SUSPENDED:
        return []  # its registers say what wakes it, and may be others once it is awake
    if known.setup.button is Button.NONE:
        return [_no_button(known)]
    if known.setup.button is Button.GED:
        return [_ged(known)]
    registers = known.registers
    if registers is None:
        explained = any(t.fault is Fault.NOT_ALLOWED for t in known.troubles)
        return [] if explained else [_unread()]
    if not registers.hears:
        return _unheard(registers, known)
    if registers.pending:
        return [_waits_already(registers, known)]
    return [
        Finding(
            "listens",
            "it listens to the power button: its kernel will hear a press "
            "(what the system makes of it is up to its settings)",
            evidence=(str(registers),),
        )
    ]


def _no_button(known: Known) -> Finding:
    machine = f"machine: {known.setup.machine}" if known.setup.machine else "ACPI is off"
    return Finding(
        "acpi-off",
        "its machine has no power button: a press would be dropped",
        known.unheard,
        evidence=(machine, "the machine was built without ACPI's fixed power button"),
        advice="ask by the guest agent (--ask agent), or shut it down from inside; switch ACPI on "
        "at its next start (libvirt: <features><acpi/></features>)",
    )


def _ged(known: Known) -> Finding:
    windows = known.system is System.WINDOWS
    return Finding(
        "button-unread",
        "Windows is known not to hear the button of this kind of machine"
        if windows
        else "whether it hears the button is not known: this kind of machine cannot be read "
        "without losing events",
        known.unheard if windows else Severity.NOTE,
        Confidence.LIKELY if windows else Confidence.CERTAIN,
        evidence=(f"its button is {known.setup.button}",),
        advice=AGENT_NEXT,
    )


def _unread() -> Finding:
    return Finding(
        "button-unread",
        "whether it will hear the power button is not known",
        evidence=("its registers were not read",),
    )


def _unheard(registers: Pm1, known: Known) -> list[Finding]:
    """Nobody has asked to be told of the button: QEMU would drop a press."""
    up = known.agent is not None and known.agent.answers is True
    young = known.age_s is not None and known.age_s < YOUNG_S and not up
    evidence = (str(registers), *age(known.age_s), *_kvm(known.setup))
    grave = known.unheard
    if young and grave is Severity.BLOCKER and known.wish.press_again:
        grave = Severity.WARNING
    advice = (
        "wait until it is up, or press again once it listens (--press-again auto does so by itself)"
    )
    if registers.acpi_on and not young:
        advice = (
            "on Linux: load the driver (modprobe button), and have logind or acpid act on it; or "
            f"{AGENT_NEXT}"
        )
    what = "nobody in it listens to the power button: a press now would be dropped"
    deaf = Finding("button-not-heard", what, grave, evidence=evidence, advice=advice)
    likely = Confidence.LIKELY
    if young:
        what = "it seems to be starting"
        return [deaf, Finding("booting", what, confidence=likely, evidence=evidence)]
    if registers.acpi_on:
        return [deaf]
    what = (
        "no system in it has switched ACPI on: it is in firmware or a boot loader, is starting "
        "again, or runs without ACPI"
    )
    advice = f"look at its screen; if no system runs in it, {FORCE}"
    return [deaf, Finding("firmware", what, Severity.NOTE, likely, evidence, advice)]


def _kvm(setup: Setup) -> tuple[str, ...]:
    if setup.accelerator != "kvm":
        return ()
    return ("with KVM, ACPI also reads as on in bare firmware: it may not have started",)


def _waits_already(registers: Pm1, known: Known) -> Finding:
    return Finding(
        "press-pending",
        "an earlier press still waits for it: another one will count for nothing until it takes "
        "that",
        Severity.WARNING,
        Confidence.LIKELY,
        evidence=(str(registers), f"its machine is: {known.power}"),
        advice="if that is still so in some seconds, it does not react at all: look at its screen",
    )
