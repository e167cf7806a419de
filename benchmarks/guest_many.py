"""Very many guests in one command: real ones, and many more that are played."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from guests import zoo
from measure import Effort, Row, Series
from stage import LASTCALL, PYTHON, Ran, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stage import Running

ENDPOINTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest_endpoints.py")
BARE = "a bare program on qemu.qmp that does nothing but press and wait"
BARE_SCRIPT = """\
import asyncio, sys
from qemu.qmp import QMPClient

async def stop(path):
    client = QMPClient()
    await client.connect(path)
    with client.listener("SHUTDOWN") as off:
        await client.execute("system_powerdown")
        await off.get()
    try:
        await client.disconnect()
    except EOFError:
        pass

async def main():
    await asyncio.gather(*map(stop, sys.argv[1:]))

asyncio.run(main())
"""
# A real guest takes so much longer after its press than the quickest, by its own clock; in this
# many different lengths, for each has a disk of its own.
GUEST_STEPS_S = tuple(0.25 * step for step in range(9))
GROUP = 10
MOST_OVER_S, MOST_KB, MOST_CORE = 1.0, 100.0, 50.0
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """What stopping many took.

    Args:
        ran: the command.
        slowest_s: what the slowest guest takes from its press to its power-off.
        pressed_ns: the moment of the last press.
        off_ns: the moment of the last power-off.
        waiting_cpu_s: its CPU time from the last press on.
    """

    ran: Ran
    slowest_s: float
    pressed_ns: int
    off_ns: int
    waiting_cpu_s: float

    @property
    def over_s(self) -> float:
        """The whole command, beyond what the slowest guest takes."""
        return self.ran.wall_ms / 1e3 - self.slowest_s

    @property
    def late_s(self) -> float:
        """From the last power-off to the return."""
        return (self.ran.returned_ns - self.off_ns) / 1e9

    @property
    def pressed_s(self) -> float:
        """From the start of the command to the last press."""
        return (self.pressed_ns - self.ran.started_ns) / 1e9

    @property
    def waiting_percent(self) -> float:
        """Of one core, from the last press to the return."""
        return 100 * self.waiting_cpu_s * 1e9 / (self.ran.returned_ns - self.pressed_ns)


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about many guests."""
    few = replace(effort.fewer(7), warm_up=0)
    lines = _lines(f"{effort.guests:,} zoo guests", _real, stage, effort.guests, few)
    for count in effort.endpoints:
        lines += _lines(f"{count:,} played monitors", _played, stage, count, few)
    return lines


def _lines(
    what: str,
    stop: Callable[[Stage, Effort, int, Sequence[str]], Stopped],
    stage: Stage,
    count: int,
    effort: Effort,
) -> list[Row]:
    ours, bare, one = list[Stopped](), list[Stopped](), list[Stopped]()
    for _ in range(effort.rounds):
        ours.append(stop(stage, effort, count, (LASTCALL, "stop", "--grace", "120s")))
        bare.append(stop(stage, effort, count, (PYTHON, "-c", BARE_SCRIPT)))
        one.append(stop(stage, effort, 1, (LASTCALL, "stop", "--grace", "120s")))

    def pick(unit: str, of: Callable[[Stopped], float]) -> tuple[Series, Series]:
        return tuple(Series(unit, tuple(map(of, runs))) for runs in (ours, bare))  # type: ignore[return-value] # both

    over, bare_over = pick("s", lambda stopped: stopped.over_s)
    late, bare_late = pick("s", lambda stopped: stopped.late_s)
    pressed, bare_pressed = pick("s", lambda stopped: stopped.pressed_s)
    cpu, bare_cpu = pick("ms", lambda stopped: stopped.ran.cpu_s * 1e3 / count)
    share, bare_share = pick("%", lambda stopped: stopped.waiting_percent)
    each_kb = Series(
        "kB",
        tuple(
            (many.ran.peak_kib - single.ran.peak_kib) * 1.024 / max(1, count - 1)
            for many, single in zip(ours, one, strict=True)
        ),
    )
    name = f"guests: {what}: "
    most, core = f"below {MOST_OVER_S:g} s", f"below {MOST_CORE:g} % of one"
    return [
        Row(
            f"{name}from the last power-off to the command's return",
            *(late, BARE, bare_late, most, late.median < MOST_OVER_S),
        ),
        Row(
            f"{name}the whole command, over what the slowest takes",
            *(over, BARE, bare_over, most, over.median < MOST_OVER_S),
        ),
        Row(f"{name}from the start to the last press", pressed, BARE, bare_pressed),
        Row(
            f"{name}of one core while waiting",
            *(share, BARE, bare_share, core, share.median < MOST_CORE),
        ),
        Row(f"{name}CPU time for each", cpu, BARE, bare_cpu),
        Row(
            f"{name}memory for each further one",
            each_kb,
            aim=f"below {MOST_KB:g} kB",
            reached=each_kb.median < MOST_KB,
        ),
    ]


