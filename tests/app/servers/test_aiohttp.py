"""aiohttp's own server under `lastcall.app.servers.aiohttp`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import aiohttp
import pytest

from helpers import Victim, victim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = "lastcall.app.servers.aiohttp"
HEAD = """
import asyncio, os, sys
from aiohttp import web
from lastcall import Lifecycle

GATE = sys.argv[1] if len(sys.argv) > 1 else ""

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

async def handle(request):
    say("begun", request.path)
    while request.path == "/slow" and not os.path.exists(GATE):
        await asyncio.sleep(0.005)
    if request.path == "/end":
        raise web.GracefulExit
    return web.Response(text=await request.text())

async def echo(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        say("message", message.data)
        while not os.path.exists(GATE):
            await asyncio.sleep(0.005)
        await socket.send_str(message.data)
    say("socket over")
    return socket

async def context(app):
    say("up")
    yield
    say("context")

async def on_shutdown(app):
    say("on_shutdown")

async def on_cleanup(app):
    say("on_cleanup")

def make(words=()):
    app = web.Application()
    app.router.add_get("/ws", echo)
    app.router.add_route("*", "/{path:.*}", handle)
    app.cleanup_ctx.append(context)
    app.on_shutdown.append(on_shutdown)
    app.on_cleanup.append(on_cleanup)
    return app

def serve(**words):
    from lastcall.app.servers.aiohttp import serve

    def told(words):
        say("ready", words.split()[3].rsplit(":", 1)[1])

    serve(make(), host="127.0.0.1", port=0, print=told, access_log=None, **words)
"""
STOPPING = "lastcall: SIGTERM: stopping (within 25 s)"


class Web(Victim):
    """A server; it has said its port."""

    port = 0
    gate: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, said: str) -> socket.socket:
        """A connection on which this was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), 20)
        made.sendall(said.encode())
        return made

    def until(self, line: str) -> list[str]:
        """What it says up to this line."""
        said: list[str] = []
        while not said or said[-1] != line:
            heard = self.out.readline()
            assert heard, said
            said.append(heard.rstrip("\n"))
        return said


def get(path: str) -> str:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"


def whole(client: socket.socket) -> str:
    """All that comes until the other side ends it."""
    said = b""
    with client, contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            said += piece
    return said.decode()


@contextlib.contextmanager
def web(folder: Path, code: str = "serve()", **env: str) -> Iterator[Web]:
    """A server whose program is `HEAD` and this."""
    program = folder / "program.py"
    program.write_text(HEAD + textwrap.dedent(code))
    gate = folder / "gate"
    command = (sys.executable, str(program), str(gate))
    with victim(*command, ready="up", env=os.environ | env) as made:
        server = Web(made.child)
        server.port, server.gate = int(made.line().split()[1]), gate
        yield server


def test_an_answer_announces_the_end(tmp_path: Path) -> None:
    """A request in hand is answered with `Connection: close`, one behind another's is answered."""
    with web(tmp_path) as server:
        client = server.ask(get("/slow") + get("/behind"))
        server.until("begun /slow")
        server.child.terminate()
        server.until(STOPPING)
        server.gate.touch()
        answers = whole(client)
        assert answers.count("200 OK") == 2, answers
        assert answers.count("Connection: close") == 1, answers
        assert server.wait() == -signal.SIGTERM


def test_hooks_come_in_order(tmp_path: Path) -> None:
    """The hooks of aiohttp run after the drain, the lifecycle's behind them, on the same loop."""
    code = """
        lifecycle = Lifecycle(exit_with="zero")

        @lifecycle.on("close")
        async def pool():
            say("pool", loop is asyncio.get_running_loop())

        loop = asyncio.new_event_loop()
        serve(loop=loop)
    """
    with web(tmp_path, code) as server:
        client = server.ask(get("/slow"))
        server.until("begun /slow")
        server.child.terminate()
        server.until(STOPPING)
        server.gate.touch()
        assert "200 OK" in whole(client)
        said = [line for line in server.out.read().splitlines() if "lastcall" not in line]
        assert said == ["on_shutdown", "context", "on_cleanup", "pool True"], said
        assert server.wait() == 0


def test_it_serves_inside_a_lifecycle_that_is_entered(tmp_path: Path) -> None:
    """With the user's own `with` around it, `serve` returns once the server has ended."""
    with web(
        tmp_path, "with Lifecycle(exit_with='code'):\n    serve()\n    say('served')"
    ) as server:
        server.child.terminate()
        server.until("served")
        assert server.wait() == 128 + signal.SIGTERM


def test_a_message_in_work_is_answered_before_1012(tmp_path: Path) -> None:
    """A WebSocket is closed when its handler waits for a message, not while it works on one."""

    async def talk(server: Web) -> tuple[object, int | None]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws") as link,
        ):
            await link.send_str("hello")
            await asyncio.to_thread(server.until, "message hello")
            server.child.terminate()
            await asyncio.to_thread(server.until, STOPPING)
            server.gate.touch()
            answer = await link.receive()
            await link.receive()
            return answer.data, link.close_code

    with web(tmp_path) as server:
        assert asyncio.run(talk(server)) == ("hello", 1012)
        server.until("socket over")
        assert server.wait() == -signal.SIGTERM


def test_a_client_that_does_not_answer_the_close_does_not_hold_it(tmp_path: Path) -> None:
    """Who ignores the close frame of a WebSocket is left after a second."""
    with web(tmp_path) as server:
        client = server.ask(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        said = b""
        while b"\r\n\r\n" not in said:
            said += client.recv(65536)
        server.child.terminate()
        assert client.recv(100)[:4] == b"\x88\x02\x03\xf4"  # a close frame with 1012
        server.until("socket over")
        assert server.wait() == -signal.SIGTERM
        client.close()


def test_graceful_exit_drains(tmp_path: Path) -> None:
    """`web.GracefulExit`, raised in a handler, ends the server; another's request is finished."""
    with web(tmp_path, "serve()\nsay('over')") as server:
        client = server.ask(get("/slow"))
        server.until("begun /slow")
        server.ask(get("/end")).close()
        server.until("lastcall: web.GracefulExit: stopping (within 25 s)")
        server.gate.touch()
        assert "200 OK" in whole(client)
        server.until("over")
        assert server.wait() == 0


def test_a_stop_while_it_starts(tmp_path: Path) -> None:
    """A start that takes long is broken off, as by aiohttp itself."""
    code = """
        async def slow_start(app):
            say("ready 0")
            await asyncio.sleep(60)

        make_app = make
        def make():
            app = make_app()
            app.on_startup.append(slow_start)
            return app

        serve()
    """
    with web(tmp_path, code) as server:
        server.child.terminate()
        assert server.wait() == -signal.SIGTERM


def _command(module: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", module, *words)
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("fault", ["taken", "no module", "no function", "no words"])
def test_what_cannot_start_says_what_aiohttp_says(tmp_path: Path, fault: str) -> None:
    """The same last words and the same exit code as `python -m aiohttp.web`."""
    (tmp_path / "shop.py").write_text(HEAD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = {
            "taken": ("-H", "127.0.0.1", "-P", port, "shop:make"),
            "no module": ("nowhere:make",),
            "no function": ("shop:nothing",),
            "no words": (),
        }[fault]
        bare = _command("aiohttp.web", tmp_path, *words)
        ours = _command(OURS, tmp_path, *words)

    def last(done: subprocess.CompletedProcess[str]) -> str:
        return [line for line in done.stderr.splitlines() if "lastcall: " not in line][-1]

    assert (ours.returncode, last(ours)) == (bare.returncode, last(bare))
