"""Reaching into a server's own loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

from helpers import PATIENCE_S
from lastcall.app.servers.hosting import let_nobody_in

if TYPE_CHECKING:
    import pytest


def test_whoever_was_accepted_last_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener is closed in the very round in which its loop accepts somebody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        closing = threading.Thread(target=let_nobody_in, args=(loop, lambda: [server]))

        ask, asked = loop.call_soon_threadsafe, threading.Event()

        def heed(*words: Any, **named: Any) -> asyncio.Handle:
            handle = ask(*words, **named)
            asked.set()
            return handle

        def ask_to_close() -> None:
            monkeypatch.setattr(loop, "call_soon_threadsafe", heed)
            closing.start()
            # It is to be asked for in this round, ahead of what accepting leads to.
            assert asked.wait(PATIENCE_S)

        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(b"hello")
            client.settimeout(PATIENCE_S)
            loop.call_soon(ask_to_close)  # ahead of accepting, which the loop is about to see
            answered = await asyncio.to_thread(client.recv, 100)
        await asyncio.to_thread(closing.join)
        assert not server.is_serving()
        return answered

    assert asyncio.run(main()) == b"hello"
