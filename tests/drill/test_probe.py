"""The probe application, its ledger, and the two servers that are shown to people."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from drill.servers_stage import ANSWER_S, Running, installed, running
from helpers import wait_until
from lastcall.drill.judge import Deed
from lastcall.drill.ledger import BadLedger, read_ledger
from lastcall.drill.probe.careful import turn_newcomers_away
from lastcall.drill.probe.paths import BadAsk, understand
from lastcall.drill.servers import SERVERS

if TYPE_CHECKING:
    from pathlib import Path

ORDER = ["begun", "paid", "ordered"]
CAREFUL = ("{python}", "-m", "lastcall.drill.probe.careful", "{port}")
CARELESS = ("{python}", "-m", "lastcall.drill.probe.careless", "{port}")
BY_KEY = {server.key: server for server in SERVERS}


def command(key: str) -> tuple[str, ...]:
    """How a server is started."""
    return {"careful": CAREFUL, "careless": CARELESS}.get(key) or installed(BY_KEY[key]).command


def test_what_is_asked_for() -> None:
    """A path with its parameters is understood; one that is not known is none."""
    asked = understand("/length", "key=k&s=1.5&n=3")
    assert asked is not None
    assert (asked.key, asked.wait_s, asked.pieces, asked.pause_s) == ("k", 1.5, 3, 0.5)
    assert asked.length == len(b"".join(asked.stream()) + asked.last)
    assert asked.last == b"done k\n"
    assert understand("/stream", "") is not None
    assert understand("/nowhere", "key=k") is None


@pytest.mark.parametrize(
    "query",
    ["key=a%20b", "key=a%0Ab", f"key={'k' * 201}", "s=-1", "s=x", "s=nan", "s=1e9", "n=0", "n=x"],
)
def test_what_makes_no_sense_is_refused(query: str) -> None:
    """A key that would break the ledger's lines, or a number out of range, is an error."""
    with pytest.raises(BadAsk):
        understand("/stream", query)


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every line is a deed, in order; a last line without its end is left out."""
    path = tmp_path / "ledger"
    path.write_text("a begun\nb begun\na paid\na orde")
    assert read_ledger(str(path)) == [Deed("a", "begun"), Deed("b", "begun"), Deed("a", "paid")]
    path.write_text("")
    assert read_ledger(str(path)) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a begun\nrubbish\n", "line 2"),
        (b"a gone\n", "line 1"),
        (b"\n", "line 1"),
        (b"a b begun\n", "line 1"),
        (b"\xff\x00\n", "line 1"),
        (b"a" * 5000, "line 1"),
        (b"a begun\n" * 20, "longer than 100 bytes"),
    ],
)
def test_a_ledger_that_is_none(text: bytes, complaint: str, tmp_path: Path) -> None:
    """Garbage, or too much, is a clear error and never work that was not done."""
    path = tmp_path / "ledger"
    path.write_bytes(text)
    with pytest.raises(BadLedger) as caught:
        read_ledger(str(path), 100)
    assert complaint in caught.value.what


def test_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    """A missing ledger is an error: an empty one would say that nothing was executed."""
    with pytest.raises(BadLedger, match="No such file"):
        read_ledger(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "key",
    [
        "careful",
        "careless",
        "uvicorn",
        "gunicorn-gthread-30-threads",
        "aiohttp",
        "flask-s-development-server",
        "node-http",
        "go-net-http",
        "java-httpserver",
    ],
)
def test_every_endpoint(key: str, tmp_path: Path) -> None:
    """All languages answer the same and write the same into the ledger."""
    pieces = [b"piece %06d\n" % number for number in (1, 2, 3)]
    events = [b"data: %b\n" % piece for piece in pieces]
    with running(command(key), tmp_path) as it:
        assert it.get("/") == it.get("/health") == (200, b"ok\n")
        assert it.get("/fast?key=f") == (200, b"done f\n")
        assert it.get("/slow?key=s&s=0.02") == (200, b"done s\n")
        assert it.get("/poll?key=p&s=0.02") == (200, b"done p\n")
        assert it.get("/stream?key=t&s=0.02&n=3") == (200, b"".join(pieces) + b"done t\n")
        assert it.get("/length?key=l&s=0.02&n=3") == (200, b"".join(pieces) + b"done l\n")
        assert it.get("/events?key=e&s=0.02&n=3") == (200, b"".join(events) + b"data: done e\n\n")
        assert it.get("/upload?key=u", b"x" * 200_000) == (200, b"200000\n")
        assert it.get("/slow?s=0") == (200, b"done\n")
        assert it.get("/nowhere?key=x")[0] == it.get("/ws")[0] == 404
        assert it.get("/fast?key=a%0Ab")[0] == it.get("/stream?n=0")[0] == 400
        assert {step: it.steps(step) for step in "fsptleu"} == dict.fromkeys("fsptleu", ORDER)
        assert len(read_ledger(str(it.ledger))) == 7 * len(ORDER)


@pytest.mark.parametrize("key", ["careless", "uvicorn", "wsgiref", "node-http", "go-net-http"])
def test_a_slow_start_and_no_ledger(key: str, tmp_path: Path) -> None:
    """It takes as long to start as it was told, and writes nothing without a ledger."""
    env = {"LASTCALL_SLOW_BOOT": "0.7", "LASTCALL_LEDGER": ""}
    begun = time.monotonic()
    with running(command(key), tmp_path, env) as it:
        assert time.monotonic() - begun > 0.7
        assert it.get("/fast?key=k") == (200, b"done k\n")
        assert not it.ledger.exists()


def test_a_stream_pays_first_and_orders_last(tmp_path: Path) -> None:
    """While pieces are coming, the payment is taken and the order not yet made."""
    with running(CAREFUL, tmp_path) as it, it.connect(ask("/stream?key=k&s=60&n=2")):
        it.wait_step("k", "paid")
        assert it.steps("k") == ["begun", "paid"]


def ask(path: str, method: str = "GET", *headers: str) -> bytes:
    """A request, without its body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def answer(client: socket.socket) -> bytes:
    """Everything that comes until the server says goodbye; a reset is an error."""
    whole = b""
    while chunk := client.recv(65536):
        whole += chunk
    return whole


