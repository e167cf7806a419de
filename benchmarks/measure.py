"""What the benchmarks have in common: samples taken in turns, rows of the table, the machine."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Args:
        rounds: how many samples of each, after the warm-up.
        least: how many of them at least of what takes long.
        warm_up: how many rounds are thrown away.
        processes: how many targets one command stops in the large run.
        events: how many events the journal is given.
        load_s: how long a load is put on a server for one sample, in seconds.
        guests: how many real guests one command stops in the large run.
        endpoints: how many guests it stops that are only played; each number is a run.
        guest_s: how long the quickest of the real guests takes to power off, in seconds.
        endpoint_s: how long the quickest and the slowest of those that are only played take.
    """

    rounds: int = 21
    least: int = 2
    warm_up: int = 2
    processes: int = 1000
    events: int = 4000
    load_s: float = 2.0
    guests: int = 100
    endpoints: tuple[int, ...] = (1000, 5000)
    guest_s: float = 6.0
    endpoint_s: tuple[float, float] = (10.0, 20.0)

    def fewer(self, part: int) -> Effort:
        """For what takes long: a part of the rounds, and the least at least."""
        rounds, warm_up = max(self.least, self.rounds // part), min(1, self.warm_up)
        return replace(self, rounds=rounds, warm_up=warm_up)


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one thing, in one unit."""

    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: a few disturbed rounds do not move it."""
        return statistics.median(self.samples)

    def __str__(self) -> str:
        low, high = min(self.samples), max(self.samples)
        return f"{_short(self.median)} {self.unit} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def differences(ours: Series, theirs: Series) -> Series:
    """What ours takes more, round by round."""
    pairs = zip(ours.samples, theirs.samples, strict=True)
    return Series(ours.unit, tuple(mine - other for mine, other in pairs))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        name: what was measured.
        ours: lastcall's samples.
        against: the alternative; empty when there is none to compare with.
        theirs: its samples.
        aim: what we want, in words; empty when it is there for comparison only.
        reached: whether it is so; None without an aim.
    """

    name: str
    ours: Series
    against: str = ""
    theirs: Series | None = None
    aim: str = ""
    reached: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours.median / self.theirs.median if self.theirs else None

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2g}"
        verdict = {None: "", True: "yes", False: "**no**"}[self.reached]
        theirs = str(self.theirs) if self.theirs else ""
        return (self.name, str(self.ours), self.against, theirs, ratio, self.aim, verdict)


def in_turns(
    effort: Effort, unit: str, contenders: Mapping[str, Callable[[], float]]
) -> dict[str, Series]:
    """Sample the contenders A B C, A B C, ...: what disturbs the machine disturbs all of them."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(effort.warm_up + effort.rounds):
        for name, sample in contenders.items():
            value = sample()
            if number >= effort.warm_up:
                taken[name].append(value)
    return {name: Series(unit, tuple(values)) for name, values in taken.items()}


def machine() -> str:
    """Where this was measured."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs ({_processor()}), {memory_gib:.0f} GiB, "
        f"Linux {platform.release()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def load() -> float:
    """How many processes wanted to run in the last minute, on average."""
    return os.getloadavg()[0]
