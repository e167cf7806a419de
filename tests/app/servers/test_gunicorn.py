"""gunicorn, drained: real arbiters and workers, stopped in the middle of their work."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from app.servers.manager_stage import manager
from drill.experiments import sound, told
from drill.servers_stage import Running, installed, running
from helpers import PROGRAMS, wait_until
from lastcall.drill.history import Kind
from lastcall.drill.judge import Verdict
from lastcall.drill.listening import free_port
from lastcall.drill.plan import Plan
from lastcall.drill.servers import SERVERS_WITH_LASTCALL
from lastcall.drill.together import SETTLE_S, together
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = ("{python}", "-P", "-m", "lastcall.app.servers.gunicorn")
BARE = ("{python}", "-P", "-m", "gunicorn")
CONFIG = ("-c", "python:lastcall.drill.probe.gunicornconf", "--pythonpath", str(PROGRAMS))
UVICORN = "uvicorn_worker.UvicornWorker"
KINDS = ("sync", "gthread", "asgi", UVICORN)
DIES_S = 20.0
ENV = {**os.environ, "TOLD": os.devnull}
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SCRIPT = """
import os
from lastcall import Lifecycle
from lastcall.app.servers.gunicorn import serve

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]

lifecycle = Lifecycle()
lifecycle.on("close", name="c")(lambda: print(f"close:{{os.getpid()}}", flush=True))
with lifecycle:
    serve(app, bind="127.0.0.1:{port}", control_socket_disable=True)
    print("behind", flush=True)
"""


def command(kind: str, *words: str, start: tuple[str, ...] = OURS) -> tuple[str, ...]:
    """Gunicorn with an application that tells what happens to it."""
    app = "gunicorn_guest:wsgi" if kind in {"sync", "gthread"} else "gunicorn_guest:asgi"
    return (*start, *CONFIG, "-b", "127.0.0.1:{port}", "-k", kind, *words, app)


class Stage:
    """A gunicorn that serves, and what its application tells."""

    def __init__(self, server: Running, folder: Path) -> None:
        self.server = server
        self.child = server.child
        self._told = folder / "told"

    def told(self, what: str) -> list[int]:
        """The processes that told this, in order."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        return [int(line.split()[0]) for line in lines if line.split()[1] == what]

    def words(self) -> list[str]:
        """All that was told, in order."""
        lines = self._told.read_text().splitlines() if self._told.exists() else []
        return [line.split()[1] for line in lines]

    def wait_told(self, what: str, times: int = 1) -> None:
        """Wait until it was told so often."""
        wait_until(lambda: len(self.told(what)) >= times, f"{what!r}: {self.said()}")

    def said(self) -> str:
        """Its log."""
        return self.server.said.read_text()

    def pid(self) -> int:
        """The worker that answers now."""
        return int(self.server.get("/")[1])

    def workers(self) -> list[int]:
        """Those that have started, in order."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.said())]

    def ask(self, path: str) -> Asking:
        """A request in a thread."""
        return Asking(self.server, path)


class Asking:
    """A request that is under way."""

    def __init__(self, server: Running, path: str) -> None:
        self._answer: tuple[int, bytes] | OSError | None = None
        self._server = server
        self._thread = threading.Thread(target=self._run, args=(path,), daemon=True)
        self._thread.start()

    def _run(self, path: str) -> None:
        try:
            self._answer = self._server.get(path)
        except OSError as error:
            self._answer = error

    @property
    def status(self) -> int:
        """Of the answer; 0: it was lost."""
        self._thread.join(DIES_S)
        return self._answer[0] if isinstance(self._answer, tuple) else 0


def pause(seconds: float) -> None:
    """Let time pass, where what is tested is a matter of time."""
    threading.Event().wait(seconds)


def gone(pid: int) -> bool:
    """Whether a process has ended, collected or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def read(path: Path) -> str:
    """What a file has, if it is there."""
    return path.read_text() if path.exists() else ""


