"""daphne, drained: real servers, and whole drills."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from app.servers.alone_stage import all_at_once, another_wish, refused, websocket
from app.servers.workers_stage import answers, shop
from drill.experiments import bad, told
from helpers import PATIENCE_S, wait_until
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict

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


@pytest.mark.parametrize("how", [How(), How(to=To.GROUP, again_s=0.2)])
def test_it_keeps_its_word(how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = all_at_once("daphne, with lastcall", how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM


def test_the_order_of_the_end(tmp_path: Path) -> None:
    """The request ends with `Connection: close`, then come the application's hooks."""
    with shop(tmp_path, *COMMAND, "shop:app") as server:
        connection = server.ask("/slow?0.5")
        server.heard("begun", 2)  # with the one that showed that it serves
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        answer.read()
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-2:] == ["answered", "close"]


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


def test_a_second_signal_means_now(tmp_path: Path) -> None:
    """What is in hand is cut off; hooks still run."""
    with shop(tmp_path, *COMMAND, "shop:app") as server, server.ask("/slow?30").sock:
        server.heard("begun", 2)
        server.tell()
        another_wish()
        server.tell(signal.SIGINT)
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_immediate_cuts(tmp_path: Path) -> None:
    """No request is waited for; hooks still run."""
    (tmp_path / "now.py").write_text(
        "from shop import lifecycle, app\nlifecycle.house.shutdown = 'immediate'\n"
    )
    with shop(tmp_path, *COMMAND, "now:app") as server, server.ask("/slow?30").sock as client:
        server.heard("begun", 2)
        server.tell()
        assert server.wait() == -signal.SIGTERM
        assert client.recv(1) == b""
        assert server.words()[-1] == "close"


def test_the_same_start_up_failures(tmp_path: Path) -> None:
    """A port in use and no such application: daphne's own words, exit 1, no hook runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with shop(tmp_path, *COMMAND, "shop:app", serves=False, port=port) as server:
            assert server.wait() == 1
            assert server.words() == []
    assert "Address already in use" in (tmp_path / "err").read_text()
    with shop(tmp_path, *COMMAND, "nothing:app", serves=False) as server:
        assert server.wait() == 1
    assert "No module named 'nothing'" in (tmp_path / "err").read_text()


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
