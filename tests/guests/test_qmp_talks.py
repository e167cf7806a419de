"""Our own talks with a guest's agent, and the port that serves one program at a time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from guests import peers
from helpers import PATIENCE_S
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import agent
from lastcall.targets.guest.qmp.machine import QmpMachine, open_qmp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ANSWERS = {"guest-get-osinfo": {"id": "debian"}, "guest-get-users": []}


class Guest(peers.Transcript):
    """A monitor that tells who holds the agent's port, and the agent behind it.

    Args:
        agent_at: where the agent's port listens.
    """

    def __init__(self, agent_at: Path) -> None:
        super().__init__(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")
        self.agent_at = agent_at
        self.open = True
        self.unseen = 0  # how often it still says that a talk goes on which is over
        self.shutdowns = 0
        self.asked = asyncio.Event()
        self.answers_now = asyncio.Event()
        self._talks = 0

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """As QEMU, but for the agent's port."""
        if command["execute"] != "query-chardev":
            return super().answer(command)
        held = self._talks > 0 or self.unseen > 0
        self.unseen -= not self._talks and self.unseen > 0
        name = f"{'' if held else 'disconnected:'}unix:{self.agent_at},server=on"
        row = {"frontend-open": self.open, "filename": name, "label": "ga0"}
        return {"return": [row], "id": command["id"]}

    async def agent(self, reader: peers.Reader, writer: peers.Writer) -> None:
        """One talk."""
        self._talks += 1
        try:
            commands = peers.Commands(reader)
            while (command := await commands.next()) is not None:
                name = command["execute"]
                if name == "guest-shutdown":
                    self.shutdowns += 1
                    return
                if name == "guest-sync-delimited":
                    writer.write(b"\xff")
                    peers.say(writer, {"return": command["arguments"]["id"]})
                    continue
                self.asked.set()
                await self.answers_now.wait()
                peers.say(writer, {"return": ANSWERS[name]})
        finally:
            self._talks -= 1


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[tuple[Guest, QmpMachine]]:
    guest = Guest(path / "agent")
    async with (
        peers.listening(path / "agent", guest.agent),
        peers.listening(path / "q", guest.serve) as at,
        asyncio.timeout(PATIENCE_S),
    ):
        machine = await open_qmp(at)
        try:
            yield guest, machine
        finally:
            machine.close()
            await asyncio.sleep(0)


def test_who_asks_waits_for_a_talk_of_ours(tmp_path: Path) -> None:
    """A look that a slow agent holds up is no other program: the agent is asked after it."""

    async def main() -> None:
        async with _opened(tmp_path) as (guest, machine):
            look = asyncio.create_task(machine.agent())
            await guest.asked.wait()
            ask = asyncio.create_task(machine.ask_agent())
            await asyncio.sleep(0.3)
            assert (guest.shutdowns, ask.done()) == (0, False)
            guest.answers_now.set()
            assert (await look).answers is True
            await ask
            assert guest.shutdowns == 1

    asyncio.run(main())


def test_a_talk_of_ours_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited as long as a talk may take says that it is the agent which keeps silent."""
    monkeypatch.setattr(agent, "TALK_S", 0.1)

    async def main() -> None:
        async with _opened(tmp_path) as (guest, machine):
            look = asyncio.create_task(machine.agent())
            await guest.asked.wait()
            with pytest.raises(Trouble, match="has still not answered") as raised:
                await machine.ask_agent()
            assert raised.value.fault is Fault.HUNG
            other = await machine.agent()
            assert (other.connected, other.answers) == (True, False)
            assert other.detail == agent.STILL_SILENT
            guest.open = False
            other = await machine.agent()
            assert (other.connected, other.answers) == (False, None)
            assert "nothing in it holds" in other.detail
            assert not look.done()
            guest.open = True
            guest.answers_now.set()
            assert (await look).answers is True
            await machine.ask_agent()

    asyncio.run(main())


def test_our_own_hanging_up_is_seen_late(tmp_path: Path) -> None:
    """A port that is held right after our talk is asked for again; then it is another's."""

    async def main() -> None:
        async with _opened(tmp_path) as (guest, machine):
            guest.answers_now.set()
            assert (await machine.agent()).answers is True
            guest.unseen = 1
            await machine.ask_agent()
            assert guest.shutdowns == 1
            guest.unseen = 1
            assert (await machine.agent()).answers is True
            guest.unseen = 100
            with pytest.raises(Trouble, match="another program"):
                await machine.ask_agent()
            assert guest.shutdowns == 1

    asyncio.run(main())
