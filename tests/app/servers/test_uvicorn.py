"""uvicorn, drained: by our module, and as a server that knows nothing of us; real servers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from app.servers.manager_stage import manager
from app.servers.workers_stage import SHOP, drilled, free_port, shop
from drill import experiments
from drill.experiments import bad, told
from helpers import PATIENCE_S, victim, wait_until
from lastcall.app.signals import same_s
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict
from lastcall.drill.plan import Plan
from lastcall.drill.servers import SERVERS
from lastcall.drill.together import SETTLE_S, together, varied
from lastcall.proc.ready import Ready

if TYPE_CHECKING:
    from pathlib import Path

    from app.servers.workers_stage import Shop
    from lastcall.drill.result import Result

BARE = ("-P", "-m", "uvicorn", "--port", "{port}")
COMMAND = ("-P", "-m", "lastcall.app.servers.uvicorn", "--port", "{port}")
# What comes sooner is taken for the same wish.
_ANOTHER_WISH_S = same_s(signal.SIGINT) + 0.2
_FAR_BELOW_THE_LIMIT_S = 10.0
WORKERS = (*COMMAND, "--workers", "2")

# The shop under a server that knows nothing of it; `plain` knows no lifespan.
GUEST = """
import asyncio
import shop
from shop import lifecycle, say

async def close_pool():
    await asyncio.sleep(0)
    say("same-loop" if asyncio.get_running_loop() is lifecycle.house.loop else "other-loop")

lifecycle.add_hook("close", close_pool)
app = lifecycle.asgi(shop.app)

async def without(scope, receive, send):
    assert scope["type"] != "lifespan"
    await shop.app(scope, receive, send)

plain = lifecycle.asgi(without)

def make():
    return lifecycle.asgi(shop.app)
"""
PROBE = """
from lastcall import Lifecycle
from lastcall.drill.probe.asgi import app as probe
app = Lifecycle().asgi(probe)
"""


def guest(folder: Path) -> None:
    """Write the guest's module."""
    (folder / "guest.py").write_text(GUEST)


def ended_after_a_request(server: Shop, seconds: str = "0.4") -> tuple[int, str | None]:
    """Stop it with a request in hand: its exit status, and what the answer says of the connection.

    The request has to be answered.
    """
    begun = server.words().count("begun")
    connection = server.ask(f"/slow?{seconds}")
    server.heard("begun", begun + 1)
    server.tell()
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    connection.close()
    return server.wait(), answer.getheader("connection")


def drill_of(folder: Path, *command: str) -> Result:
    """One stop with all states in it."""
    return experiments.sound(
        Plan(
            command=(sys.executable, *command),
            scenario=varied(together(next(s for s in SERVERS if s.name == "uvicorn")), 1),
            ready=Ready.parse("/health"),
            settle_s=SETTLE_S,
            patience_s=12.0,
            cwd=str(folder),
        )
    )