def unix_client(path: Path) -> socket.socket:
    """A connection to a Unix socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DIES_S)
    client.connect(str(path))
    return client


def connects(port: int) -> bool:
    """Whether somebody answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), DIES_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(99).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Start(Protocol):
    """Starts a gunicorn."""

    def __call__(self, words: tuple[str, ...], **env: str) -> Stage:
        """With these words and variables."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """What starts a gunicorn; nothing of it is left afterwards."""
    with contextlib.ExitStack() as stack:

        def begin(words: tuple[str, ...], **env: str) -> Stage:
            given = {"TOLD": str(tmp_path / "told"), **env}
            server = stack.enter_context(running(words, tmp_path, given, ready="/"))
            return Stage(server, tmp_path)

        yield begin


@pytest.mark.parametrize(
    "name",
    [
        "gunicorn sync",
        "gunicorn gthread, 4 threads",
        "gunicorn, its ASGI worker",
        "gunicorn, uvicorn's worker",
    ],
)
def test_nothing_is_lost(name: str) -> None:
    """All states of a connection in one stop: each is answered or turned away in order."""
    server = next(each for each in SERVERS_WITH_LASTCALL if each.beside == name)
    found = installed(server)
    plan = Plan(
        found.command,
        scenario=together(server),
        ready=Ready.parse(server.ready),
        settle_s=SETTLE_S,
        linger_s=0.3,
    )
    result = sound(plan)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert Kind.IN_HANDLER not in result.judgement.not_reached


def test_the_bare_command_with_our_workers(start: Start) -> None:
    """`gunicorn -k` with one of our classes is enough: its arbiter becomes ours."""
    ours = "lastcall.app.servers.gunicorn.SyncWorker"
    words = command("sync", start=BARE)
    stage = start(tuple(ours if word == "sync" else word for word in words))
    asking = stage.ask("/?s=0.5")
    stage.wait_told("begun")
    with stage.server.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as queued:
        stage.child.terminate()
        assert queued.recv(99).startswith(b"HTTP/1.1 200")
    assert stage.child.wait(DIES_S) == -signal.SIGTERM
    assert asking.status == 200


@pytest.mark.parametrize("kind", ["asgi", UVICORN])
def test_an_open_websocket_does_not_hold_the_end(start: Start, kind: str) -> None:
    """It is closed with 1012, lifespan shutdown runs, then the hooks of `close`."""
    stage = start(command(kind), GRACE="10")
    with stage.server.connect(UPGRADE) as client:
        client.settimeout(DIES_S)
        assert b" 101 " in client.recv(999)
        stage.child.terminate()
        assert client.recv(99).startswith(b"\x88\x02\x03\xf4")  # close, 1012
        client.sendall(b"\x88\x82\0\0\0\0\x03\xf4")  # so be it
    assert stage.child.wait(DIES_S) == -signal.SIGTERM
    assert stage.words() == ["lifespan.startup", "lifespan.shutdown", "close"]


@pytest.mark.parametrize(
    ("exit_with", "code"), [("signal", -signal.SIGTERM), ("zero", 0), ("code", 143)]
)
def test_the_arbiter_ends_as_its_workers_did(start: Start, exit_with: str, code: int) -> None:
    """The lifecycle of the workers decides how the service exits."""
    stage = start(command("gthread", "-w", "2"), LASTCALL_EXIT_WITH=exit_with)
    assert stage.server.stop() == code


@pytest.mark.parametrize("kind", ["sync", UVICORN])
def test_an_application_that_cannot_be_loaded(kind: str, tmp_path: Path) -> None:
    """The same message and the same exit code as without lastcall, and no hang."""
    ends = []
    for begin in (OURS, BARE):
        words = [
            word.format(python=sys.executable, port=free_port())
            for word in (*command(kind, start=begin)[:-1], "no_such_module:app")
        ]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        ends.append((done.returncode, "No module named 'no_such_module'" in done.stderr))
    assert ends[0] == ends[1]
    assert ends[0][0] != 0
    assert ends[0][1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_signal_means_now(start: Start, kind: str) -> None:
    """What is in flight is cut off, also where a thread holds it; hooks of `close` still run."""
    stage = start(command(kind), GRACE="60")
    asking = stage.ask("/?s=50")
    stage.wait_told("begun")
    stage.child.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in stage.said(), "the stop")
    pause(0.4)  # sooner it is the same wish once more
    stage.child.send_signal(signal.SIGINT)
    assert stage.child.wait(DIES_S) == -signal.SIGINT
    assert asking.status in {0, 500}
    assert "close" in stage.words()


def test_a_third_signal_ends_at_once(start: Start) -> None:
    """No hook is waited for any more, and no worker is left behind."""
    stage = start(command("sync"), GRACE="60", HANG="1")
    stage.ask("/?s=50")
    stage.wait_told("begun")
    for _ in range(3):
        if stage.child.poll() is None:
            stage.child.send_signal(signal.SIGINT)
            pause(0.4)
    assert stage.child.wait(DIES_S) == 130
    wait_until(lambda: gone(stage.workers()[0]), "the end of the worker")


@pytest.mark.parametrize("kind", ["sync", "gthread", "asgi"])
def test_immediate(start: Start, kind: str) -> None:
    """`LASTCALL_SHUTDOWN=immediate` cuts off what is in flight."""
    stage = start(command(kind), LASTCALL_SHUTDOWN="immediate", LASTCALL_GRACE_S="60")
    asking = stage.ask("/?s=50")
    stage.wait_told("begun")
    assert stage.server.stop() == -signal.SIGTERM
    assert asking.status == 0


def test_a_worker_that_hangs(start: Start) -> None:
    """At the end of the one budget everything ends, and the exit code tells that work was lost."""
    stage = start(command("gthread", "--graceful-timeout", "1"))
    stage.ask("/?s=50")
    stage.wait_told("begun")
    assert stage.server.stop() == 22
    assert "/" in stage.said().partition("cut off")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload(start: Start, kind: str) -> None:
    """The old worker finishes its work, the new one serves, and newcomers are not turned away."""
    stage = start(command(kind), GRACE="10")
    old = stage.pid()
    asking = stage.ask("/?s=0.7")
    stage.wait_told("begun")
    stage.child.send_signal(signal.SIGHUP)
    wait_until(lambda: stage.pid() != old, "a new worker")
    assert asking.status == 200
    wait_until(lambda: gone(old), "the end of the old worker")
    assert stage.told("close") == [old]
    assert {stage.pid() for _ in range(5)} == {stage.workers()[-1]}
    assert stage.server.stop() == -signal.SIGTERM
    assert len(stage.told("close")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_workers_are_recycled(start: Start, kind: str) -> None:
    """`max_requests`: nobody notices, and the hooks of each worker run."""
    stage = start(command(kind, "--max-requests", "3"), GRACE="10")
    pids: set[int] = set()

    def third() -> bool:
        pids.add(stage.pid())
        return len(pids) > 2

    wait_until(third, "a third worker")
    stage.wait_told("close", 2)
    assert stage.server.stop() == -signal.SIGTERM


def test_more_and_fewer_workers(start: Start) -> None:
    """TTOU ends one, once, though gunicorn repeats itself: its work is finished."""
    stage = start(command("gthread", "-w", "1"), GRACE="20")
    asking = stage.ask("/?s=2.5")
    stage.wait_told("begun")
    busy = stage.told("begun")[0]
    stage.child.send_signal(signal.SIGTTIN)
    wait_until(lambda: len(stage.workers()) == 2, "a second worker")
    stage.child.send_signal(signal.SIGTTOU)
    assert asking.status == 200
    assert stage.told("done") == [busy]
    wait_until(lambda: gone(busy), "the end of the first worker")
    assert stage.pid() == stage.workers()[1]


def test_an_upgrade(start: Start) -> None:
    """USR2, then TERM to the old arbiter: the new one shares the sockets and serves on."""
    stage = start(command("gthread", "-p", "pid"), GRACE="10")
    old = stage.pid()
    stage.child.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(stage.workers()) == 2, "the new arbiter's worker")
    wait_until(lambda: stage.pid() != old, "an answer of it")
    assert stage.server.stop() == -signal.SIGTERM
    new = stage.pid()
    assert new != old
    arbiter = int(re.findall(r"Listening at: \S+ \((\d+)\)", stage.said())[-1])
    os.kill(arbiter, signal.SIGTERM)
    wait_until(lambda: gone(new), "the end of the new one")


def test_sockets_that_somebody_else_keeps() -> None:
    """`--bind fd://`: the next start finds the socket as it was, and whoever waits in its queue."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen(16)
        kept.set_inheritable(True)
        port = kept.getsockname()[1]
        words = [sys.executable, *command("sync")[1:]]
        words[words.index("127.0.0.1:{port}")] = f"fd://{kept.fileno()}"
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), DIES_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                child = subprocess.Popen(
                    words, pass_fds=[kept.fileno()], start_new_session=True, env=ENV
                )
                try:
                    assert client.recv(99).startswith(b"HTTP/1.1 200")
                    client.close()
                    child.terminate()
                    assert child.wait(DIES_S) == -signal.SIGTERM
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                    child.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_a_unix_socket(tmp_path: Path, kind: str) -> None:
    """Newcomers do not find it any more; who is in its queue is served."""
    path = tmp_path / "app.sock"
    words = [sys.executable, *command(kind)[1:]]
    words[words.index("127.0.0.1:{port}")] = f"unix:{path}"
    env = {**ENV, "TOLD": str(tmp_path / "told"), "GRACE": "10"}
    child = subprocess.Popen(words, start_new_session=True, env=env, cwd=tmp_path)
    try:
        wait_until(path.exists, "the socket")
        clients = [unix_client(path) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /?s=0.1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: "begun" in read(tmp_path / "told"), "work")
        child.terminate()
        for client in clients:
            with client:
                answer = client.recv(999)
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in answer.lower()
        assert child.wait(DIES_S) == -signal.SIGTERM
        assert not path.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@pytest.mark.parametrize("kind", ["gthread", "asgi"])
