"""The standard library's servers under `lastcall.app.servers.stdlib`."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from helpers import Victim, victim, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBE = (sys.executable, "-P", "-m", "lastcall.drill.probe.standard")
_ANSWER_S = 20.0
# Every request is told by its path; `/slow` works for as long as a file is not there.
HEAD = """
import os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from socketserver import ForkingMixIn
from lastcall import Lifecycle
from lastcall.app.servers import stdlib

GATE = sys.argv[1]

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        say("begun", self.path)
        while self.path == "/slow" and not os.path.exists(GATE):
            time.sleep(0.005)
        if self.path == "/end":
            self.server.shutdown()
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *words):
        pass

class Forking(ForkingMixIn, HTTPServer):
    pass

def ready(server):
    say("ready", server.server_address[1])
    return server
"""


class Web(Victim):
    """A server; it has said its port."""

    port = 0
    gate: Path

    def ask(self, path: str, line: str = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n") -> socket.socket:
        """A connection on which this was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), _ANSWER_S)
        made.sendall(line.format(path).encode())
        return made

    def open(self) -> None:
        """Let slow requests be answered."""
        self.gate.touch()

    def until(self, line: str) -> list[str]:
        """What it says up to this line."""
        said: list[str] = []
        while not said or said[-1] != line:
            heard = self.out.readline()
            assert heard, said
            said.append(heard.rstrip("\n"))
        return said


def whole(client: socket.socket) -> str:
    """All that comes until the other side ends it; `reset` if it does so in disorder."""
    said = b""
    try:
        with client:
            while piece := client.recv(65536):
                said += piece
    except ConnectionResetError:
        return f"{said.decode()} reset"
    return said.decode()


@contextlib.contextmanager
def web(folder: Path, code: str, **env: str) -> Iterator[Web]:
    """A server whose program is `HEAD` and this."""
    program = folder / "program.py"
    program.write_text(HEAD + textwrap.dedent(code))
    gate = folder / "gate"
    import os

    command = (sys.executable, str(program), str(gate))
    with victim(*command, ready="", env=os.environ | env) as made:
        first = made.line().split()
        assert first[:1] == ["ready"], (first, made.out.read())
        server = Web(made.child)
        server.port, server.gate = int(first[1]), gate
        # Once it answers, the signals are taken, too.
        whole(server.ask("/up", "GET {} HTTP/1.1\r\nConnection: close\r\n\r\n"))
        server.until("begun /up")
        yield server


THREADING = 'stdlib.serve(ready(ThreadingHTTPServer(("127.0.0.1", 0), Handler)))'
ALONE = 'stdlib.serve(ready(HTTPServer(("127.0.0.1", 0), Handler)))'
FORKING = 'stdlib.serve(ready(Forking(("127.0.0.1", 0), Handler)))'


