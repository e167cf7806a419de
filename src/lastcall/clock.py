"""Time, injectable. Deadlines live on the boot-time clock, which no clock change moves."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Protocol):
    """What lastcall asks of a clock."""

    def now_s(self) -> float:
        """Seconds since boot, counting time asleep (CLOCK_BOOTTIME)."""
        ...

    def wall_s(self) -> float:
        """Seconds since the Unix epoch, for people to read."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back on the running loop after so many seconds; returns what cancels it."""
        ...


def now_s() -> float:
    """Seconds since boot, counting time asleep (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's own clock."""

    def now_s(self) -> float:
        """Seconds since boot, counting time asleep (CLOCK_BOOTTIME)."""
        return now_s()

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call back on the running loop after so many seconds; returns what cancels it."""
        import asyncio

        return asyncio.get_running_loop().call_later(delay_s, callback).cancel


@cache
def boot_id() -> str:
    """Names this boot of this machine.

    Source: Linux `Documentation/admin-guide/sysctl/kernel.rst`, "random".
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def iso(wall_s: float) -> str:
    """A wall-clock time as ISO 8601 in UTC with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall_s))
    return f"{whole}.{int(wall_s % 1 * 1000):03d}Z"
