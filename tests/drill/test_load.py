"""The background load: every request is due at its time, and followed to its exact end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import io
import json
import socket
import ssl
import subprocess
import threading
import time
from itertools import count, pairwise
from typing import TYPE_CHECKING

import pytest

from drill.client_stage import OK, Connection, descriptors, no_files, real, scripted, unable
from helpers import PATIENCE_S
from lastcall.drill import history
from lastcall.drill.clients import load, reply
from lastcall.drill.clients.answer import HEAD_BYTES
from lastcall.drill.clients.line import Line
from lastcall.drill.clients.tls import Tls
from lastcall.drill.clients.wire import addresses
from lastcall.drill.history import Attempt, Failure, Kind
from lastcall.drill.place import Place
from lastcall.drill.scenario import Load, Request
from lastcall.drill.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[[Connection], None]

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UNENDED = b"HTTP/1.1 200 OK\r\n\r\n"
LARGE = 20 * 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def put(
    place: Place, spec: Load, enough: Callable[[list[Trail]], bool], *, patience_s: float = 10.0
) -> tuple[list[Trail], load.Tally]:
    """Put a load on a place until the trails are enough; what it left behind, and its tally."""

    async def drill() -> tuple[list[Trail], load.Tally]:
        trails: list[Trail] = []
        until = asyncio.Event()
        running = asyncio.create_task(load.run(place, spec, trails, count(1), until, patience_s))
        async with asyncio.timeout(PATIENCE_S):
            while not enough(trails):
                assert not running.done(), running
                await asyncio.sleep(0.005)
        until.set()
        async with asyncio.timeout(PATIENCE_S):
            return trails, await running

    return asyncio.run(drill())


def over(number: int) -> Callable[[list[Trail]], bool]:
    """Enough is when so many attempts have come to their end."""
    return lambda trails: sum(trail.over is not None for trail in trails) >= number


def says(*answers: bytes, reset: bool = False) -> Script:
    """A script: an answer for each request, then the end of the connection."""

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError, ConnectionError):  # the client may leave early
            for answer in answers:
                end.read()
                end.send(answer)
            if reset:
                end.reset()

    return script


def always(answer: bytes) -> Script:
    """A script: the same answer for every request."""

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError, ConnectionError):
            while True:
                end.read()
                end.send(answer)

    return script


@pytest.mark.parametrize(
    ("script", "failure", "status", "note"),
    [
        (says(b""), Failure.CLOSED, None, ""),
        (says(b"", reset=True), Failure.RESET, None, "ECONNRESET"),
        (says(b"HTTP/1.1 2"), Failure.TRUNCATED, None, "closed after 10 bytes of the answer"),
        (says(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Failure.TRUNCATED, None, "closed after 23"),
        (says(TEN), Failure.TRUNCATED, 200, f"closed after {len(TEN)} bytes"),
        (says(TEN + b"12345"), Failure.TRUNCATED, 200, f"closed after {len(TEN) + 5} bytes"),
        (says(TEN + b"12345", reset=True), Failure.TRUNCATED, 200, "reset after"),
        (says(CHUNKED + b"3\r\nabc\r\n"), Failure.TRUNCATED, 200, "closed after"),
        (says(UNENDED + b"123", reset=True), Failure.TRUNCATED, 200, "reset after"),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Failure.CLOSED, None, ""),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), Failure.GARBAGE, None, ""),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Failure.GARBAGE, None, ""),
        (
            says(b"HTTP/1.1 101 No\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
            Failure.GARBAGE,
            None,
            "",
        ),
        (says(b"HTTP/1.1 200 OK\r\nA: " + b"a" * HEAD_BYTES), Failure.TOO_LONG, None, "of head"),
    ],
)
def test_each_ending_has_its_name(
    script: Script, failure: Failure, status: int | None, note: str
) -> None:
    """However a connection ends before the answer is whole, the attempt says exactly how."""
    with scripted(script) as server:
        trails, _ = put(server.place, Load(rate=50, connections=1), over(1))
    first = trails[0]
    assert (first.failure, first.status) == (failure, status)
    assert note in first.note
    assert first.complete is None
    assert first.sent is not None


@pytest.mark.parametrize(
    ("answer", "status", "close"),
    [
        (OK, 200, False),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 200, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, False),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, True),
    ],
)
def test_each_whole_answer_is_known_as_whole(answer: bytes, status: int, *, close: bool) -> None:
    """With a length, in chunks, without a body: whole; the connection is used again or not."""
    with scripted(always(answer)) as server:
        trails, tally = put(server.place, Load(rate=100, connections=1), over(4))
    assert {(t.failure, t.status, t.close) for t in trails} == {(None, status, close)}
    assert len({t.connection for t in trails}) == (len(trails) if close else 1)
    assert tally.begun == tally.due == len(trails)


@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_without_length_ends_with_its_connection(*, reset: bool) -> None:
    """Closed in order it is whole, and reset it is not; interim answers do not confuse that."""
    hints = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n"
    with scripted(says(hints + UNENDED + b"123", reset=reset)) as server:
        trails, _ = put(server.place, Load(rate=50, connections=1), over(3))
    assert {t.failure for t in trails} == {Failure.TRUNCATED if reset else None}
    assert {t.close for t in trails} == {not reset}
    assert {t.unframed for t in trails} == {not reset}


@pytest.mark.parametrize(
    ("said", "method"),
    [
        (TEN + bytes(10), "GET"),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", "GET"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "GET"),
        (UNENDED, "HEAD"),
    ],
)
def test_an_answer_with_an_end_of_its_own_is_not_unframed(said: bytes, method: str) -> None:
    """That the connection ends behind it, as every time here, raises no doubt."""
    with scripted(says(said)) as server:
        spec = Load(Request(method=method), rate=50, connections=1)
        trails, _ = put(server.place, spec, over(3))
    assert {(t.failure, t.unframed) for t in trails} == {(None, False)}


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE, b""),
        (CHUNKED + b"%x\r\n" % LARGE, b"\r\n0\r\n\r\n"),
        (UNENDED, b""),
    ],
)
def test_a_large_download_is_whole(head: bytes, tail: bytes) -> None:
    """An answer of 20 MiB has an end, and is waited for, however its end is told."""
    with scripted(says(head + bytes(LARGE) + tail)) as server:
        trails, _ = put(server.place, Load(rate=5, connections=1), over(1))
    assert (trails[0].failure, trails[0].status) == (None, 200)


@pytest.mark.parametrize(
    ("head", "failure"),
    [(TEN, None), (CHUNKED + b"a\r\n", Failure.TOO_LONG), (UNENDED, Failure.TOO_LONG)],
)
def test_only_a_known_length_has_no_limit(
    head: bytes, failure: Failure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose end is not known before is given up beyond a limit, and one that is known is not."""
    monkeypatch.setattr(reply, "ANSWER_BYTES", len(head) + 4)
    sent, went_on = threading.Event(), threading.Event()

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError, ConnectionError):
            end.read()
            end.send(head + bytes(8))
            sent.set()
            went_on.wait(PATIENCE_S)
            end.send(bytes(2))

    def enough(trails: list[Trail]) -> bool:
        if sent.is_set() and trails[0].first_byte:
            went_on.set()
        return over(1)(trails)

    with scripted(script) as server:
        trails, _ = put(server.place, Load(rate=5, connections=1), enough)
    assert (trails[0].failure, trails[0].status) == (failure, 200)


