"""The journal: how many events it takes in a second, and what it adds to one stop."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from lastcall.clock import SystemClock
from lastcall.journal.store import Claim, Entry
from lastcall.journal.writer import Writer
from lastcall.model import Address, Identity, Progressed, Started
from lastcall.stop.operation import Operation
from lastcall.stop.ownership import ourselves
from lastcall.stop.policy import Policy
from lastcall.targets.open import Wish, open_target
from measure import Effort, Row, Series, differences

if TYPE_CHECKING:
    from stage import Stage

MOST_ADDED_MS = 5.0
# This many stops write at the same time.
SIDE_BY_SIDE = 100
EVENT = Progressed(1.0, "an event of the usual size")


def rows(stage: Stage, effort: Effort) -> list[Row]:
    """The table's lines about the journal."""
    return asyncio.run(_rows(stage, effort))


async def _rows(stage: Stage, effort: Effort) -> list[Row]:
    grouped, alone, synced = list[float](), list[float](), list[float]()
    recorded, unrecorded = list[float](), list[float]()
    for number in range(effort.warm_up + effort.rounds):
        taken = (
            await _events_per_s(stage, effort.events, SIDE_BY_SIDE),
            await _events_per_s(stage, max(1, effort.events // 20), 1),
            _synced_lines_per_s(stage, max(1, effort.events // 20)),
            await _one_stop_ms(stage, stage.state),
            await _one_stop_ms(stage, os.devnull),
        )
        if number >= effort.warm_up:
            series = (grouped, alone, synced, recorded, unrecorded)
            for values, value in zip(series, taken, strict=True):
                values.append(value)
    return _lines(
        *(Series("events/s", tuple(values)) for values in (grouped, alone, synced)),
        *(Series("ms", tuple(values)) for values in (recorded, unrecorded)),
    )


def _lines(
    grouped: Series, alone: Series, synced: Series, recorded: Series, unrecorded: Series
) -> list[Row]:
    added = differences(recorded, unrecorded)
    against = "a line to a file, each with fdatasync"
    return [
        Row(f"journal: events of {SIDE_BY_SIDE} stops side by side", grouped, against, synced),
        Row("journal: events of one stop, each synced", alone, against, synced),
        Row("one stop in the library, recorded", recorded, "not recorded", unrecorded),
        Row(
            "what the journal adds to one stop",
            added,
            aim=f"below {MOST_ADDED_MS:g} ms",
            reached=added.median < MOST_ADDED_MS,
        ),
    ]


async def _events_per_s(stage: Stage, events: int, side_by_side: int) -> float:
    """So many writers, each waiting until its event is on disk before it writes the next."""
    writer, clock = Writer(stage.state, ourselves()), SystemClock()
    await writer.open()
    started = Started((), clock.now_s(), clock.now_s())
    claims = [
        Claim(f"name:{n}", "", Identity(f"bench:{time.monotonic_ns()}/{n}", {}), "bench", started)
        for n in range(side_by_side)
    ]
    try:
        made = await writer.do(lambda s: s.claim(claims, writer.owner, 0.0, clock.wall_s()))

        async def write(stop: int) -> None:
            for _ in range(events // side_by_side):
                await writer.commit(Entry(stop, clock.now_s(), clock.wall_s(), EVENT))

        begun_s = time.monotonic()
        await asyncio.gather(*(write(each.stop) for each in made))
        took_s = time.monotonic() - begun_s
    finally:
        await writer.close()
        os.unlink(os.path.join(stage.state, "journal.db"))
    return (events // side_by_side) * side_by_side / took_s


def _synced_lines_per_s(stage: Stage, lines: int) -> float:
    """The least that a durable record costs on this disk."""
    path = os.path.join(stage.folder, "lines")
    with open(path, "ab", buffering=0) as file:
        begun_s = time.monotonic()
        for _ in range(lines):
            file.write(b'{"kind": "progressed", "reason": "an event of the usual size"}\n')
            os.fdatasync(file.fileno())
        took_s = time.monotonic() - begun_s
    os.unlink(path)
    return lines / took_s


async def _one_stop_ms(stage: Stage, folder: str) -> float:
    """One stop in this process, of a victim that ends at once; in a bad folder it is unrecorded."""
    with stage.orphan(0) as pid:
        begun_s = time.monotonic()
        target = open_target(Address("pid", str(pid)), Wish())
        operation = Operation(folder, Policy(), SystemClock(), lambda _: None)
        [result] = await operation.stop([target])
        took_s = time.monotonic() - begun_s
        stage.record()
    if (result.stop == 0) != (folder == os.devnull):
        raise RuntimeError("the journal was not used as it was meant to be")
    return took_s * 1e3
