"""What a stop of each guest of the zoo comes to: its ending, and the finding that says why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lastcall.model import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping

# Long enough for the close look after 5 s, and the one at the deadline.
GRACE = "7s"


@dataclass(frozen=True, slots=True)
class Expected:
    """One stop of one guest of the zoo.

    Args:
        guest: its name in the zoo.
        ending: how the stop ends.
        finding: the code of the first finding of the ending; empty: there is none.
        beforehand: the code of a finding that tells it before the press; empty: none is needed.
        options: of `lastcall stop`; those with the same options are stopped by one command.
        numbers: of the guest.
        presses: how many it gets.
        machines: on which it is so.
        libvirt_presses: how many it gets over libvirt; None: as many. libvirt (9.0,
            src/qemu/qemu_driver.c, qemuDomainShutdownFlagsMonitor) presses no button of a guest
            that sleeps: it is woken first, and the press that QMP uses up by that is not made.
    """

    guest: str
    ending: Ending
    finding: str = ""
    beforehand: str = ""
    options: tuple[str, ...] = ("--grace", GRACE)
    numbers: Mapping[str, float] = field(default_factory=dict)
    presses: int = 1
    machines: tuple[str, ...] = ("pc", "q35")
    libvirt_presses: int | None = None

    @property
    def over_libvirt(self) -> Expected:
        """The same over libvirt."""
        presses = self.libvirt_presses
        return self if presses is None else replace(self, presses=presses)

    @property
    def name(self) -> str:
        """Of the test."""
        return "_".join((self.guest, *self.options)).replace("--", "").replace("_grace_7s", "")


_LONG = ("--grace", "45s")
_STILL = Ending.STILL_RUNNING

STOPS = (
    Expected("stops", Ending.ORDERLY, beforehand="listens"),
    Expected("slow", Ending.ORDERLY, numbers={"delay_s": 3}),
    Expected("updates", Ending.ORDERLY, numbers={"delay_s": 3}),
    Expected("updates", _STILL, "updating", numbers={"delay_s": 120}),
    Expected(
        "updates",
        Ending.ORDERLY,
        options=("--grace", GRACE, "--extend-up-to", "60s"),
        numbers={"delay_s": 14},
    ),
    Expected("reason", _STILL, "waits-for-reason"),
    Expected("logon", _STILL, "logon-screen"),
    Expected("app-blocks", _STILL, "app-blocks"),
    Expected("takes-and-ignores", _STILL, "taken-nothing-moves"),
    Expected("needs-two", _STILL, "taken-nothing-moves"),
    Expected("needs-two", Ending.ORDERLY, options=(*_LONG, "--guest-os", "windows"), presses=2),
    Expected("cancels-on-second", Ending.ORDERLY),
    Expected("hibernates", Ending.HIBERNATED),
    Expected("reboots", Ending.REBOOTED),
    Expected("triple-faults", Ending.REBOOTED),
    Expected("panics", Ending.PANICKED),
    Expected("late", Ending.ORDERLY, options=_LONG, numbers={"delay_s": 5}, presses=2),
    Expected("deaf", _STILL, "press-dropped", beforehand="button-not-heard"),
    Expected("firmware", _STILL, "press-dropped", beforehand="button-not-heard"),
    Expected("halts", _STILL, "halted"),
    Expected("sleeps", _STILL, "asleep", beforehand="asleep", libvirt_presses=0),
    Expected(
        "sleeps",
        Ending.ORDERLY,
        options=("--grace", "30s", "--allow", "wake"),
        presses=2,
        libvirt_presses=1,
        machines=("pc",),
    ),
    Expected(
        "sleeps",
        _STILL,
        "dead-after-waking",
        options=("--grace", "9s", "--allow", "wake"),
        machines=("q35",),
    ),
    Expected(
        "sleeps",
        Ending.ORDERLY,
        options=("--grace", "31s", "--allow", "wake"),
        numbers={"restores": 1},
        presses=2,
        libvirt_presses=1,
        machines=("q35",),
    ),
    Expected("sleeps-on-press", _STILL, "fell-asleep"),
)

# Over libvirt without QEMU's monitor (no `--allow monitor`): nobody sees whether the press was
# heard and taken, so all that rests on that is one set of candidates.
UNREAD = (
    Expected("stops", Ending.ORDERLY, beforehand="monitor-unread", machines=("pc",)),
    Expected("slow", Ending.ORDERLY, numbers={"delay_s": 3}, machines=("pc",)),
    Expected("hibernates", Ending.HIBERNATED, machines=("pc",)),
    Expected("reboots", Ending.REBOOTED, machines=("pc",)),
    Expected("panics", Ending.PANICKED, machines=("pc",)),
    Expected("updates", _STILL, "updating", numbers={"delay_s": 120}, machines=("pc",)),
    Expected("reason", _STILL, "waits-for-reason", machines=("pc",)),
    Expected("deaf", _STILL, "press-unread", beforehand="monitor-unread", machines=("pc",)),
    Expected("takes-and-ignores", _STILL, "press-unread", machines=("pc",)),
    Expected("halts", _STILL, "press-unread", machines=("pc",)),
    Expected("sleeps", _STILL, "asleep", beforehand="asleep", presses=0, machines=("pc",)),
)
