"""Tornado, drained: real servers, and whole drills."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from app.servers.alone_stage import refused, websocket
from app.servers.workers_stage import shop
from helpers import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("-P", "tornadoes.py", "{port}")
PROGRAM = """
import asyncio, sys
from shop import lifecycle, say
from tornado import httpserver, httputil, web, websocket
from lastcall.app.servers.tornado import serve, serve_here

class Page(web.RequestHandler):
    async def get(self):
        say("begun")
        if self.request.path == "/slow":
            await asyncio.sleep(float(self.request.query or 30))
        if self.request.path == "/draining":
            await lifecycle.draining.wait_async()
        if self.request.path == "/after":
            await self.finish("answered before\\n")
            await asyncio.sleep(0.5)
        with lifecycle.work("in a request"):
            say("answered")
        if not self._finished:
            self.write(b"x" * (20_000_000 if self.request.path == "/large" else 3))

@web.stream_request_body
class Upload(web.RequestHandler):
    async def prepare(self):
        say("begun")
        await asyncio.sleep(0)
        with lifecycle.work("in an upload"):
            self.taken = 0

    def data_received(self, chunk):
        self.taken += len(chunk)

    def post(self):
        self.write(str(self.taken))

class Echo(websocket.WebSocketHandler):
    def open(self):
        say("open")

    async def on_message(self, message):
        say("begun")
        await asyncio.sleep(0.5)
        await self.write_message(message)

    def on_close(self):
        say("gone")

@lifecycle.on("close")
async def close_loop():
    say("same" if asyncio.get_running_loop() is loop else "other")

def callback(request):
    async def answer():
        say("begun")
        if request.path == "/draining":
            await lifecycle.draining.wait_async()
        start = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
        request.connection.write_headers(start, httputil.HTTPHeaders({"Content-Length": "2"}))
        request.connection.write(b"ok")
        request.connection.finish()
    tasks.append(asyncio.ensure_future(answer()))

class Application(web.Application):
    def start_request(self, *words):
        global loop
        loop = asyncio.get_running_loop()
        return super().start_request(*words)

tasks = []
app = Application([("/ws", Echo), ("/upload", Upload), ("/.*", Page)])
port, kind = int(sys.argv[1]), sys.argv[2] if sys.argv[2:] else ""

async def here():
    async with lifecycle:
        await serve_here(httpserver.HTTPServer(app), port, address="127.0.0.1")
        say("after")

if kind == "here":
    asyncio.run(here())
elif kind == "with":
    with lifecycle:
        serve(app, port, address="127.0.0.1")
        say("after")
else:
    served = callback if kind == "callback" else app
    serve(served, port, address="127.0.0.1", lifecycle=lifecycle, xheaders=True)
"""


@pytest.fixture(autouse=True)
def _program(tmp_path: Path) -> None:
    (tmp_path / "tornadoes.py").write_text(PROGRAM)


@pytest.mark.parametrize("kind", ["", "callback", "here", "with"])
def test_any_application_and_any_loop(tmp_path: Path, kind: str) -> None:
    """The request ends with `Connection: close`, then come the application's hooks."""
    with shop(tmp_path, *COMMAND, kind) as server:
        connection = server.ask("/draining")
        server.heard("begun", 2)  # with the one that showed that it serves
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        answer.read()
        assert server.wait() == -signal.SIGTERM
        words = server.words()
    assert "close" in words
    if kind in {"", "here"}:
        assert "same" in words  # the loop goes on for the hooks of later phases
    assert ("after" in words) is (kind in {"here", "with"})


def test_a_handler_that_goes_on(tmp_path: Path) -> None:
    """What a handler does after its answer, or once its client has gone, is finished."""
    with shop(tmp_path, *COMMAND) as server:
        connection = server.ask("/after")
        server.ask("/slow?0.5").close()
        server.heard("begun", 3)
        assert connection.getresponse().read() == b"answered before\n"
        connection.close()
        server.tell()
        assert server.wait() == -signal.SIGTERM
        assert server.words().count("answered") == 3


def test_an_upload_as_it_comes(tmp_path: Path) -> None:
    """A handler that takes the body in pieces gets all of it."""
    with shop(tmp_path, *COMMAND) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
            head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
            client.sendall(head + b"abc")
            server.heard("begun", 2)
            server.tell()
            refused(server.port)
            client.sendall(b"def")
            said = client.makefile("rb").read()
        assert b"Connection: close" in said
        assert said.endswith(b"\r\n\r\n6")
        assert server.wait() == -signal.SIGTERM


def test_http_1_0_is_not_promised_anything(tmp_path: Path) -> None:
    """Who asks for keep-alive in HTTP/1.0 is not told that he has it."""
    with shop(tmp_path, *COMMAND) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
            client.sendall(b"GET /draining HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            server.heard("begun", 2)
            server.tell()
            said = client.makefile("rb").read()
        assert b"200 OK" in said
        assert b"Keep-Alive" not in said
        assert server.wait() == -signal.SIGTERM


def test_websockets_and_large_answers(tmp_path: Path) -> None:
    """A message in hand is answered, then comes 1012; a large answer arrives whole."""
    with shop(tmp_path, *COMMAND) as server:
        idle, idle_code = websocket(server.port)
        busy, busy_code = websocket(server.port)
        server.heard("open", 2)
        busy.sendall(bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
        server.heard("begun", 2)
        answer = server.ask("/large").getresponse()
        server.tell()
        assert idle_code() == 1012
        assert busy.recv(4) == bytes([0x81, 2]) + b"hi"
        assert busy_code() == 1012
        assert len(answer.read()) == 20_000_000
        assert server.wait() == -signal.SIGTERM
        assert server.words().count("gone") == 2
        idle.close()
        busy.close()
