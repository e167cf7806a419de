"""What one look at a guest gathered, as frozen data: the diagnosis rests on this alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.record import record
from lastcall.targets.guest.words import Activity, Power, Setup, System

if TYPE_CHECKING:
    from lastcall.targets.guest.machine import Trouble
    from lastcall.targets.guest.press import Press
    from lastcall.targets.guest.screen.phrases import Sign
    from lastcall.targets.guest.words import AgentSight, Happening, Pm1

_TINY_S = 0.2
# An idle system writes a little and wakes up now and then.
_BUSY_CPU = 0.25
_BUSY_BYTES_PER_S = 128 * 1024


@record
class Rates:
    """How much a guest does.

    Args:
        over_s: between which two moments, in seconds.
        cpu: how many virtual processors' worth of time it ran; None: not known.
        written_bytes_per_s: to its disks; None: not known.
    """

    over_s: float
    cpu: float | None
    written_bytes_per_s: float | None

    @property
    def writes(self) -> bool | None:
        """Whether it writes more than an idle system does."""
        if self.written_bytes_per_s is None:
            return None
        return self.written_bytes_per_s > _BUSY_BYTES_PER_S

    @property
    def busy(self) -> bool | None:
        """Whether it does more than an idle system does."""
        if self.writes:
            return True
        if self.cpu is None:
            return None
        return self.cpu > _BUSY_CPU


def rates(earlier: Activity | None, later: Activity | None) -> Rates | None:
    """How much it did between two looks; None: they are too close, or one is missing."""
    if earlier is None or later is None or later.at_s - earlier.at_s < _TINY_S:
        return None
    over_s = later.at_s - earlier.at_s

    def per_s(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None or b < a else (b - a) / over_s

    return Rates(
        over_s,
        per_s(earlier.cpu_s, later.cpu_s),
        per_s(earlier.written_bytes, later.written_bytes),
    )


@record
class Screen:
    """What the guest's screen shows.

    Args:
        moved: whether more than a cursor or a clock changed since the look before; None: this was
            the first picture.
        over_s: between which two pictures, in seconds; None: this was the first.
        blank: whether it is all of one colour.
        text: what could be read; empty: nothing, or it was not read.
        signs: what the text says for certain enough.
        unread: why the text was not read; empty: it was.
        kept: the file where the picture is kept; empty: it is not.
    """

    moved: bool | None = None
    over_s: float | None = None
    blank: bool = False
    text: str = ""
    signs: tuple[Sign, ...] = ()
    unread: str = ""
    kept: str = ""


@record
class Evidence:
    """All that one look gathered.

    Args:
        now_s: when (boot-time clock).
        setup: how the machine is built.
        power: what it does now.
        system: what runs in it, as far as is known.
        pressed_s: when it was pressed, each time.
        agent_asked_s: when the agent was asked to shut down; None: it was not.
        agent_failed: whether it was to be asked, and that came to nothing.
        press: what became of the last press; None: there was none.
        before: the registers right before the last press; None: not read.
        registers: the registers now; None: not read.
        happened: everything that happened to it since it is watched, oldest first.
        rates: how much it did since the look before; None: not known.
        screen: None when no picture could be taken.
        agent_before: the agent before the press; None: it was not asked.
        agent: the agent now; None: it was not asked.
        troubles: what could not be found out, and why.
        moved_s: when something in it was last seen to move; None: no two looks were compared.
    """

    now_s: float
    setup: Setup = Setup()
    power: Power = Power.UNKNOWN
    system: System = System.UNKNOWN
    pressed_s: tuple[float, ...] = ()
    agent_asked_s: float | None = None
    press: Press | None = None
    before: Pm1 | None = None
    registers: Pm1 | None = None
    happened: tuple[Happening, ...] = ()
    rates: Rates | None = None
    screen: Screen | None = None
    agent_before: AgentSight | None = None
    agent: AgentSight | None = None
    troubles: tuple[Trouble, ...] = ()
    moved_s: float | None = None
    agent_failed: bool = False
