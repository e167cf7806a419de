"""What every server has to keep whose process serves by itself, whichever module runs it."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from app.servers.alone_stage import all_at_once, another_wish
from app.servers.manager_stage import manager
from app.servers.workers_stage import shop
from drill.experiments import bad, told
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from app.servers.workers_stage import Shop

AIOHTTP = """
import asyncio
from aiohttp import web
from shop import lifecycle, say

async def page(request):
    say("begun")
    if request.path == "/slow":
        await asyncio.sleep(float(request.query_string or 30))
    if request.path == "/draining":
        await lifecycle.draining.wait_async()
    say("answered")
    return web.Response(text="ok")

def make(words):
    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    return app
"""
TORNADO = """
import asyncio, sys
from tornado import web
from shop import lifecycle, say
from lastcall.app.servers.tornado import serve

class Page(web.RequestHandler):
    async def get(self):
        say("begun")
        if self.request.path == "/slow":
            await asyncio.sleep(float(self.request.query or 30))
        if self.request.path == "/draining":
            await lifecycle.draining.wait_async()
        say("answered")
        self.write(b"ok")

serve(web.Application([("/.*", Page)]), int(sys.argv[1]), address="127.0.0.1")
"""
STDLIB = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shop import lifecycle, say
from lastcall.app.servers.stdlib import serve

class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        say("begun")
        path, _, query = self.path.partition("?")
        if path == "/slow":
            time.sleep(float(query or 30))
        if path == "/draining":
            lifecycle.draining.wait(30)
        say("answered")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

serve(ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page))
"""
FLASK = """
import sys
from shop import wsgi
from lastcall.app.servers.flask import serve

serve(wsgi, port=int(sys.argv[1]))
"""
PROGRAMS = {"aio": AIOHTTP, "tornadoes": TORNADO, "standard": STDLIB, "flasks": FLASK}


def module(name: str, *words: str) -> tuple[str, ...]:
    """The command line of one of our modules."""
    return ("-P", "-m", f"lastcall.app.servers.{name}", *words)


COMMANDS = {
    "aiohttp": module("aiohttp", "-H", "127.0.0.1", "-P", "{port}", "aio:make"),
    "daphne": module("daphne", "-b", "127.0.0.1", "-p", "{port}", "shop:app"),
    "flask": ("-P", "flasks.py", "{port}"),
    "hypercorn": module("hypercorn", "-b", "127.0.0.1:{port}", "-w", "0", "shop:app"),
    "stdlib": ("-P", "standard.py", "{port}"),
    "tornado": ("-P", "tornadoes.py", "{port}"),
    "waitress": module("waitress", "--listen=127.0.0.1:{port}", "shop:wsgi"),
}
SERVERS = sorted(COMMANDS)
# As `lastcall drill compare` lists them; hypercorn is drilled with its workers.
DRILLED = (
    "Flask's development server",
    "ThreadingHTTPServer",
    "Tornado",
    "aiohttp",
    "daphne",
    "waitress, 30 threads",
    "wsgiref",
)
TWICE = How(to=To.GROUP, again_s=0.2)


def start(
    name: str, folder: Path, *, serves: bool = True, port: int = 0, **env: str
) -> AbstractContextManager[Shop]:
    """One of the servers; see `shop`."""
    for program, text in PROGRAMS.items():
        (folder / f"{program}.py").write_text(text)
    return shop(folder, *COMMANDS[name], serves=serves, port=port, **env)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, How()) for name in DRILLED),
        *((name, TWICE) for name in ("Tornado", "daphne", "waitress, 30 threads")),
    ],
)
def test_it_keeps_its_word(name: str, how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = all_at_once(f"{name}, with lastcall", how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM  # as waitpid(2) tells it


@pytest.mark.parametrize("name", ["ThreadingHTTPServer", "Tornado", "waitress, 30 threads"])
def test_the_bare_server_loses(name: str) -> None:
    """The same drill sees that the server alone loses its requests."""
    assert bad(all_at_once(name, How()))


@pytest.mark.parametrize("name", SERVERS)
def test_the_order_of_a_life(name: str, tmp_path: Path) -> None:
    """The manager hears READY=1 and can connect; the last answer says `close`; then the hooks."""
    with (
        manager(tmp_path / "notify") as service,
        start(name, tmp_path, serves=False, NOTIFY_SOCKET=str(tmp_path / "notify")) as server,
    ):
        assert service.hear()[1] == ["READY=1", f"MAINPID={server.child.pid}"]
        connection = server.ask("/draining")
        server.heard("begun")
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        answer.read()
        assert server.wait() == -signal.SIGTERM
        words = [word for word in server.words() if word in {"begun", "answered", "close"}]
        assert words == ["begun", "answered", "close"]
        assert service.hear()[1][0] == "STOPPING=1"
        assert {pid for pid, _ in service.rest()} == {server.child.pid}


@pytest.mark.parametrize("name", SERVERS)
def test_a_second_signal_means_now(name: str, tmp_path: Path) -> None:
    """What is in hand is cut off; hooks still run."""
    with start(name, tmp_path) as server, server.ask("/slow?30").sock:
        server.heard("begun", 2)  # with the one that showed that it serves
        server.tell()
        server.stopping()
        another_wish()
        server.tell(signal.SIGINT)
        assert server.wait() == -signal.SIGTERM
        assert "close" in server.words()  # maybe before the server has ended: nothing is waited for
        assert "again: now. Cut off: 'GET /slow" in server.log.read_text()


@pytest.mark.parametrize("name", SERVERS)
def test_immediate_cuts(name: str, tmp_path: Path) -> None:
    """No request is waited for; hooks still run."""
    with (
        start(name, tmp_path, LASTCALL_SHUTDOWN="immediate") as server,
        server.ask("/slow?30").sock as client,
    ):
        server.heard("begun", 2)
        server.tell()
        assert server.wait() == -signal.SIGTERM
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert server.words()[-1] == "close"


@pytest.mark.parametrize("name", SERVERS)
def test_a_port_in_use(name: str, tmp_path: Path) -> None:
    """The server's own words, exit 1, and no hook runs where the lifecycle was not entered yet."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(name, tmp_path, serves=False, port=port) as server:
            assert server.wait() == 1
            # aiohttp has made the application by then.
            assert server.words() == (["close"] if name == "aiohttp" else [])
            assert "address already in use" in server.log.read_text().lower()


@pytest.mark.parametrize("name", ["daphne", "waitress"])
def test_an_application_that_is_not_there(name: str, tmp_path: Path) -> None:
    """The server's own words, and exit 1."""
    command = (*COMMANDS[name][:-1], "nothing:app")
    with shop(tmp_path, *command, serves=False) as server:
        assert server.wait() == 1
        assert "No module named 'nothing'" in server.log.read_text()