def one_answer(client: socket.socket) -> bytes:
    """One answer of a connection that stays open."""
    whole = b""
    while not whole.endswith(b"ok\n"):
        whole += client.recv(65536)
    return whole


def test_the_careless_server_loses(tmp_path: Path) -> None:
    """It dies of SIGTERM: a payment is taken, its order not made, and no byte of an answer came."""
    with running(CARELESS, tmp_path) as it, it.connect(ask("/slow?key=k&s=60")) as client:
        it.wait_step("k", "paid")
        assert it.stop() == -signal.SIGTERM
        with suppress(ConnectionResetError):
            assert answer(client) == b""
        assert it.steps("k") == ["begun", "paid"]


def begin_everything(it: Running, stack: ExitStack) -> dict[str, tuple[socket.socket, bytes]]:
    """Connections in every state, each with the bytes that it is still to send."""
    long = ("Content-Length: 100000",)

    def connect(first: bytes) -> socket.socket:
        return stack.enter_context(it.connect(first))

    slow, fast = ask("/slow?key=handler&s=1"), ask("/fast?key=fresh")
    idle = connect(ask("/"))
    assert b"Connection: close" not in one_answer(idle)
    waiting = connect(ask("/upload?key=waits", "POST", *long, "Expect: 100-continue"))
    assert waiting.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return {
        "handler": (connect(slow), b""),
        "stream": (connect(ask("/stream?key=stream&s=1&n=5")), b""),
        "length": (connect(ask("/length?key=length&s=1&n=5")), b""),
        "line": (connect(b"GET /fast?ke"), ask("/fast?key=line")[12:]),
        "head": (connect(ask("/fast?key=head")[:-2]), b"\r\n"),
        "body": (connect(ask("/upload?key=body", "POST", *long) + b"x" * 50_000), b"x" * 50_000),
        "waits": (waiting, b"x" * 100_000),
        "idle": (idle, ask("/fast?key=idle")),
        "fresh": (connect(b""), fast),
        "first": (connect(ask("/slow?key=first&s=1") + ask("/fast?key=second")), b""),
    }


def test_the_careful_server_keeps_its_word_in_every_state(tmp_path: Path) -> None:
    """Whatever was begun before SIGTERM is answered after it, and it exits with 0."""
    with running(CAREFUL, tmp_path) as it, ExitStack() as stack:
        begun = begin_everything(it, stack)
        for key in ("handler", "stream", "length", "first"):
            it.wait_step(key, "paid")
        it.child.terminate()
        wait_until(lambda: not it.listens(), "the listener to be closed")
        it.child.terminate()  # a second one changes nothing
        for client, rest in begun.values():
            client.sendall(rest)
        for key, (client, _) in begun.items():
            assert answer(client).startswith(b"HTTP/1.1 200 OK\r\n"), key
        assert it.child.wait(ANSWER_S) == 0
        keys = [*begun, "second"]
        assert {key: it.steps(key) for key in keys} == dict.fromkeys(keys, ORDER)


