"""daphne, drained: real servers, and whole drills."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from app.servers.alone_stage import refused, websocket
from app.servers.workers_stage import answers, shop
from helpers import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("-P", "-m", "lastcall.app.servers.daphne", "-b", "127.0.0.1", "-p", "{port}")
MORE = """
import asyncio
from shop import lifecycle, say

@lifecycle.on("close")
async def close_loop():
    say("same" if asyncio.get_running_loop() is loop else "other")

async def app(scope, receive, send):
    global loop
    loop = asyncio.get_running_loop()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        say("begun")
        while (await receive())["type"] != "websocket.disconnect":
            pass
        say("gone")
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 20_000_000})
"""


def test_websockets_and_large_answers(tmp_path: Path) -> None:
    """An idle WebSocket gets 1012, an answer that Twisted still holds arrives whole.

    Async hooks of later phases run on the application's loop.
    """
    (tmp_path / "more.py").write_text(MORE)
    with shop(tmp_path, *COMMAND, "more:app") as server:
        client, close_code = websocket(server.port)
        server.heard("begun")
        large = server.ask("/large")
        answer = large.getresponse()
        server.tell()
        assert close_code() == 1012
        client.close()
        refused(server.port)
        assert len(answer.read()) == 20_000_000
        assert server.wait() == -signal.SIGTERM
        assert "gone" in server.words()
        assert "same" in server.words()


def test_a_socket_that_outlives_it(tmp_path: Path) -> None:
    """With `--fd` the next start serves on the same socket: nobody is turned away for good."""
    command = (*COMMAND[:3], "--fd", "{fd}", "lastcall.drill.probe.asgi:app")
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        for _ in range(2):
            child = subprocess.Popen(
                [sys.executable, *(word.format(fd=made.fileno()) for word in command)],
                pass_fds=[made.fileno()],
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                wait_until(lambda: answers(port), "it answers")
                child.terminate()
                assert child.wait(PATIENCE_S) == -signal.SIGTERM
            finally:
                child.kill()
                child.wait()
