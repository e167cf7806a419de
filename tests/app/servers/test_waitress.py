"""waitress, drained: real servers, and whole drills."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from app.servers.alone_stage import all_at_once, another_wish, refused
from app.servers.workers_stage import free_port, shop
from drill.experiments import bad, told
from helpers import PATIENCE_S
from lastcall.app.http.leftover import Moving
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("-P", "-m", "lastcall.app.servers.waitress", "--listen=127.0.0.1:{port}")


@pytest.mark.parametrize("how", [How(), How(to=To.GROUP, again_s=0.2)])
def test_it_keeps_its_word(how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = all_at_once("waitress, 30 threads, with lastcall", how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM


def test_the_bare_server_loses() -> None:
    """The same drill sees that waitress alone loses its requests."""
    assert bad(all_at_once("waitress, 30 threads", How()))


def test_the_order_of_the_end(tmp_path: Path) -> None:
    """The request ends with `Connection: close`, then come the application's hooks."""
    with shop(tmp_path, *COMMAND, "shop:wsgi") as server:
        connection = server.ask("/slow?0.5")
        server.heard("begun", 2)  # with the one that showed that it serves
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        answer.read()
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-2:] == ["answered", "close"]


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
        connection = server.ask("/slow?0.5")
        server.heard("begun", 2)
        server.tell()
        assert connection.getresponse().status == 200
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_a_second_signal_means_now(tmp_path: Path) -> None:
    """What is in hand is cut off; hooks still run."""
    with shop(tmp_path, *COMMAND, "shop:wsgi") as server, server.ask("/slow?30").sock:
        server.heard("begun", 2)
        server.tell()
        another_wish()
        server.tell(signal.SIGINT)
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-1] == "close"


def test_immediate_cuts(tmp_path: Path) -> None:
    """No request is waited for; hooks still run."""
    (tmp_path / "now.py").write_text(
        "from shop import lifecycle, wsgi\nlifecycle.house.shutdown = 'immediate'\n"
    )
    with shop(tmp_path, *COMMAND, "now:wsgi") as server, server.ask("/slow?30").sock as client:
        server.heard("begun", 2)
        server.tell()
        assert server.wait() == -signal.SIGTERM
        assert client.recv(1) == b""
        assert server.words()[-1] == "close"


def test_the_same_start_up_failures(tmp_path: Path) -> None:
    """A port in use and no such application: waitress's own words, exit 1, at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with shop(tmp_path, *COMMAND, "shop:wsgi", serves=False, port=port) as server:
            assert server.wait() == 1
    assert "Address already in use" in (tmp_path / "err").read_text()
    with shop(tmp_path, *COMMAND, "nothing:app", serves=False) as server:
        assert server.wait() == 1
    assert "No module named 'nothing'" in (tmp_path / "err").read_text()


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