@pytest.mark.parametrize("ticket", [False, True])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("last", ["close", "reset", "word"])
def test_a_line_that_is_over_sends_nothing(
    last: str, tmp_path: Path, *, used: bool, ticket: bool
) -> None:
    """The server has closed, and our loop was not told yet: the kernel is asked before a send.

    With a ticket the line has TLS, and session tickets lie in front of the end.
    """
    if last == "word" and not used and not ticket:
        return  # that is an answer
    ended, end_it = threading.Event(), threading.Event()
    context = None
    if ticket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(tmp_path))

    def script(end: Connection) -> None:
        if context is not None:
            end.sock = context.wrap_socket(end.sock, server_side=True)
        with end.sock:
            if used:
                end.read()
                end.send(OK)
            assert end_it.wait(PATIENCE_S)
            if last == "word":
                end.send(b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n")
            if last == "reset":
                end.reset()
        ended.set()

    async def drill(place: Place) -> tuple[Trail, Failure | None]:
        heard = Heard()
        loop = asyncio.get_running_loop()
        line = Line(heard, place, addresses(place), loop, head_only=False)
        line.open()
        try:
            await heard.once_free()
            if used:
                assert line.take(Trail(1, Kind.LOAD), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") is None
                await heard.once_free()
            end_it.set()
            assert ended.wait(PATIENCE_S)  # and the loop gets no turn meanwhile
            trail = Trail(2, Kind.LOAD)
            broken = line.take(trail, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        finally:
            line.close()
        return trail, None if broken is None else broken.failure

    with scripted(script) as server:
        place = dataclasses.replace(server.place, tls=ticket)
        trail, failure = asyncio.run(drill(place))
    assert failure is (Failure.RESET if last == "reset" else Failure.CLOSED)
    assert (trail.sent, trail.connected) == (None, None)


class Heard:
    """Hears of a line, for a test that has no load."""

    def __init__(self) -> None:
        self._free = asyncio.Event()

    async def once_free(self) -> None:
        """Wait until the line is free."""
        async with asyncio.timeout(PATIENCE_S):
            await self._free.wait()
        self._free.clear()

    def free(self, line: Line) -> None:  # noqa: ARG002 (there is one line)
        """It stands, and carries nothing."""
        self._free.set()

    def gone(self, line: Line) -> None:
        """It is closed."""

    def unconnected(self, line: Line, failure: Failure | None, note: str) -> None:
        """There is no connection."""
        raise AssertionError((line.number, failure, note))


def test_a_load_without_files_blames_nobody() -> None:
    """When this process can open no more, what is not sent is our own fault, and it goes on."""
    bye = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with contextlib.ExitStack() as limits, scripted(says(bye)) as server:
        limited: list[bool] = []

        def enough(trails: list[Trail]) -> bool:
            if not limited and over(3)(trails):
                limits.enter_context(no_files())
                limited.append(True)
            return any(t.failure for t in trails)

        trails, _ = put(server.place, Load(rate=50, connections=1), enough)
        limits.close()
    assert {(t.failure, t.note[:8]) for t in trails if t.failure} == {(Failure.OURS, "EMFILE: ")}


def test_a_load_without_ports_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no port is left to connect from, the server refused nothing."""
    unable(monkeypatch, errno.EADDRNOTAVAIL)
    trails, _ = put(Place(port=1), Load(rate=50, connections=1), over(3))
    assert {(t.failure, t.note[:14]) for t in trails} == {(Failure.OURS, "EADDRNOTAVAIL:")}


@pytest.mark.parametrize("nth", [0, 2])
def test_an_encryption_that_fails_costs_one_line(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS session that breaks at a write does not silence the load."""
    encrypt, calls = Tls.encrypt, count()

    def broken(session: Tls, data: bytes) -> bytes:
        if next(calls) == nth:
            error = ssl.SSLError(1, "planted")
            error.reason = "PLANTED"
            raise error
        return encrypt(session, data)

    monkeypatch.setattr(Tls, "encrypt", broken)
    cert, key = certificate(tmp_path)
    with real("hypercorn", cert, key) as (place, _):
        trails, _ = put(place, Load(rate=100, connections=1), over(8))
    # On a line that was used before it is no attempt; on a fresh one it is.
    assert [t.failure for t in trails[:8]] == [None if nth else Failure.GARBAGE] + [None] * 7
    assert all(t.sent is None for t in trails if t.failure)


def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate and a key of our own making: their files."""
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def test_head_has_no_body() -> None:
    """The answer to HEAD ends with its headers, whatever length they name."""
    with scripted(always(TEN)) as server:
        spec = Load(Request(method="HEAD"), rate=100, connections=1)
        trails, _ = put(server.place, spec, over(4))
    assert {(t.failure, t.close) for t in trails} == {(None, False)}
    assert len({t.connection for t in trails}) == 1


def test_a_503_says_when_to_come_back() -> None:
    """Retry-After is noted, and it is not seen where there is none."""
    said = b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\nContent-Length: 0\r\n\r\n"
    bare = b"HTTP/1.1 503 Busy\r\nContent-Length: 15\r\n\r\n\r\nRetry-After: 1"[:-1] + b"1"
    with scripted(says(said, bare)) as server:
        trails, _ = put(server.place, Load(rate=50, connections=1), over(2))
    assert [(t.status, t.retry_after) for t in trails[:2]] == [(503, True), (503, False)]


def test_the_times_are_in_order_and_due_on_the_beat() -> None:
    """Each attempt counts from when it was due: exactly one period after the one before."""
    with scripted(always(OK)) as server:
        trails, _ = put(server.place, Load(rate=200, connections=4), over(20))
    for trail in trails:
        times = (trail.attempted, trail.sent, trail.sent_all, trail.first_byte, trail.complete)
        assert list(times) == sorted(times)  # type: ignore[type-var]
        assert trail.connected is not None
        assert trail.kind is Kind.LOAD
    due = sorted(t.attempted for t in trails if t.attempted)
    assert all(b - a == pytest.approx(1 / 200, abs=1e-6) for a, b in pairwise(due))
    assert len({t.connection for t in trails}) == 4


def test_a_wait_for_a_connection_shows() -> None:
    """While the only connection is busy requests go on being due, and their waiting counts."""
    asked = threading.Event()

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError):
            end.read()
            assert asked.wait(PATIENCE_S)
            end.send(OK)
            always(OK)(end)

    with scripted(script) as server:

        def enough(trails: list[Trail]) -> bool:
            if trails and time.monotonic() - (trails[0].attempted or 0) > 0.3:
                asked.set()
            return over(30)(trails)

        trails, tally = put(server.place, Load(rate=100, connections=1), enough)
    second = trails[1]
    assert second.sent is not None
    assert second.attempted is not None
    assert second.sent - second.attempted > 0.25
    assert tally.most_waiting >= 25


def test_a_close_while_idle_is_no_attempt() -> None:
    """A connection that the server closes between two requests costs none of them."""
    with scripted(says(OK)) as server:
        trails, _ = put(server.place, Load(rate=10, connections=1), over(5))
    assert {(t.failure, t.close) for t in trails} == {(None, False)}
    assert len({t.connection for t in trails}) == len(trails)


def test_words_that_nobody_asked_for_cost_no_request() -> None:
    """A 408 on an idle connection is a farewell, not the answer to the next request."""
    with scripted(says(OK + b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n")) as server:
        trails, _ = put(server.place, Load(rate=10, connections=1), over(4))
    assert {(t.failure, t.status) for t in trails} == {(None, 200)}


def test_refused_without_a_busy_loop_and_then_served() -> None:
    """Each attempt is refused after a connect of its time; once the server is back all is well."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    begun = time.monotonic()
    came: list[socket.socket] = []
    with contextlib.ExitStack() as stack:

        def enough(trails: list[Trail]) -> bool:
            if not came and over(60)(trails):
                came.append(socket.create_server(("127.0.0.1", port)))
                stack.enter_context(scripted(always(OK), came[0]))
            return any(t.complete for t in trails)

        spec = Load(rate=500, connections=4)
        trails, tally = put(Place("127.0.0.1", port), spec, enough)
    took = time.monotonic() - begun
    assert all(t.failure is Failure.REFUSED for t in trails[:60])
    assert not any(t.connected for t in trails[:60])
    assert trails[-1].failure is None
    assert tally.connects <= 4 * (took / load.RETRY_S + 2)


@pytest.mark.parametrize("reads", [False, True])
def test_a_server_that_resets_what_it_accepts_is_not_run_down(*, reads: bool) -> None:
    """Each request is tried once, and a connection that dies before it carries one is paced."""
    begun = time.monotonic()

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError):
            if reads:
                end.read()
        end.reset()

    with scripted(script) as server:
        trails, tally = put(server.place, Load(rate=200, connections=2), over(20))
    took = time.monotonic() - begun
    assert {t.failure for t in trails} == {Failure.RESET}
    assert all(t.connected for t in trails)
    assert not reads or all(t.sent for t in trails)
    assert tally.connects <= len(trails) + 2 * (took / load.RETRY_S + 2)


def empty() -> list[Trail]:
    """No trails yet."""
    return []


def test_many_that_fail_at_once_do_not_hold_up_the_loop() -> None:
    """A thousand requests waited and are refused together: others get their turn in between."""

    async def drill() -> tuple[int, list[Trail]]:
        turns, trails = 0, empty()
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            place = Place("127.0.0.1", reserved.getsockname()[1])
        until = asyncio.Event()
        spec = Load(rate=20_000, connections=1)
        running = asyncio.create_task(load.run(place, spec, trails, count(1), until, 10))
        await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251 (so that many are due at once)
        while len(trails) < 1000:
            await asyncio.sleep(0)
            turns += bool(trails)
        until.set()
        await running
        return turns, trails

    turns, trails = asyncio.run(drill())
    assert turns >= 10
    assert {t.failure for t in trails} == {Failure.REFUSED}


def test_no_end_in_time_is_hung_and_the_rest_is_unreached() -> None:
    """Patience has an end for the request on the line and for those that wait for a line."""
    with scripted(lambda end: end.until_closed()) as server:
        trails, tally = put(server.place, Load(rate=50, connections=1), over(20), patience_s=0.2)
    assert trails[0].failure is Failure.HUNG
    assert trails[0].sent is not None
    late = [t for t in trails if t.failure is Failure.UNREACHED]
    assert late
    assert all(t.sent is None and t.connected is None for t in late)
    assert tally.begun == tally.due


def test_each_request_carries_its_key() -> None:
    """`{key}` in path, header and body becomes the attempt's own, and the length fits."""
    heard: list[bytes] = []

    def script(end: Connection) -> None:
        with contextlib.suppress(AssertionError):
            while True:
                heard.append(end.read(b"!"))
                end.send(OK)

    request = Request("/pay?key={key}", "POST", (("X-Key", "{key}"),), b"I am {key}!")
    with scripted(script) as server:
        trails, _ = put(server.place, Load(request, rate=100, connections=1), over(12))
    assert len({t.key for t in trails}) == len(trails)
    for trail, said in zip(trails, heard, strict=False):
        key = trail.key.encode()
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /pay?key=" + key + b" HTTP/1.1\r\n")
        assert b"X-Key: " + key + b"\r\n" in head + b"\r\n"
        assert f"Content-Length: {len(body)}".encode() in head
        assert body == b"I am " + key + b"!"


def test_a_large_request_is_sent_in_pieces() -> None:
    """What does not fit into the kernel's buffer follows; the last byte has a time of its own."""
    with scripted(lambda end: says(OK, OK)(Slowly(end))) as server:
        request = Request(method="POST", body=bytes(8 * 1024 * 1024) + b"\r\n\r\n")
        trails, _ = put(server.place, Load(request, rate=20, connections=1), over(1))
    first = trails[0]
    assert first.failure is None
    assert first.sent is not None
    assert first.sent_all is not None
    assert first.sent_all > first.sent


class Slowly(Connection):
    """Reads in large pieces, a moment later."""

    def __init__(self, end: Connection) -> None:
        super().__init__(end.sock, end.stopped)
        self._rest = b""

    def read(self, until: bytes = b"\r\n\r\n") -> bytes:
        """Read the head, and then a body that ends so."""
        data = super().read(until)
        while not data.endswith(bytes(8) + until):
            piece = self.sock.recv(1 << 20)
            assert piece
            data = data[-64:] + piece
        return data


def test_an_answer_before_the_request_was_read_counts() -> None:
    """A 413 that comes while the body is still being sent is the answer."""

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        end.until_closed()

    request = Request(method="POST", body=bytes(32 * 1024 * 1024))
    with scripted(script) as server:
        trails, _ = put(server.place, Load(request, rate=20, connections=1), over(2))
    assert {t.status for t in trails[:2]} == {413}


def test_over_ipv6_and_unix_sockets(tmp_path: Path) -> None:
    """It reaches a server wherever it listens, and numbers connections that have no port."""
    v6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "app.sock"))
    unix.listen()
    for listener in (v6, unix):
        with scripted(always(OK), listener) as server:
            trails, _ = put(server.place, Load(rate=100, connections=2), over(6))
        assert {t.status for t in trails} == {200}
        assert len({t.connection for t in trails} - {0}) == 2


