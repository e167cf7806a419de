"""granian, drained: real servers, and whole drills."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from app.servers.workers_stage import drilled, free_port, shop
from drill.experiments import bad, told
from helpers import PATIENCE_S, wait_until
from lastcall import Lifecycle
from lastcall.app.servers.granian_apps import Wsgi
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from lastcall.app.work import Gate

COMMAND = ("-P", "-m", "lastcall.app.servers.granian", "--port", "{port}", "--interface")
APPS = {"asgi": "shop:app", "wsgi": "shop:wsgi", "rsgi": "shop:rsgi"}
INTERFACES = sorted(APPS)


@pytest.mark.parametrize(
    ("name", "more", "how"),
    [
        ("granian ASGI", (), How()),
        ("granian ASGI", ("--workers", "2"), How(to=To.GROUP)),
        ("granian WSGI", (), How(again_s=0.3)),
    ],
)
def test_it_keeps_its_word(name: str, more: tuple[str, ...], how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = drilled(name, *more, how=how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM  # as waitpid(2) tells it


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_order_of_the_end(tmp_path: Path, interface: str) -> None:
    """The request ends, then the server's own hooks run, then the application's."""
    with shop(tmp_path, *COMMAND, interface, "--workers", "2", APPS[interface]) as server:
        begun = server.words().count("begun")
        connection = server.ask("/slow?0.5")
        server.heard("begun", begun + 1)
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        pid = int(answer.read())
        assert server.wait() == -signal.SIGTERM
        lines = (tmp_path / "words").read_text().splitlines()
    words = [line.split()[0] for line in lines if line.endswith(f" {pid}")]
    wanted = ["answered", "shutdown", "close"] if interface == "asgi" else ["answered", "close"]
    assert words[-len(wanted) :] == wanted


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_second_signal_means_now(tmp_path: Path, interface: str) -> None:
    """It reaches the worker: what is in hand is cut off."""
    with shop(tmp_path, *COMMAND, interface, APPS[interface]) as server:
        begun = server.words().count("begun")
        with server.ask("/slow?30").sock:
            server.heard("begun", begun + 1)
            server.tell()
            server.tell_again()
            assert server.wait() != 0
        assert server.words().count("answered") == begun
        assert "close" in server.words()


@pytest.mark.parametrize("interface", INTERFACES)
def test_immediate_cuts(tmp_path: Path, interface: str) -> None:
    """No request is waited for: the connection ends at once."""
    app = APPS[interface]
    with shop(tmp_path, *COMMAND, interface, app, LASTCALL_SHUTDOWN="immediate") as server:
        begun = server.words().count("begun")
        with server.ask("/slow?30").sock as client:
            server.heard("begun", begun + 1)
            server.tell()
            assert client.recv(1) == b""
            if interface != "wsgi":  # its threads cannot be cancelled
                assert server.wait() == -signal.SIGTERM


def test_many_stops_with_newcomers_in_the_queue(tmp_path: Path) -> None:
    """WSGI, and connections that come with the signal: it never waits for one that it missed."""
    for _ in range(6):
        with shop(tmp_path, *COMMAND, "wsgi", "--blocking-threads", "2", "shop:wsgi") as server:
            clients = []
            for _ in range(5):
                client = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
                clients.append(client)
                client.sendall(b"GET /slow?0.05 HTTP/1.1\r\nHost: x\r\n\r\n")
            server.tell()
            for client in clients:
                with client:
                    assert client.recv(12) == b"HTTP/1.1 200"
            assert server.wait() == -signal.SIGTERM


def test_a_websocket_of_rsgi_is_closed(tmp_path: Path) -> None:
    """Nobody says anything on it: it is closed in order (the core knows no code for that)."""
    with shop(tmp_path, *COMMAND, "rsgi", "shop:rsgi") as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            server.heard("accepted")
            server.tell()
            said = b""
            while not said.endswith(b"\x88\x00"):
                more = client.recv(4096)
                assert more, said
                said += more
            client.sendall(b"\x88\x80\0\0\0\0")
        assert server.wait() == -signal.SIGTERM
        assert "closed" in server.words()


def test_the_same_start_up_failures(tmp_path: Path) -> None:
    """A port in use, no such application, and a lifespan that fails: exit 1, and no hang."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with shop(tmp_path, *COMMAND, "asgi", "shop:app", serves=False, port=port) as server:
            assert server.wait() == 1
    assert "in use" in (tmp_path / "err").read_text()
    with shop(tmp_path, *COMMAND, "asgi", "nothing:app", serves=False) as server:
        assert server.wait() == 1
    assert "Could not import" in (tmp_path / "err").read_text()
    with shop(tmp_path, *COMMAND, "asgi", "shop:app", serves=False, SHOP_FAILS="1") as server:
        assert server.wait() == 1
    assert "lifespan startup failed" in (tmp_path / "err").read_text()