def test_an_answer_announces_the_end(tmp_path: Path) -> None:
    """A request in hand is answered with `Connection: close`, one behind another's is answered."""
    with web(tmp_path, THREADING) as server:
        client = server.ask("/slow")
        server.until("begun /slow")
        client.sendall(b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n")
        server.child.terminate()
        server.until("lastcall: SIGTERM: stopping (within 25 s)")
        server.open()
        answers = whole(client)
        assert answers.count("200 OK") == 2, answers
        assert answers.count("Connection: close") == 1, answers
        assert server.wait() == -signal.SIGTERM


def test_who_is_silent_does_not_hold_up_the_queue(tmp_path: Path) -> None:
    """A server of one request at a time serves its queue behind somebody who sends nothing."""
    with web(tmp_path, ALONE) as server:
        silent = server.ask("", "{}")
        behind = [server.ask(f"/{number}") for number in range(3)]
        server.child.terminate()
        assert ["200 OK" in whole(each) for each in behind] == [True] * 3
        assert whole(silent) == ""
        assert server.wait() == -signal.SIGTERM


def test_half_a_request_is_given_up_and_not_executed(tmp_path: Path) -> None:
    """Half a request at the head of the queue has its patience, then the others are served."""
    with web(tmp_path, f"stdlib.PATIENCE_S = 0.3\n{ALONE}") as server:
        half = server.ask("/half", "GET {} HTTP/1.1\r\nHo")
        behind = server.ask("/behind")
        server.child.terminate()
        assert "200 OK" in whole(behind)
        whole(half)
        assert server.wait() == -signal.SIGTERM
        assert "begun /half" not in server.out.read()


def test_a_stalled_upload_is_given_up(tmp_path: Path) -> None:
    """A body that does not go on is not waited for until the deadline."""
    with web(tmp_path, f"stdlib.PATIENCE_S = 0.3\n{THREADING}") as server:
        half = server.ask("/up", "POST {} HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        server.ask("/seen").close()
        server.until("begun /seen")
        server.child.terminate()
        assert "200" not in whole(half)
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("code", [ALONE, FORKING], ids=["alone", "forks"])
def test_immediate_cuts_at_once(tmp_path: Path, code: str) -> None:
    """With `immediate` a request that would never end is cut off."""
    with web(tmp_path, code, LASTCALL_SHUTDOWN="immediate") as server:
        client = server.ask("/slow")
        server.until("begun /slow")
        server.child.terminate()
        assert "200" not in whole(client)
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("code", [ALONE, FORKING], ids=["alone", "forks"])
def test_a_second_signal_means_now(tmp_path: Path, code: str) -> None:
    """The drain of a request that never ends is broken off by a second signal, and says so."""
    with web(tmp_path, code) as server:
        client = server.ask("/slow")
        server.until("begun /slow")
        server.child.terminate()
        server.until("lastcall: SIGTERM: stopping (within 25 s)")
        again_s = time.monotonic() + 1.1  # sooner it is the same wish once more
        wait_until(lambda: time.monotonic() > again_s, "the second signal's time")
        server.child.terminate()
        assert "200" not in whole(client)
        assert server.wait() in {-signal.SIGTERM, 128 + signal.SIGTERM, 22}
        assert "again: now" in server.out.read()


def test_children_finish_their_request(tmp_path: Path) -> None:
    """A server that forks waits for its children, also when the whole group gets the signal."""
    import os

    with web(tmp_path, FORKING) as server:
        client = server.ask("/slow")
        server.until("begun /slow")
        os.killpg(server.pid, signal.SIGTERM)
        server.until("lastcall: SIGTERM: stopping (within 25 s)")
        server.open()
        client.shutdown(socket.SHUT_WR)  # a child does not know that it is to end the connection
        assert "200 OK" in whole(client)
        assert server.wait() == -signal.SIGTERM


def test_hooks_run_once_the_server_has_ended(tmp_path: Path) -> None:
    """Requests, `server_close`, hooks: in this order, inside the user's own `with`, too."""
    code = """
        lifecycle = Lifecycle(exit_with="zero")

        @lifecycle.on("close")
        def pool():
            say("hook")

        class Server(ThreadingHTTPServer):
            def server_close(self):
                say("closed")
                super().server_close()

        with lifecycle:
            stdlib.serve(ready(Server(("127.0.0.1", 0), Handler)))
            say("served")
    """
    with web(tmp_path, code) as server:
        client = server.ask("/slow")
        server.until("begun /slow")
        server.child.terminate()
        server.until("lastcall: SIGTERM: stopping (within 25 s)")
        server.open()
        assert "200 OK" in whole(client)
        assert server.wait() == 0
        said = [
            line for line in server.out.read().split("\n") if line in {"closed", "served", "hook"}
        ]
        assert said == ["closed", "served", "hook"]


@pytest.mark.parametrize("code", [THREADING, ALONE], ids=["threads", "alone"])
def test_shutdown_from_a_handler_ends_it(tmp_path: Path, code: str) -> None:
    """`server.shutdown()` does not wait for the very request that called it."""
    with web(tmp_path, f"{code}\nsay('over')") as server:
        assert "200 OK" in whole(server.ask("/end"))
        assert server.wait() == 0
        assert "over" in server.out.read()


def test_an_error_of_the_server_ends_it_as_ever(tmp_path: Path) -> None:
    """What the accept loop raises comes out of `serve`, with Python's exit code."""
    code = """
        class Server(HTTPServer):
            def service_actions(self):
                raise ValueError("a fault of mine")

        stdlib.serve(ready(Server(("127.0.0.1", 0), Handler)))
    """
    with web(tmp_path, code) as server:
        assert server.wait() == 1
        assert "a fault of mine" in server.out.read()
