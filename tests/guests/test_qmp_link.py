"""The way to a guest's monitor, cut and mended: what is told of it, and who mends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from guests import peers
from guests.hearing import Heard
from helpers import PATIENCE_S
from lastcall.targets.guest.qmp import link
from lastcall.targets.guest.qmp.machine import QmpMachine, open_qmp
from lastcall.targets.guest.words import Kind, Power

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

STATUS = peers._key({"execute": "query-status"})
OFF = {"return": {"status": "shutdown", "running": False}}
ASLEEP = {"return": {"status": "suspended", "running": False}}
POWERED_OFF = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}


def _qemu() -> peers.Transcript:
    return peers.Transcript(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")


@contextlib.asynccontextmanager
async def _opened(path: Path, handler: peers.Handler) -> AsyncIterator[tuple[QmpMachine, Heard]]:
    async with peers.listening(path / "q", handler) as at:
        machine = await open_qmp(at)
        try:
            yield machine, Heard(machine)
        finally:
            machine.close()
            await asyncio.sleep(0)


async def _caught_up(machine: QmpMachine) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*machine._link._tasks)


def test_a_power_off_that_nobody_heard(tmp_path: Path) -> None:
    """It is told when the connection is back, though a question for the state brought it back."""
    qemu = _qemu()

    async def main() -> None:
        async with _opened(tmp_path, qemu.serve) as (machine, heard):
            assert await machine.power() is Power.RUNNING
            machine.rest()
            qemu.answers[STATUS] = OFF
            assert await machine.power() is Power.OFF
            await _caught_up(machine)
            assert heard.kinds == [Kind.CUT, Kind.BACK, Kind.SHUTDOWN]
            assert heard.all[-1].detail == "seen when the connection was back"

    asyncio.run(main())


def test_a_power_off_that_is_heard_at_once(tmp_path: Path) -> None:
    """What is heard before it is proved who speaks is not told again for the state's sake."""
    qemu = _qemu()

    async def main() -> None:
        async with _opened(tmp_path, qemu.serve) as (machine, heard):
            assert await machine.power() is Power.RUNNING
            machine.rest()
            qemu.answers[STATUS] = OFF
            qemu.after["query-uuid"] = {"events": [POWERED_OFF]}
            assert await machine.power() is Power.OFF
            await _caught_up(machine)
            assert heard.kinds == [Kind.CUT, Kind.BACK, Kind.SHUTDOWN]
            assert heard.all[-1].reason == "guest-shutdown"

    asyncio.run(main())


def test_what_is_heard_is_newer_than_the_answer(tmp_path: Path) -> None:
    """An event right behind an answer stands, and is not told again after a cut."""
    qemu = _qemu()
    qemu.after["query-status"] = {"events": [{"event": "SUSPEND"}]}

    async def main() -> None:
        async with _opened(tmp_path, qemu.serve) as (machine, heard):
            await machine.power()
            await heard.wait(Kind.SUSPEND)
            machine.rest()
            qemu.answers[STATUS] = ASLEEP
            del qemu.after["query-status"]
            assert await machine.power() is Power.SUSPENDED
            await _caught_up(machine)
            assert heard.kinds == [Kind.SUSPEND, Kind.CUT, Kind.BACK]

    asyncio.run(main())


def test_only_one_mends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the peer closes while it is asked who it is, one task connects again."""
    monkeypatch.setattr(link, "_SOON_S", 0.01)
    monkeypatch.setattr(link, "_LATE_S", 0.02)
    turns = 0
    enough = asyncio.Event()

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        nonlocal turns
        turns += 1
        qemu = _qemu()
        qemu.after["query-status" if turns == 1 else "query-uuid"] = {"closes": True}
        if turns == 10:
            enough.set()
        await qemu.serve(reader, writer)

    async def main() -> None:
        async with _opened(tmp_path, serve) as (machine, heard):
            await machine.power()
            await asyncio.wait_for(enough.wait(), PATIENCE_S)
            assert len(machine._link._tasks) == 1
            assert heard.kinds == [Kind.CUT]

    asyncio.run(main())
