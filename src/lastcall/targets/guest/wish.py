"""What the caller wants of a guest's stop."""

from __future__ import annotations

from enum import StrEnum

from lastcall.durations import parse_duration
from lastcall.errors import BadPolicy
from lastcall.record import record
from lastcall.targets.guest.words import System

# How long a way to ask is waited for when the caller does not say, in seconds. Services of a
# system may take 90 s (systemd's DefaultTimeoutStopSec) and more.
PRESS_WAIT_S = 120.0
AGENT_WAIT_S = 60.0


class Ask(StrEnum):
    """The ways to ask a guest to shut down."""

    PRESS = "press"
    AGENT = "agent"


class Allow(StrEnum):
    """What is not done to a guest unless the caller allows it."""

    WAKE = "wake"
    RESUME = "resume"
    MONITOR = "monitor"


@record
class GuestWish:
    """How a guest is to be asked.

    Args:
        asks: (ask, seconds to wait; None: until the deadline), in order. Without a grace of the
            caller's, their sum is the grace.
        allow: wake a sleeping guest, resume a paused one, read libvirt's monitor (it taints).
        press_again: whether to press again where the rules say that it helps and cannot harm.
        system: what runs in it, where the caller knows; UNKNOWN: the agent may tell.
        connect: libvirt's connection URI; None: its own default.
        screens: the folder where pictures of the screen are kept; None: none is kept.
    """

    asks: tuple[tuple[Ask, float | None], ...] = ((Ask.PRESS, PRESS_WAIT_S),)
    allow: frozenset[Allow] = frozenset()
    press_again: bool = True
    system: System = System.UNKNOWN
    connect: str | None = None
    screens: str | None = None


def asks_of(text: str) -> tuple[tuple[Ask, float | None], ...]:
    """Read `press`, `press:60s,agent`: each way to ask with how long it is waited for.

    Without a length it is 2 min for the press and 1 min for the agent.

    Raises:
        BadPolicy: a way is not known, stands twice, or a length makes no sense.
    """
    asks: list[tuple[Ask, float | None]] = []
    for word in text.split(","):
        name, colon, length = word.strip().partition(":")
        if name not in set(Ask):
            raise BadPolicy(
                f"a guest cannot be asked by {name!r}",
                f"known: {', '.join(Ask)}, such as press:60s,agent",
            )
        if any(name == ask for ask, _ in asks):
            raise BadPolicy(f"{name} stands twice in {text!r}")
        asks.append((Ask(name), parse_duration(length) if colon else None))
    usual = {Ask.PRESS: PRESS_WAIT_S, Ask.AGENT: AGENT_WAIT_S}
    return tuple((ask, usual[ask] if wait_s is None else wait_s) for ask, wait_s in asks)
