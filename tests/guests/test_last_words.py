"""What QEMU said before it closed is heard, though it left a command of ours unread."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import pytest

from helpers import PATIENCE_S
from lastcall.targets.guest.machine import Trouble
from lastcall.targets.guest.qmp.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

_GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}


def _lines(*messages: Mapping[str, object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\r\n" for each in messages)


def _event(name: str) -> dict[str, object]:
    return {"event": name, "timestamp": {"seconds": 1, "microseconds": 0}}


async def _talk(peer: socket.socket, before: int) -> None:
    """Negotiate; wait for a command, leave it unread, say the last words and close."""
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    await loop.sock_sendall(peer, _lines(_GREETING))
    await loop.sock_recv(peer, 65536)
    await loop.sock_sendall(peer, _lines({"return": {}}))
    arrived = asyncio.Event()
    loop.add_reader(peer, arrived.set)
    await arrived.wait()
    loop.remove_reader(peer)
    peer.send(_lines(*[_event("RESUME")] * before, _event("SHUTDOWN")))
    peer.close()


async def _heard(before: int) -> list[object]:
    ours, peer = socket.socketpair()
    heard: list[object] = []
    lost = asyncio.Event()
    talk = asyncio.create_task(_talk(peer, before))
    try:
        async with asyncio.timeout(PATIENCE_S):
            session = await Session.open(
                ours, lambda event: heard.append(event["event"]), lambda _: lost.set(), PATIENCE_S
            )
            with pytest.raises(Trouble):
                await session.execute("query-status")
            await lost.wait()
    finally:
        talk.cancel()
        peer.close()
        ours.close()
    return heard


@pytest.mark.parametrize("before", [0, 13, 14, 15, 30, 31, 32, 100])
def test_the_last_word_is_heard(before: int) -> None:
    """However many messages stand before it, and wherever the reader gives way."""
    assert asyncio.run(_heard(before)) == ["RESUME"] * before + ["SHUTDOWN"]