def test_a_unix_socket_that_is_gone_refuses(tmp_path: Path) -> None:
    """No file, or a file that nobody listens on: refused."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    for name in ("none.sock", "left.sock"):
        place = Place(unix=str(tmp_path / name))
        trails, _ = put(place, Load(rate=100, connections=2), over(3))
        assert {t.failure for t in trails} == {Failure.REFUSED}


def test_over_tls(tmp_path: Path) -> None:
    """A real server with a certificate of its own making: many requests on few connections."""
    with real("hypercorn", *certificate(tmp_path)) as (place, _):
        trails, _ = put(place, Load(rate=100, connections=2), over(20))
    assert {(t.failure, t.status) for t in trails} == {(None, 200)}
    assert len({t.connection for t in trails}) == 2


def test_a_failed_tls_handshake_is_one_attempt() -> None:
    """Connected, nothing sent, closed: that is what a half broken server does to a client."""
    with scripted(lambda end: end.send(b"not TLS at all\r\n")) as server:
        place = dataclasses.replace(server.place, tls=True)
        trails, _ = put(place, Load(rate=50, connections=1), over(3))
    assert trails[0].failure in {Failure.GARBAGE, Failure.RESET}
    assert trails[0].connected is not None
    assert trails[0].sent is None


def test_cancelled_it_leaves_nothing_open() -> None:
    """A drill that is broken off has no connection left; what was under way has no end."""

    async def drill(place: Place) -> list[Trail]:
        trails: list[Trail] = []
        spec = Load(rate=200, connections=4)
        running = asyncio.create_task(load.run(place, spec, trails, count(1), asyncio.Event(), 10))
        async with asyncio.timeout(PATIENCE_S):
            while len(trails) < 4:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.002)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return trails

    before = descriptors()
    with scripted(lambda end: end.until_closed()) as server:
        trails = asyncio.run(drill(server.place))
    assert descriptors() == before
    assert [t.over for t in trails] == [None] * 4


def test_no_rate_is_no_load() -> None:
    """A scenario without background load has none, and nothing is contacted."""
    trails, tally = asyncio.run(_nothing())
    assert not trails
    assert tally == load.Tally()


async def _nothing() -> tuple[list[Trail], load.Tally]:
    trails: list[Trail] = []
    place = Place("127.0.0.1", 1)
    return trails, await load.run(place, Load(), trails, count(1), asyncio.Event(), 1)


def test_a_loop_that_is_held_up_is_noticed() -> None:
    """Planted: something blocks the loop for 50 ms; the lag says so, with all it kept waiting."""

    async def held() -> load.Lag:
        with load.Lag() as lag:
            await asyncio.sleep(0.02)
            time.sleep(0.05)  # noqa: ASYNC251 (the fault that is planted)
            await asyncio.sleep(0.02)
        return lag

    lag = asyncio.run(held())
    assert lag.worst_s >= 0.048
    assert lag.count >= 45  # the ones that the block swallowed are counted, too
    assert lag.within_s(0.999) >= lag.within_s(0.5)


def test_a_lag_without_samples_is_zero() -> None:
    """Nothing measured is nothing, not an error."""
    assert load.Lag().worst_s == load.Lag().within_s() == 0


def test_quiet_stops_the_collector_and_brings_it_back() -> None:
    """No collection inside, and the state from before outside, even after an error."""
    frozen = gc.get_freeze_count()
    with contextlib.suppress(KeyError), load.quiet():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > frozen
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_the_history_is_written_as_plain_json() -> None:
    """The quick way to write it gives what the plain way gives."""
    attempt = Attempt(1, Kind.LOAD, 'k"1', -0.5, None, 0.25, None, None, None, 1e-06, note="ä\n")
    stream = io.StringIO()
    history.write([attempt], stream)
    plain = {f.name: getattr(attempt, f.name) for f in dataclasses.fields(attempt)}
    plain["kind"] = attempt.kind.key
    assert stream.getvalue() == json.dumps(plain) + "\n"
    stream.seek(0)
    assert list(history.read(stream)) == [attempt]
