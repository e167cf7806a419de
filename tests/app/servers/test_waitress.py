"""waitress, drained: real servers, and whole drills."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from app.servers.alone_stage import refused
from app.servers.workers_stage import free_port, shop
from helpers import PATIENCE_S
from lastcall.app.http.leftover import Moving

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("-P", "-m", "lastcall.app.servers.waitress", "--listen=127.0.0.1:{port}")


def test_a_queue_behind_one_thread(tmp_path: Path) -> None:
    """Requests that wait for a thread when the stop comes are answered."""
    with shop(tmp_path, *COMMAND, "--threads=1", "shop:wsgi") as server:
        waiting = [server.ask("/slow?0.3") for _ in range(3)]
        server.heard("begun", 2)
        server.tell()
        assert [one.getresponse().status for one in waiting] == [200] * 3
        assert server.wait() == -signal.SIGTERM


def test_a_large_answer(tmp_path: Path) -> None:
    """An answer that waitress still holds when its thread is done arrives whole."""
    (tmp_path / "large.py").write_text(
        "from shop import lifecycle, say\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'x' * 12_000_000]\n"
    )
    with shop(tmp_path, *COMMAND, "large:app") as server:
        answer = server.ask("/large").getresponse()
        server.tell()
        refused(server.port)
        assert len(answer.read()) == 12_000_000
        assert server.wait() == -signal.SIGTERM


def test_the_connection_limit_keeps_nobody_out(tmp_path: Path) -> None:
    """Who waits in the accept queue because of `connection_limit` is let in by the drain."""
    with shop(tmp_path, *COMMAND, "--connection-limit=4", "shop:wsgi") as server:
        waiting = [server.ask("/slow?0.3") for _ in range(6)]
        server.heard("begun", 3)
        server.tell()
        assert [one.getresponse().status for one in waiting] == [200] * 6
        assert server.wait() == -signal.SIGTERM


def test_two_listeners(tmp_path: Path) -> None:
    """A server on two ports answers on both, refuses newcomers on both, and ends."""
    other = free_port()
    with shop(tmp_path, *COMMAND, f"--listen=127.0.0.1:{other}", "shop:wsgi") as server:
        first, server.port = server.port, other
        there = server.ask("/slow?1")
        server.port = first
        here = server.ask("/slow?1")
        server.heard("begun", 3)
        server.tell()
        refused(first)
        refused(other)
        assert (here.getresponse().status, there.getresponse().status) == (200, 200)
        assert server.wait() == -signal.SIGTERM


def test_a_wrapped_application(tmp_path: Path) -> None:
    """An application that the user wrapped, for its readiness path, is drained all the same."""
    (tmp_path / "wrapped.py").write_text(
        "from shop import lifecycle, wsgi\napp = lifecycle.wsgi(wsgi, ready='/readyz')\n"
    )
    with shop(tmp_path, *COMMAND, "wrapped:app") as server:
        connection = server.ask("/draining")
        server.heard("begun", 2)
        server.tell()
        assert connection.getresponse().status == 200
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_inside_a_lifecycle(tmp_path: Path) -> None:
    """Called inside `with lifecycle`, it returns, and the program's own code goes on."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from lastcall import Lifecycle\n"
        "from lastcall.app.servers.waitress import serve\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    lifecycle.request_stop('enough')\n"
        "    return [b'ok']\n"
        "lifecycle = Lifecycle()\n"
        "with lifecycle:\n"
        "    serve(app, sockets=[__import__('socket').socket(fileno=int(sys.argv[1]))])\n"
        "    print('after')\n"
        "print('end')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.set_inheritable(True)
        child = subprocess.Popen(
            [sys.executable, str(program), str(made.fileno())],
            pass_fds=[made.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            with socket.create_connection(made.getsockname(), PATIENCE_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
                out, _ = child.communicate(timeout=PATIENCE_S)
        finally:
            child.kill()
            child.wait()
    assert (out.split(), child.returncode) == (["after", "end"], 0)


def test_what_stands_still_is_given_up() -> None:
    """Only what has moved within the patience counts."""
    moving = Moving(patience_s=0.0)
    assert moving.count([("one", 1)]) == 0
    moving = Moving(patience_s=1000.0)
    assert moving.count([("one", 1), ("two", 1)]) == 2
    assert moving.count([("one", 1)]) == 1