def test_the_careful_server_says_that_it_closes(tmp_path: Path) -> None:
    """A late request on an open connection is answered with `Connection: close`."""
    with running(CAREFUL, tmp_path) as it, it.connect(ask("/")) as client:
        one_answer(client)
        it.child.terminate()
        wait_until(lambda: not it.listens(), "the listener to be closed")
        client.sendall(ask("/fast?key=late"))
        whole = answer(client)
        assert b"\r\nConnection: close\r\n" in whole
        assert whole.endswith(b"done late\n")
        assert it.child.wait(ANSWER_S) == 0


def test_the_careful_server_lets_idle_connections_go_in_order(tmp_path: Path) -> None:
    """Who asks for nothing sees an orderly end after a moment, never a reset."""
    with running(CAREFUL, tmp_path) as it, it.connect() as silent, it.connect(ask("/")) as idle:
        one_answer(idle)
        it.child.terminate()
        assert answer(silent) == answer(idle) == b""
        silent.close()
        idle.close()
        assert it.child.wait(ANSWER_S) == 0


def test_the_careful_server_has_a_limit(tmp_path: Path) -> None:
    """What is not done within the limit is cut, and the exit code says so."""
    with (
        running((*CAREFUL, "0.2"), tmp_path) as it,
        it.connect(ask("/slow?key=k&s=60")) as client,
    ):
        it.wait_step("k", "paid")
        assert it.stop() == 1
        assert answer(client) == b""
        assert it.steps("k") == ["begun", "paid"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (ask("/upload", "POST", "Transfer-Encoding: chunked"), 411),
        (ask("/upload", "POST", "Content-Length: -1"), 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
    ],
)
def test_the_careful_server_refuses_in_order(sent: bytes, status: int, tmp_path: Path) -> None:
    """What it does not take is answered, and the answer arrives whole."""
    with running(CAREFUL, tmp_path) as it, it.connect(sent) as client:
        client.shutdown(socket.SHUT_WR)
        assert answer(client).startswith(b"HTTP/1.1 %d " % status)


def test_a_head_request_has_no_body(tmp_path: Path) -> None:
    """HEAD is answered with the headers of GET, on a connection that stays open."""
    for program in (CAREFUL, CARELESS):
        with running(program, tmp_path) as it, it.connect(ask("/", "HEAD") + ask("/")) as client:
            assert one_answer(client).count(b"ok\n") == 1


async def newcomers(port: int, rate: float, stop: asyncio.Event, think_s: float) -> Counter[str]:
    """Connect and ask at a fixed rate until `stop` is set; how each one ended."""
    ends: Counter[str] = Counter()

    async def one() -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return "refused"
        try:
            await asyncio.sleep(think_s)
            writer.write(ask("/fast"))
            return "answered" if b"done\n" in await reader.readuntil(b"done\n") else "?"
        finally:
            writer.close()

    async def count() -> None:
        try:
            ends[await one()] += 1
        except (OSError, EOFError) as error:
            ends[repr(error)] += 1

    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(count())
            await asyncio.sleep(1 / rate)
    return ends


@pytest.mark.parametrize("think_s", [0.0, 0.05])
def test_no_newcomer_of_the_careful_server_is_reset(think_s: float, tmp_path: Path) -> None:
    """At 200 newcomers a second, each one is answered or refused: none is connected and reset."""

    async def stopped(it: Running) -> Counter[str]:
        over = asyncio.Event()
        coming = asyncio.create_task(newcomers(it.port, 200, over, think_s))
        await asyncio.sleep(0.3)
        it.child.terminate()
        await asyncio.sleep(0.3)
        over.set()
        return await coming

    ends: Counter[str] = Counter()
    for _ in range(2):
        with running(CAREFUL, tmp_path) as it:
            ends += asyncio.run(stopped(it))
            assert it.child.wait(ANSWER_S) == 0
    assert set(ends) == {"answered", "refused"}, ends


def test_newcomers_are_dropped_before_they_are_connections() -> None:
    """A new connection is refused, and one in the queue still is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as late:
        address = listener.getsockname()
        with socket.create_connection(address, ANSWER_S) as early:
            assert turn_newcomers_away(listener)
            with pytest.raises(ConnectionRefusedError):
                late.connect(address)
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"x")
                assert accepted.recv(1) == b"x"
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
