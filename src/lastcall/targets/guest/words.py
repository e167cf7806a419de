"""What a hypervisor tells of a guest, as frozen data. Nothing here does anything.

Times are of the boot-time clock, in seconds. None means "not known" everywhere.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

# The largest picture of a screen that is taken from a hypervisor: 4096 x 4096 at 4 bytes.
SCREEN_LIMIT_BYTES = 64 * 1024 * 1024


class Power(StrEnum):
    """What the machine is doing (QEMU's run state, libvirt's domain state)."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    PANICKED = "panicked"
    FAILED = "failed"
    MIGRATING = "migrating"
    GONE = "gone"
    UNKNOWN = "unknown"


class Button(StrEnum):
    """The power button that the machine has."""

    PM1 = "a fixed power button"
    GED = "a generic event device"
    NONE = "none"
    UNKNOWN = "unknown"


@record
class Setup:
    """How the machine is built; does not change while it runs.

    Args:
        machine: its type as QEMU knows it, such as "pc-i440fx-7.2"; empty: not known.
        button: what a press presses.
        wakes: whether it can be woken from sleep.
        stays_when_off: whether QEMU stays after the guest powered off (`-no-shutdown`), and nobody
            else ends it then.
        on_poweroff: what libvirt does when the guest powers off ("destroy", "restart",
            "preserve"); empty without libvirt.
        agent: whether there is a port for the guest agent.
        started_s: when the machine was started.
        uuid: the guest's UUID; empty: it has none.
        accelerator: "kvm", "tcg"; empty: not known.
    """

    machine: str = ""
    button: Button = Button.UNKNOWN
    wakes: bool | None = None
    stays_when_off: bool | None = None
    on_poweroff: str = ""
    agent: bool | None = None
    started_s: float | None = None
    uuid: str = ""
    accelerator: str = ""


_BUTTON = 0x0100
_SCI = 0x0001
_NOBODY = 0xFFFF  # what a port reads that nobody answers at


@record
class Pm1:
    """The registers of the fixed power button, read once.

    Source: ACPI 6.5, 4.8.3 (PM1 event and control grouping).
    """

    status: int
    enable: int
    control: int

    @property
    def mapped(self) -> bool:
        """Whether anything stands behind the ports. Nothing does on `q35` after S3 with SeaBIOS."""
        return (self.status, self.enable, self.control) != (_NOBODY, _NOBODY, _NOBODY)

    @property
    def hears(self) -> bool:
        """Whether the guest has asked to be told of the button."""
        return self.mapped and bool(self.enable & _BUTTON)

    @property
    def pending(self) -> bool:
        """Whether a press waits for the guest to take it."""
        return self.mapped and bool(self.status & _BUTTON)

    @property
    def acpi_on(self) -> bool:
        """Whether a system has switched ACPI on. Under KVM also true in bare firmware."""
        return self.mapped and bool(self.control & _SCI)

    def __str__(self) -> str:
        return (
            f"PM1_STS=0x{self.status:04x} PM1_EN=0x{self.enable:04x} PM1_CNT=0x{self.control:04x}"
        )


@record
class Activity:
    """How much the guest has done so far, to be compared with a later look.

    Args:
        at_s: when it was read.
        written_bytes: to all its disks.
        writes: operations on all its disks.
        read_bytes: from all its disks.
        cpu_s: time its virtual processors ran.
    """

    at_s: float
    written_bytes: int | None = None
    writes: int | None = None
    read_bytes: int | None = None
    cpu_s: float | None = None


class System(StrEnum):
    """The family of the guest's operating system."""

    WINDOWS = "windows"
    LINUX = "linux"
    OTHER = "other"
    UNKNOWN = "unknown"


@record
class AgentSight:
    """What the guest agent (qemu-ga) is and says.

    Args:
        connected: whether something in the guest holds the port open.
        answers: whether it answered `guest-sync` within its limit; None: not asked.
        system: what it runs on.
        name: the system's name in its own words.
        users: who is logged on; None: not known.
        detail: why something is not known, in words.
    """

    connected: bool | None = None
    answers: bool | None = None
    system: System = System.UNKNOWN
    name: str = ""
    users: tuple[str, ...] | None = None
    detail: str = ""


class Kind(StrEnum):
    """What can happen to a guest by itself."""

    POWERDOWN = "a press was injected"
    SHUTDOWN = "it powered off"
    RESET = "it was reset"
    SUSPEND = "it fell asleep"
    SUSPEND_DISK = "it wrote its memory to disk"
    WAKEUP = "it woke up"
    STOP = "it was paused"
    RESUME = "it goes on"
    PANICKED = "its kernel panicked"
    WATCHDOG = "its watchdog fired"
    IO_ERROR = "its disk failed"
    AGENT_OPEN = "the agent's port was opened"
    AGENT_CLOSED = "the agent's port was closed"
    MIGRATED = "it runs on another host now"
    CUT = "the connection to it was lost"
    BACK = "the connection to it is back"
    GONE = "its machine is gone"


_POWER_AFTER: Mapping[Kind, Power] = {
    Kind.SUSPEND: Power.SUSPENDED,
    Kind.WAKEUP: Power.RUNNING,
    Kind.STOP: Power.PAUSED,
    Kind.RESUME: Power.RUNNING,
    Kind.RESET: Power.RUNNING,
    Kind.PANICKED: Power.PANICKED,
    Kind.IO_ERROR: Power.FAILED,
    Kind.GONE: Power.GONE,
    Kind.SHUTDOWN: Power.OFF,
}
# QEMU stops the processors of such a machine, too: that is no pause.
_STOPPED_SO = frozenset({Power.OFF, Power.PANICKED, Power.FAILED})
_LED_TO = {
    Power.OFF: Kind.SHUTDOWN,
    Power.SUSPENDED: Kind.SUSPEND,
    Power.PANICKED: Kind.PANICKED,
    Power.PAUSED: Kind.STOP,
    Power.FAILED: Kind.IO_ERROR,
}


def power_after(before: Power | None, kind: Kind) -> Power | None:
    """What a machine does once this has happened to it; most things change nothing in that.

    Args:
        before: what it did; None: not known.
        kind: what happened.
    """
    if kind is Kind.STOP and before in _STOPPED_SO:
        return before
    return _POWER_AFTER.get(kind, before)


def missed(before: Power | None, now: Power) -> Kind | None:
    """What happened to a machine while nobody could hear it; None: nothing that can be told.

    Args:
        before: what it did when it was last heard of; None: not known.
        now: what it does.
    """
    if now is before:
        return None
    if now is Power.RUNNING and before in {Power.SUSPENDED, Power.PAUSED}:
        return Kind.WAKEUP if before is Power.SUSPENDED else Kind.RESUME
    return _LED_TO.get(now)


@record
class Happening:
    """One thing that happened to a guest by itself.

    Args:
        kind: what.
        at_s: when we were told.
        guest: of SHUTDOWN and RESET: whether the guest did it; None: not known.
        reason: QEMU's word for why (`guest-shutdown`, `host-signal`, ...); empty: none was given.
        detail: in words, for people: of GONE how the process ended, of CUT why.
        status: of GONE: the exit status of QEMU's process as `waitpid` gives it; None: not known.
    """

    kind: Kind
    at_s: float
    guest: bool | None = None
    reason: str = ""
    detail: str = ""
    status: int | None = None