def _real(stage: Stage, effort: Effort, count: int, command: Sequence[str]) -> Stopped:
    """Stop real guests; their own QEMUs tell when they were pressed and off."""
    with contextlib.ExitStack() as stack:
        guests: list[zoo.Guest] = []
        for number in range(count):
            delay_s = effort.guest_s + GUEST_STEPS_S[number % len(GUEST_STEPS_S)]
            guests.append(stack.enter_context(zoo.start("slow", delay_s=delay_s, writes=0)))
            if len(guests) % GROUP == 0 or len(guests) == count:
                for guest in guests[-GROUP:]:
                    guest.wait_up()
        running = _start(stage, command, [guest.qmp for guest in guests])
        used = _used(running)
        for guest in guests:
            guest.side.wait_event("POWERDOWN")
        pressed_cpu_s = used()
        for guest in guests:
            guest.wait_ended()
        ran = stage.expected(running.finish(), command)
        presses = [_moment_ns(guest, "POWERDOWN") for guest in guests]
        offs = [_moment_ns(guest, "SHUTDOWN") for guest in guests]
    slowest_s = max(off - press for press, off in zip(presses, offs, strict=True)) / 1e9
    return Stopped(ran, slowest_s, max(presses), max(offs), ran.cpu_s - pressed_cpu_s)


def _moment_ns(guest: zoo.Guest, name: str) -> int:
    """When an event came, by QEMU's own clock (it tells the time of day), as CLOCK_MONOTONIC."""
    event = next(event for event in guest.side.events() if event["event"] == name)
    stamp: Mapping[str, int] = event["timestamp"]
    told_ns = stamp["seconds"] * 1_000_000_000 + stamp["microseconds"] * 1000
    return told_ns - time.time_ns() + time.monotonic_ns()


def _played(stage: Stage, effort: Effort, count: int, command: Sequence[str]) -> Stopped:
    """Stop endpoints of `guest_endpoints.py`, which tells when they were pressed and off."""
    with _endpoints(count, effort.endpoint_s) as (folder, told):
        running = _start(stage, command, [folder / f"{number}.qmp" for number in range(count)])
        used = _used(running)
        pressed_ns = int(_line(told))
        pressed_cpu_s = used()
        off_ns = int(_line(told))
        ran = stage.expected(running.finish(), command)
    slowest_s = effort.endpoint_s[1] if count > 1 else effort.endpoint_s[0]
    return Stopped(ran, slowest_s, pressed_ns, off_ns, ran.cpu_s - pressed_cpu_s)


@contextlib.contextmanager
def _endpoints(count: int, delays_s: tuple[float, float]) -> Iterator[tuple[Path, IO[bytes]]]:
    """Endpoints that listen: their folder, and what tells of them."""
    with tempfile.TemporaryDirectory(prefix="lc-", dir="/tmp") as made:
        shortest, longest = map(str, delays_s)
        server = subprocess.Popen(
            [sys.executable, ENDPOINTS, made, str(count), shortest, longest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        try:
            if server.stdin is None or server.stdout is None or _line(server.stdout) != b"ready":
                raise RuntimeError("the played monitors do not listen")
            yield Path(made), server.stdout
            server.stdin.close()
            server.wait(PATIENCE_S)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()


def _line(told: IO[bytes]) -> bytes:
    ready, _, _ = select.select([told], [], [], PATIENCE_S)
    line = told.readline() if ready else b""
    if not line:
        raise RuntimeError("the played monitors said nothing")
    return line.strip()


def _start(stage: Stage, command: Sequence[str], paths: Sequence[Path]) -> Running:
    kind = "qmp:" if command[0] == LASTCALL else ""
    return stage.start(*command, *(f"{kind}{path}" for path in paths))


def _used(running: Running) -> Callable[[], float]:
    """Gives what tells the CPU seconds that a command has used so far. It runs below the helper."""
    helper = running.child.pid

    def used() -> float:
        [pid] = Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    return used