def test_a_reload_serves_all_the_time(tmp_path: Path) -> None:
    """HUP: new workers answer, and what the old ones have in hand is answered, too."""
    words = ("asgi", "--workers", "1", "--respawn-interval", "0.5")
    with shop(tmp_path, *COMMAND, *words, "shop:app") as server:
        server.heard("answered")
        before = server.workers()
        connection = server.ask("/slow?1.5")
        server.heard("begun", 2)
        server.tell(signal.SIGHUP)
        wait_until(lambda: int(server.answer()) not in before, "a new worker answers")
        assert int(connection.getresponse().read()) in before
        server.heard("close")
        for _ in range(5):
            assert int(server.answer()) not in before
        server.tell()
        assert server.wait() == -signal.SIGTERM


def test_a_worker_that_crashes_ends_all(tmp_path: Path) -> None:
    """As with the bare server, whose exit code it is."""
    with shop(tmp_path, *COMMAND, "wsgi", "shop:wsgi") as server:
        os.kill(int(server.answer()), signal.SIGKILL)
        assert server.wait() == 1


def test_a_unix_socket(tmp_path: Path) -> None:
    """Who waits in its queue is served; nobody can be turned away there."""
    path = tmp_path / "socket"
    uds = ("-P", "-m", "lastcall.app.servers.granian", "--uds", str(path), "--interface", "wsgi")
    with shop(tmp_path, *uds, "shop:wsgi", serves=False) as server:
        wait_until(lambda: "Started worker" in (tmp_path / "err").read_text(), "it serves")
        with socket.socket(socket.AF_UNIX) as client:
            wait_until(lambda: client.connect_ex(str(path)) == 0, "it listens")
            client.sendall(b"GET /slow?0.3 HTTP/1.1\r\nHost: x\r\n\r\n")
            server.heard("begun")
            server.tell()
            client.settimeout(PATIENCE_S)
            assert client.recv(12) == b"HTTP/1.1 200"
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_serve_ends_with_its_workers(tmp_path: Path) -> None:
    """The function does what the command does."""
    port = free_port()
    code = (
        "from lastcall.app.servers.granian import serve\n"
        f"serve('shop:app', interface='asgi', port={port}, workers=2)\n"
    )
    with shop(tmp_path, "-c", code, port=port) as server:
        server.tell()
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("interface", ["asgi", "rsgi"])
def test_the_embedded_server(tmp_path: Path, interface: str) -> None:
    """In a loop of the program's own: the request is answered, then the hooks run."""
    port = free_port()
    app = APPS[interface].replace(":", ".")
    code = (
        "import asyncio, shop\n"
        "from lastcall.app.servers.granian import serve_embedded\n"
        f"asyncio.run(serve_embedded({app}, interface='{interface}', port={port}))\n"
    )
    with shop(tmp_path, "-c", code, port=port) as server:
        connection = server.ask("/slow?0.3")
        server.heard("begun", 2)
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        assert int(answer.read()) == server.child.pid
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_the_record_of_the_run_hears_of_a_request_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the middle of a request is to be known; without a name nothing is written."""
    monkeypatch.setenv("LASTCALL_STATE_DIR", str(tmp_path))
    seen = []
    for name in ("", "shop"):
        lifecycle = Lifecycle(name, signals=())
        gate = lifecycle.house.gate
        lifecycle.house.record()

        def app(*_: object, gate: Gate = gate) -> list[bytes]:
            seen.append((len(gate.flights), gate.count(), gate.oldest()[0].name))
            return [b""]

        environ = {"wsgi.version": (1, 0), "REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        Wsgi(app, lifecycle)(environ, None)
        assert gate.count() == 0
        lifecycle.house.record().close()
    assert seen == [(0, 1, "GET /"), (1, 1, "GET /")]