def test_the_announcement(start: Start, kind: str) -> None:
    """For so long readiness is off and newcomers are served, then they are turned away."""
    stage = start(command(kind), GRACE="10", ANNOUNCE="0.6", WRAPPED="1")
    assert stage.server.get("/readyz")[0] == 200
    stage.child.terminate()
    wait_until(lambda: stage.server.get("/readyz")[0] == 503, "readiness off")

    def says_close() -> bool:
        with stage.server.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as client:
            return b"connection: close" in client.recv(999).lower()

    wait_until(says_close, "connections end")  # a moment after: each thread hears it in its turn
    assert stage.child.wait(DIES_S) == -signal.SIGTERM


@pytest.mark.parametrize("kind", KINDS)
def test_preloaded_and_wrapped(start: Start, kind: str) -> None:
    """The arbiter loads an application with a lifecycle and our middleware: workers drain."""
    stage = start(command(kind, "--preload", "-w", "2"), GRACE="10", WRAPPED="1")
    asking = stage.ask("/?s=0.5")
    stage.wait_told("begun")
    assert stage.server.stop() == -signal.SIGTERM
    assert asking.status == 200
    assert sorted(stage.told("close")) == sorted(stage.workers())


def test_a_stuck_worker_is_still_replaced(start: Start) -> None:
    """Gunicorn's `timeout`: the arbiter takes it away, and newcomers are served."""
    stage = start(command("sync", "--timeout", "1"), GRACE="30")
    stage.ask("/?s=50")
    stage.wait_told("begun")
    wait_until(lambda: len(stage.workers()) == 2, "another worker")
    assert stage.pid() == stage.workers()[1]
    assert "WORKER TIMEOUT" in stage.said()


def test_workers_say_nothing_to_the_service_manager(start: Start, tmp_path: Path) -> None:
    """READY=1 is the arbiter's; the end of a worker, on a reload, is not the service's."""
    path = tmp_path / "notify"
    with manager(path) as service:
        stage = start(command("gthread"), GRACE="10", NOTIFY_SOCKET=str(path))
        stage.child.send_signal(signal.SIGHUP)
        stage.wait_told("close")
        assert stage.server.stop() == -signal.SIGTERM
        heard = service.rest()
    assert [pid for pid, _ in heard] == [stage.child.pid]
    assert heard[0][1][0] == "READY=1"


def test_serve_inside_a_lifecycle(tmp_path: Path) -> None:
    """`serve` in a script's own `with lifecycle`: the workers' hooks run, then the script's."""
    port = free_port()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(port=port))
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENV,
    )
    try:
        wait_until(lambda: connects(port), "an answer")
        child.terminate()
        said, _ = child.communicate(timeout=DIES_S)
        assert child.returncode == -signal.SIGTERM
        words = said.split()
        assert words[-2:] == ["behind", f"close:{child.pid}"]
        assert len(words) == 3  # and one worker's
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