@pytest.mark.parametrize(
    ("name", "more", "how"),
    [
        ("uvicorn", (), How()),
        ("uvicorn", ("--http", "h11", "--ws", "wsproto"), How(again_s=0.3)),
        ("uvicorn, 2 workers", (), How(to=To.GROUP)),
    ],
)
def test_it_keeps_its_word(name: str, more: tuple[str, ...], how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = drilled(name, *more, how=how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM  # as wait(2) tells it


def test_a_guest_keeps_its_word(tmp_path: Path) -> None:
    """The same under uvicorn's own command, which knows nothing of us."""
    (tmp_path / "probing.py").write_text(PROBE)
    result = drill_of(tmp_path, "-m", "uvicorn", "--port", "{port}", "probing:app")
    assert result.judgement.verdict is Verdict.KEEPS, told(result)


@pytest.mark.parametrize(
    ("command", "app", "words"),
    [
        (COMMAND, "app", ["shutdown", "close", "same-loop"]),
        (WORKERS, "app", ["shutdown", "close", "same-loop"]),
        (BARE, "app", ["shutdown", "close", "same-loop"]),
        ((*BARE, "--factory"), "make", ["shutdown", "close", "same-loop"]),
        # No lifespan: nothing but the order of our own can hold the server's end back.
        ((*BARE, "--lifespan", "off"), "app", ["close", "same-loop"]),
        (BARE, "plain", ["close", "same-loop"]),
        (COMMAND, "plain", ["close", "same-loop"]),
    ],
)
def test_the_order_of_the_end(
    tmp_path: Path, command: tuple[str, ...], app: str, words: list[str]
) -> None:
    """The request ends, then the lifespan, then the hooks, the async ones on uvicorn's loop."""
    guest(tmp_path)
    with shop(tmp_path, *command, f"guest:{app}") as server:
        status, connection = ended_after_a_request(server)
        lines = (tmp_path / "words").read_text().splitlines()
    assert status == -signal.SIGTERM
    assert connection == "close"
    pid = next(line.split()[1] for line in reversed(lines) if line.startswith("answered"))
    said = [line.split()[0] for line in lines if line.endswith(f" {pid}")]
    after = said[len(said) - said[::-1].index("answered") :]
    assert sorted(after) == sorted(words)
    assert after[0] == words[0] or app == "plain" or "off" in command


@pytest.mark.parametrize("command", [COMMAND, WORKERS])
def test_the_lifecycle_decides_how_it_exits(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Who wants 0 for a drained server gets it, of workers and their parent as well."""
    (tmp_path / "plainly.py").write_text(
        "import asyncio, shop\nfrom shop import app\nshop.lifecycle.house.exit_with = 'zero'\n"
    )
    with shop(tmp_path, *command, "plainly:app") as server:
        server.heard("startup", 2 if command is WORKERS else 1)
        server.tell()
        assert server.wait() == 0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("trouble", ["taken", "missing", "raises"])
def test_a_failed_start_is_told_as_ever(tmp_path: Path, trouble: str) -> None:
    """The same last words and exit code as uvicorn's own, and no hang."""
    (tmp_path / "failing.py").write_text(
        "async def app(scope, receive, send):\n    raise RuntimeError('no goods')\n"
    )
    ends = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if trouble == "taken" else free_port()
        app = "nowhere:app" if trouble == "missing" else "failing:app"
        for command in (BARE, COMMAND):
            words = [word.replace("{port}", str(port)) for word in command]
            lifespan = ["--lifespan", "on"] if trouble == "raises" else []
            done = subprocess.run(
                [sys.executable, *words, *lifespan, app],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                timeout=PATIENCE_S,
                check=False,
            )
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            ends.append((done.returncode, errors))
    assert ends[0] == ends[1]
    assert ends[0][0] != 0


@pytest.mark.parametrize("command", [COMMAND, WORKERS, BARE])
def test_a_second_signal_means_now(tmp_path: Path, command: tuple[str, ...]) -> None:
    """What is in hand is cut off, and hooks still run."""
    guest(tmp_path)
    with shop(tmp_path, *command, "guest:app") as server:
        with server.ask("/slow?30").sock:
            server.heard("begun", 2)
            server.tell()
            time.sleep(_ANOTHER_WISH_S)
            server.tell(signal.SIGINT)
            assert server.wait() not in {0, 22}
        assert server.words().count("answered") == 1
        assert "close" in server.words()


@pytest.mark.parametrize("command", [COMMAND, WORKERS])
def test_immediate_cuts(tmp_path: Path, command: tuple[str, ...]) -> None:
    """No request is waited for."""
    (tmp_path / "shop_now.py").write_text(
        "import shop\nshop.lifecycle.house.shutdown = 'immediate'\nfrom shop import app\n"
    )
    with shop(tmp_path, *command, "shop_now:app") as server:
        with server.ask("/slow?30").sock:
            server.heard("begun", 2)
            server.tell()
            server.wait()
        assert server.words()[-2:] == ["shutdown", "close"] or command is WORKERS
        assert server.words().count("answered") == 1


@pytest.mark.parametrize("command", [WORKERS, (*BARE, "--workers", "2")])
def test_a_reload_serves_on(tmp_path: Path, command: tuple[str, ...]) -> None:
    """HUP replaces the workers one by one; the socket that they share goes on letting people in."""
    guest(tmp_path)
    with shop(tmp_path, *command, "guest:app") as server:
        server.heard("startup", 2)
        connection = server.ask("/slow?1")
        server.heard("begun", 2)
        server.tell(signal.SIGHUP)
        assert connection.getresponse().status == 200
        connection.close()
        server.heard("close", 2)
        server.heard("startup", 4)
        assert int(server.answer()) in server.workers()
        server.tell()
        server.wait()
        assert server.words().count("close") == 4


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """As uvicorn's own supervisor does."""
    with shop(tmp_path, *WORKERS, "shop:app") as server:
        server.heard("startup", 2)
        os.kill(int(server.answer()), signal.SIGKILL)
        server.heard("startup", 3)
        server.answer()
        server.tell()
        assert server.wait() == -signal.SIGTERM


@pytest.mark.parametrize("command", [COMMAND, BARE])
def test_the_limit_of_requests(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The server that ends by itself drains first, runs the hooks, and exits with 0."""
    guest(tmp_path)
    more = ("--limit-max-requests", "3", "guest:app")
    with shop(tmp_path, *command, *more) as server:
        slow = server.ask("/slow?0.7")
        server.answer()
        server.answer()
        assert slow.getresponse().status == 200
        slow.close()
        assert server.wait() == 0
        assert [word for word in server.words() if word in {"shutdown", "close"}][:2] == [
            "shutdown",
            "close",
        ]


def test_reloading_for_developers(tmp_path: Path) -> None:
    """With `--reload` changed code is served, and the end is the reloader's own."""
    with shop(tmp_path, *COMMAND, "--reload", "shop:app") as server:
        first = server.answer()

        def changed() -> bool:
            # The reloader sees a change only if it has looked at the file before.
            (tmp_path / "shop.py").touch()
            return server.words().count("startup") > 1

        wait_until(changed, "the new code")
        second = server.answer()
        assert first != second
        server.tell()
        server.wait()
        assert server.words().count("close") >= 2


@pytest.mark.parametrize("command", [COMMAND, WORKERS])
def test_an_inherited_socket_is_left_open(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Who comes after the end waits for the next start: it is not turned away."""
    (tmp_path / "shop.py").write_text(SHOP)
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        port = made.getsockname()[1]
        words = [word for word in command if word not in {"--port", "{port}"}]
        child = subprocess.Popen(
            [
                sys.executable,
                *words,
                "--app-dir",
                str(tmp_path),
                "--fd",
                str(made.fileno()),
                "shop:app",
            ],
            env={**os.environ, "WORDS": str(tmp_path / "words")},
            cwd=tmp_path,
            pass_fds=[made.fileno()],
            start_new_session=True,
        )
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()
            child.terminate()
            assert child.wait(PATIENCE_S) == -signal.SIGTERM
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S):
                made.accept()[0].close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


SERVE = """
import asyncio, threading
from lastcall import Lifecycle
from lastcall.app.servers.uvicorn import Server, serve
import uvicorn
lifecycle = Lifecycle(exit_with="zero")
import shop

@lifecycle.on("flush")
def flush():
    shop.say("flush")

def run(port):
    {how}
    shop.say("after")
import sys
run(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ("serve(shop.app, port=port)", False),
        ("serve(lifecycle.asgi(shop.app), lifecycle=lifecycle, port=port)", False),
        ("lifecycle.install()\n    with lifecycle: serve(shop.app, port=port)", False),
        ("asyncio.run(Server(uvicorn.Config(shop.app, port=port)).serve())", False),
    ],
)
def test_run_by_a_program(tmp_path: Path, how: str, after: bool) -> None:  # noqa: FBT001 (a parameter)
    """`serve` and `Server` do as the command does, also inside of a `with lifecycle`."""
    (tmp_path / "program.py").write_text(SERVE.replace("{how}", how))
    with shop(tmp_path, "program.py", "{port}") as server:
        status, connection = ended_after_a_request(server)
        assert (status, connection) == (0, "close")
        assert ("after" in server.words()) is after
        assert server.words().count("flush") == 1


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_the_service_manager_hears_that_it_serves(tmp_path: Path, more: tuple[str, ...]) -> None:
    """READY=1 comes once from the process that the manager started, and then one can connect."""
    path = tmp_path / "notify"
    with (
        manager(path) as service,
        shop(
            tmp_path, *COMMAND, *more, "shop:app", serves=False, NOTIFY_SOCKET=str(path)
        ) as server,
    ):
        assert service.hear() == (server.child.pid, ["READY=1", f"MAINPID={server.child.pid}"])
        assert server.answer()
        server.tell()
        server.wait()
        rest = service.rest()
    assert all("READY=1" not in fields for _, fields in rest)


FLIGHTS = """
import asyncio, sys
import uvicorn
from lastcall import Draining, Lifecycle
from lastcall.app.servers.uvicorn import serve
lifecycle = Lifecycle(exit_with="zero")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        apart = asyncio.get_running_loop().create_task(aparts())
        apart.add_done_callback(lambda done: print("apart", done.result(), flush=True))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    told = f"{lifecycle.in_flight} {lifecycle.flights()[0].name}"
    if scope["path"] == "/slow":
        lifecycle.request_stop("enough")
        await lifecycle.draining
        told += f" {lifecycle.in_flight} {lifecycle.flights()[0].name}"
        with lifecycle.work("a part of it"):
            told += f" {lifecycle.in_flight}"
        stray = asyncio.get_running_loop().create_task(strays())
        stray.add_done_callback(lambda done: print(done.result(), flush=True))
    headers = [(b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told.encode()})

async def aparts():
    await lifecycle.draining
    try:
        with lifecycle.work("begun at the start"):
            return "let in"
    except Draining:
        return "refused"

async def strays():
    while lifecycle.in_flight:
        await asyncio.sleep(0.005)
    try:
        with lifecycle.work("too late"):
            return "let in"
    except Draining:
        return "refused"

print("ready", flush=True)
serve(app, port=int(sys.argv[1]), log_level="error")
"""


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_requests_are_in_flight(tmp_path: Path, http: str) -> None:
    """They are seen, named and part of them is let in, though nothing is done for each."""
    (tmp_path / "flights.py").write_text(FLIGHTS.replace("log_level", f"http={http!r}, log_level"))
    port = free_port()
    with victim(sys.executable, str(tmp_path / "flights.py"), str(port)) as server:
        wait_until(lambda: _answers(port), "it listens")
        for path, said in (("/", "1 GET /"), ("/slow", "1 GET /slow 1 GET /slow 2")):
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", path)
            assert connection.getresponse().read().decode() == said
            connection.close()
        assert server.wait() == 0
        assert {"apart refused", "refused"} <= set(server.out.read().splitlines())


BLOCKING = """
import sys, time
import shop
from lastcall.app.servers.uvicorn import serve

async def app(scope, receive, send):
    if scope["path"] == "/blocks":
        shop.say("begun")
        while not shop.lifecycle.draining.is_set():
            time.sleep(0.01)
        time.sleep(0.2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})

if "wrapped" in sys.argv:
    app = shop.lifecycle.asgi(app)
serve(app, port=int(sys.argv[1]), lifespan="off")
"""


@pytest.mark.parametrize("how", ["wrapped", "as it is"])
def test_a_request_that_blocks_the_loop_is_not_waited_for_longer_than_it_takes(
    tmp_path: Path, how: str
) -> None:
    """It ends before the loop hears that the end was announced: nobody waits for it in vain."""
    (tmp_path / "blocking.py").write_text(BLOCKING)
    with shop(tmp_path, "blocking.py", "{port}", how) as server:
        asked = server.ask("/blocks")
        server.heard("begun")
        server.tell()
        began_s = time.monotonic()
        assert asked.getresponse().read() == b"done"
        asked.close()
        server.wait()
        assert time.monotonic() - began_s < _FAR_BELOW_THE_LIMIT_S
        assert "knows nothing of the Lifecycle" not in server.log.read_text()


def test_should_exit_asks_for_a_drain(tmp_path: Path) -> None:
    """A program that sets `should_exit`, as ever, loses nothing by it."""
    how = (
        "server = Server(uvicorn.Config(shop.app, port=port))\n"
        "    def end():\n"
        "        while 'begun' not in open(shop.os.environ['WORDS']).read(): pass\n"
        "        server.should_exit = True\n"
        "    threading.Thread(target=end, daemon=True).start()\n"
        "    server.run()"
    )
    (tmp_path / "program.py").write_text(SERVE.replace("{how}", how))
    (tmp_path / "words").touch()
    with shop(tmp_path, "program.py", "{port}", serves=False) as server:
        wait_until(lambda: _answers(server.port), "it listens")
        connection = server.ask("/slow?0.5")
        assert connection.getresponse().status == 200
        connection.close()
        assert server.wait() == 0
        assert [w for w in server.words() if w in {"answered", "shutdown", "flush"}] == [
            "answered",
            "shutdown",
            "flush",
        ]
