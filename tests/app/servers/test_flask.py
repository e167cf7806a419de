"""Flask's development server under `lastcall.app.servers.flask`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from helpers import Victim, victim
from lastcall.drill.listening import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = "lastcall.app.servers.flask"
APP = """
import os, sys, time
from flask import Flask
from lastcall import Lifecycle

app = Flask(__name__)
lifecycle = Lifecycle.current()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@app.route("/<path:path>")
def answer(path):
    say("begun", path, lifecycle.in_flight)
    while path == "slow" and not os.path.exists("gate"):
        time.sleep(0.005)
    return "ok\\n"

@lifecycle.on("close")
def pool():
    say("hook")

@app.cli.command("greet")
def greet():
    say("hello")

if __name__ == "__main__":
    from lastcall.app.servers.flask import serve

    serve(app, port=int(sys.argv[1]), ready="/readyz", live="/livez")
"""
STOPPING = "lastcall: SIGTERM: stopping (within 25 s)"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with an application in it."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


class Web(Victim):
    """A server."""

    port = 0

    def ask(self, path: str) -> socket.socket:
        """A connection on which a request was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), 20)
        made.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return made

    def status(self, path: str) -> int:
        """Of the answer to a GET."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def until(self, *starts: str) -> list[str]:
        """What it says up to a line that begins so."""
        said: list[str] = []
        while not said or not said[-1].startswith(starts):
            heard = self.out.readline()
            assert heard, said
            said.append(heard.rstrip("\n"))
        return said


def whole(client: socket.socket) -> str:
    """All that comes until the other side ends it."""
    said = b""
    with client, contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            said += piece
    return said.decode()


@contextlib.contextmanager
def serving(folder: Path, *words: str, **env: str) -> Iterator[Web]:
    """A server that has answered: its signals are taken."""
    port = free_port()
    command = (sys.executable, *(word.format(port=port) for word in words))
    with victim(*command, ready="Press CTRL+C", cwd=folder, env=os.environ | env) as made:
        server = Web(made.child)
        server.port = port
        # Read to its end: by then the request is counted out, too.
        assert whole(server.ask("/up")).endswith("ok\n")
        server.until("begun up")
        yield server


RUN = ("-m", OURS, "--app", "shop", "run", "--port", "{port}")


@pytest.mark.parametrize("words", [(), ("--without-threads",)], ids=["threads", "alone"])
def test_a_request_is_counted_once_and_finished(shop: Path, words: tuple[str, ...]) -> None:
    """A request in hand is answered, then the hooks run, and the process dies of the signal."""
    with serving(shop, *RUN, *words) as server:
        client = server.ask("/slow")
        assert server.until("begun slow")[-1] == "begun slow 1"
        server.child.terminate()
        server.until(STOPPING)
        (shop / "gate").touch()
        assert whole(client).endswith("ok\n")
        server.until("hook")
        assert server.wait() == -signal.SIGTERM


def test_immediate_cuts_what_counts_itself(shop: Path) -> None:
    """With `immediate` a request of a wrapped application is cut off, too."""
    with (shop / "shop.py").open("a") as code:
        code.write("\napp.wsgi_app = lifecycle.wsgi(app.wsgi_app)\n")
    with serving(shop, *RUN, LASTCALL_SHUTDOWN="immediate") as server:
        client = server.ask("/slow")
        server.until("begun slow")
        server.child.terminate()
        assert "200" not in whole(client)
        server.until("hook")
        assert server.wait() == -signal.SIGTERM


def test_readiness_goes_off_while_it_still_serves(shop: Path) -> None:
    """During the announcement readiness is 503, liveness 200, and requests are answered."""
    env = {"LASTCALL_ANNOUNCE_S": "20"}
    with serving(shop, "shop.py", "{port}", **env) as server:
        assert (server.status("/readyz"), server.status("/livez")) == (200, 200)
        server.child.terminate()
        server.until(STOPPING)
        assert [server.status(path) for path in ("/readyz", "/livez", "/x")] == [503, 200, 200]


def test_other_commands_stay_flasks(shop: Path) -> None:
    """`routes` and an application's own commands go on working."""
    for words, said in ((("routes",), "/<path:path>"), (("greet",), "hello")):
        done = _command(OURS, shop, "--app", "shop", *words)
        assert done.returncode == 0
        assert said in done.stdout


def test_the_reloader_is_left_to_flask(shop: Path) -> None:
    """With `--debug` it says that Flask ends this server, and Flask runs it."""
    words = ("-m", OURS, "--app", "shop", "--debug", "run", "--port", str(free_port()))
    with victim(sys.executable, *words, ready="lastcall: with the reloader", cwd=shop) as made:
        try:
            while "Debugger PIN" not in (line := made.line()):
                assert line or made.child.poll() is None
        finally:
            os.killpg(made.pid, signal.SIGKILL)  # the reloader's child, too


def _command(module: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", module, *words)
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("fault", ["taken", "no module", "no application", "bad option"])
def test_what_cannot_start_says_what_flask_says(shop: Path, fault: str) -> None:
    """The same last words and the same exit code as `python -m flask`."""
    (shop / "empty.py").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = {
            "taken": ("--app", "shop", "run", "--port", port),
            "no module": ("--app", "nowhere", "run"),
            "no application": ("--app", "empty", "run"),
            "bad option": ("--app", "shop", "run", "--nonsense"),
        }[fault]
        bare = _command("flask", shop, *words)
        ours = _command(OURS, shop, *words)

    def last(done: subprocess.CompletedProcess[str]) -> str:
        return done.stderr.splitlines()[-1]

    assert (ours.returncode, last(ours)) == (bare.returncode, last(bare))
