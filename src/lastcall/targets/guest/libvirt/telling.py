"""From what libvirt tells to what happened, each thing once. Pure.

libvirt passes on QEMU's own events, which carry the reason, and has events of its own made from
them. Where QEMU's come, libvirt's say one thing that QEMU's cannot: that the machine is gone.

Source: libvirt 9.0, include/libvirt/libvirt-domain.h (virDomainEventType and its details),
libvirt-qemu.h; QEMU 7.2, qapi/run-state.json.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.record import record
from lastcall.targets.guest.words import Happening, Kind, Power, missed, power_after

if TYPE_CHECKING:
    from collections.abc import Mapping


class Source(StrEnum):
    """Which of libvirt's events it is."""

    LIFECYCLE = "lifecycle"
    MONITOR = "monitor"
    REBOOT = "reboot"
    WATCHDOG = "watchdog"
    IO_ERROR = "io error"
    AGENT = "agent"
    WAKEUP = "wakeup"
    CUT = "cut"
    BACK = "back"


@record
class Raw:
    """One event as libvirt gave it.

    Args:
        source: which kind of event.
        at_s: when it came (boot-time clock).
        uuid: of the domain; empty: it concerns the connection.
        number: the domain's id; -1: libvirt did not say.
        event: of LIFECYCLE which, of AGENT the state.
        detail: of LIFECYCLE its detail.
        word: of MONITOR QEMU's name of the event; of CUT why.
        data: of MONITOR what QEMU says with it.
    """

    source: Source
    at_s: float
    uuid: str = ""
    number: int = -1
    event: int = 0
    detail: int = 0
    word: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


STARTED, SUSPENDED, RESUMED, STOPPED, SHUTDOWN, PMSUSPENDED, CRASHED = 2, 3, 4, 5, 6, 7, 8
_SUSPENDED_MIGRATED, _SUSPENDED_IOERROR, _PM_DISK, _STOPPED_MIGRATED = 1, 2, 1, 3
_SHUTDOWN_BY_GUEST: Mapping[int, bool | None] = {1: True, 2: False}
_AGENT_CONNECTED, _AGENT_DISCONNECTED = 1, 2

# libvirt's words for how a machine went (virDomainEventStoppedDetailType), and what they mean.
_STOPPED: Mapping[int, tuple[str, str]] = {
    0: ("shutdown", "libvirt says that the machine powered off"),
    1: ("destroyed", "somebody ended it through libvirt"),
    2: ("crashed", "libvirt says that QEMU crashed or was killed"),
    3: ("migrated", "it runs on another host now"),
    4: ("saved", "libvirt saved its memory in a file, to go on from there later"),
    5: ("failed", "libvirt lost it: QEMU crashed or was killed"),
    6: ("from-snapshot", "libvirt went back to a snapshot of it"),
}
# libvirt's reasons for being off (virDomainShutoffReason).
SHUTOFF: Mapping[int, tuple[str, str]] = {
    1: _STOPPED[0],
    2: _STOPPED[1],
    3: _STOPPED[2],
    4: _STOPPED[3],
    5: _STOPPED[4],
    6: _STOPPED[5],
    7: _STOPPED[6],
    8: ("daemon", "libvirt found it gone when it started again"),
}

_MONITOR: Mapping[str, Kind] = {
    "POWERDOWN": Kind.POWERDOWN,
    "SHUTDOWN": Kind.SHUTDOWN,
    "RESET": Kind.RESET,
    "SUSPEND": Kind.SUSPEND,
    "SUSPEND_DISK": Kind.SUSPEND_DISK,
    "WAKEUP": Kind.WAKEUP,
    "STOP": Kind.STOP,
    "RESUME": Kind.RESUME,
    "GUEST_PANICKED": Kind.PANICKED,
    "WATCHDOG": Kind.WATCHDOG,
    "BLOCK_IO_ERROR": Kind.IO_ERROR,
}
# What is asked for of QEMU's events: the others are none of our business, and some are many.
MONITOR_EVENTS = f"^({'|'.join(_MONITOR)}|VSERPORT_CHANGE)$"

_POWERS: Mapping[int, Power] = {
    1: Power.RUNNING,
    2: Power.RUNNING,  # blocked: its processors wait for something
    3: Power.PAUSED,
    4: Power.OFF,
    5: Power.GONE,
    6: Power.PANICKED,
    7: Power.SUSPENDED,
}
# Reasons for a pause (virDomainPausedReason) that are none to a person.
_PAUSES: Mapping[int, Power] = {
    2: Power.MIGRATING,
    5: Power.FAILED,  # its disk failed
    8: Power.OFF,
    10: Power.PANICKED,
    12: Power.MIGRATING,
    13: Power.FAILED,
}


def power_of(state: int, reason: int) -> Power:
    """What a machine does, by libvirt's state and the reason for it."""
    if state == 3:  # noqa: PLR2004 (VIR_DOMAIN_PAUSED)
        return _PAUSES.get(reason, Power.PAUSED)
    return _POWERS.get(state, Power.UNKNOWN)


class Teller:
    """What one run of one guest went through.

    Args:
        number: its id in libvirt.
        agent_alias: how QEMU calls the agent's port; empty: not known.
        monitor: whether QEMU's own events come.
    """

    def __init__(self, number: int, agent_alias: str, *, monitor: bool) -> None:
        self._number = number
        self._alias = agent_alias
        self.monitor = monitor
        self._moving = False
        self.power_told: Power = Power.UNKNOWN
        self.off_told: bool = False
        self.over: bool = False

    def tell(self, raw: Raw) -> Happening | None:
        """What an event of libvirt's means; None: nothing new."""
        if self.over:
            return None
        told = self._translate(raw)
        if told is not None:
            self._keep(told)
        return told

    def _translate(self, raw: Raw) -> Happening | None:
        if raw.source is Source.CUT:
            return Happening(Kind.CUT, raw.at_s, detail=raw.word)
        if raw.number not in {-1, self._number}:
            later = raw.number > self._number and raw.source is Source.LIFECYCLE
            return self.gone(raw.at_s, ("", "it was started anew meanwhile")) if later else None
        if raw.source is Source.MONITOR:
            return self._of_monitor(raw)
        if raw.source is Source.LIFECYCLE:
            return self._of_lifecycle(raw)
        return None if self.monitor else _of_others(raw)

    def _of_monitor(self, raw: Raw) -> Happening | None:
        if raw.word == "VSERPORT_CHANGE":
            if not self._alias or raw.data.get("id") != self._alias:
                return None
            kind = Kind.AGENT_OPEN if raw.data.get("open") is True else Kind.AGENT_CLOSED
            return Happening(kind, raw.at_s)
        known = _MONITOR.get(raw.word)
        if known is None or (self._moving and known is Kind.SHUTDOWN):
            return None  # moved away: libvirt clears the QEMU that is left
        guest, reason = raw.data.get("guest"), raw.data.get("reason")
        details = [raw.data.get(name) for name in ("device", "action") if raw.data.get(name)]
        return Happening(
            known,
            raw.at_s,
            guest=guest if isinstance(guest, bool) else None,
            reason=reason if isinstance(reason, str) else "",
            detail=", ".join(map(str, details)),
        )

    def _of_lifecycle(self, raw: Raw) -> Happening | None:
        if raw.event == STOPPED:
            return self.gone(raw.at_s, _STOPPED.get(raw.detail, ("", "libvirt says that it ended")))
        if raw.event == SUSPENDED and raw.detail == _SUSPENDED_MIGRATED:
            self._moving = True
        elif raw.event == RESUMED:
            self._moving = False
        if self.monitor or self._moving:
            return None
        if raw.event == SHUTDOWN:
            return Happening(Kind.SHUTDOWN, raw.at_s, guest=_SHUTDOWN_BY_GUEST.get(raw.detail))
        if raw.event == PMSUSPENDED:
            kind = Kind.SUSPEND_DISK if raw.detail == _PM_DISK else Kind.SUSPEND
            return Happening(kind, raw.at_s)
        if raw.event == SUSPENDED:
            kind = Kind.IO_ERROR if raw.detail == _SUSPENDED_IOERROR else Kind.STOP
            return Happening(kind, raw.at_s)
        plain = {RESUMED: Kind.RESUME, CRASHED: Kind.PANICKED}.get(raw.event)
        return None if plain is None else Happening(plain, raw.at_s)

    def gone(self, at_s: float, how: tuple[str, str], status: int | None = None) -> Happening:
        """That the machine is gone, or runs elsewhere.

        Args:
            at_s: when we were told.
            how: libvirt's word, and the words for people.
            status: QEMU's exit status; None: not known.
        """
        word, detail = how
        kind = Kind.MIGRATED if word == "migrated" else Kind.GONE
        return Happening(kind, at_s, reason=word, detail=detail, status=status)

    def back(self, at_s: float, power: Power) -> list[Happening]:
        """That the connection is back, and what the machine came to meanwhile."""
        told = [Happening(Kind.BACK, at_s)]
        kind = missed(self.power_told, power)
        if kind is not None and not self.off_told:
            told.append(Happening(kind, at_s, detail="while the connection was lost"))
        for each in told:
            self._keep(each)
        return told

    def _keep(self, told: Happening) -> None:
        """Remember what was told, so that nothing is told twice."""
        self.power_told = power_after(self.power_told, told.kind) or self.power_told
        if told.kind is Kind.SHUTDOWN:
            self.off_told = True
        elif told.kind in {Kind.RESET, Kind.WAKEUP}:
            self.off_told = False
        self.over = told.kind in {Kind.GONE, Kind.MIGRATED}

    @property
    def moving(self) -> bool:
        """Whether it is on its way to another host."""
        return self._moving


def _of_others(raw: Raw) -> Happening | None:
    """Where QEMU's own events do not come."""
    if raw.source is Source.AGENT:
        kind = {_AGENT_CONNECTED: Kind.AGENT_OPEN, _AGENT_DISCONNECTED: Kind.AGENT_CLOSED}
        found = kind.get(raw.event)
    else:
        found = {
            Source.REBOOT: Kind.RESET,
            Source.WATCHDOG: Kind.WATCHDOG,
            Source.IO_ERROR: Kind.IO_ERROR,
            Source.WAKEUP: Kind.WAKEUP,
        }.get(raw.source)
    return None if found is None else Happening(found, raw.at_s, detail=raw.word)
