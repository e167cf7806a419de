"""The clients of HTTP/1.1 against servers that end a connection in every way, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from drill.client_stage import (
    OK,
    Connection,
    descriptors,
    led,
    no_files,
    scripted,
    through,
    unable,
)
from helpers import PATIENCE_S
from lastcall.drill.clients import answer, make, reach, wire
from lastcall.drill.clients.gate import Gate
from lastcall.drill.history import Failure, Kind
from lastcall.drill.place import Place
from lastcall.drill.scenario import Request, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lastcall.drill.trail import Trail

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
# Not made as clients: the proof finds them, or they have runs of their own.
OTHERS = {Kind.UNREAD, Kind.SENT, Kind.JUST_SENT, Kind.NEWCOMER, Kind.LOAD}
UNENDED = b"HTTP/1.1 200 OK\r\n\r\n"
LARGE = 20 * 1024 * 1024


def says(data: bytes, *, reset: bool = False) -> Callable[[Connection], None]:
    """A script: read a request, say this, and end the connection."""

    def script(end: Connection) -> None:
        end.read()
        end.send(data)
        if reset:
            end.reset()

    return script


@pytest.mark.parametrize(
    ("script", "failure", "status", "note"),
    [
        (says(b""), Failure.CLOSED, None, ""),
        (says(b"", reset=True), Failure.RESET, None, "ECONNRESET"),
        (says(b"HTTP/1.1 2"), Failure.TRUNCATED, None, "closed after 10 bytes of the answer"),
        (says(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Failure.TRUNCATED, None, "closed after 23"),
        (says(HEAD), Failure.TRUNCATED, 200, f"closed after {len(HEAD)} bytes"),
        (says(HEAD + b"12345"), Failure.TRUNCATED, 200, f"closed after {len(HEAD) + 5} bytes"),
        (says(HEAD + b"12345", reset=True), Failure.TRUNCATED, 200, "reset after"),
        (says(UNENDED + b"123"), None, 200, ""),
        (says(UNENDED + b"123", reset=True), Failure.TRUNCATED, 200, "reset after"),
        (says(OK), None, 200, ""),
        (says(OK, reset=True), None, 200, ""),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK), None, 200, ""),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Failure.CLOSED, None, ""),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), Failure.GARBAGE, None, ""),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Failure.GARBAGE, None, ""),
    ],
)
def test_every_end_of_an_answer(
    script: Callable[[Connection], None], failure: Failure | None, status: int | None, note: str
) -> None:
    """Whatever a server says and however it ends, the trail has the right word for it."""
    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER))
    assert (trail.failure, trail.status) == (failure, status)
    assert trail.note.startswith(note)
    assert (trail.complete is not None) == (failure is None)
    assert trail.connected is not None
    assert trail.sent is not None
    assert trail.sent_all is not None
    assert trail.connection > 0


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"x" * 8192 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 8192),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4000\r\n%0*d\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nX-Long: " + b"x" * 8192 + b"\r\n\r\n"),
    ],
)
def test_answers_without_end(first: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, bodies and interim answers without end are cut off, and nothing is kept of them."""
    monkeypatch.setattr(answer, "ANSWER_BYTES", 4 * 1024 * 1024)
    again = again % (0x4000, 0) if b"%" in again else again

    def script(end: Connection) -> None:
        end.read()
        end.send(first)
        with contextlib.suppress(ConnectionError):
            for _ in range(16_000):  # more than anybody would take
                end.send(again)

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER))
    assert trail.failure is Failure.TOO_LONG


@pytest.mark.parametrize(
    "says_it",
    [
        (b"Content-Length: %d\r\n\r\n" % LARGE, bytes(LARGE), b""),
        (b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % LARGE, bytes(LARGE), b"\r\n0\r\n\r\n"),
        (b"\r\n", bytes(LARGE), b""),
    ],
)
def test_a_large_download_is_whole(says_it: tuple[bytes, bytes, bytes]) -> None:
    """An answer of 20 MiB has an end, and is waited for, however its end is told."""

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 200 OK\r\n")
        for part in says_it:
            end.send(part)

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER))
    assert (trail.failure, trail.status) == (None, 200)


def test_a_known_length_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large: an answer that names its length is followed to its end, and a cut is seen."""
    monkeypatch.setattr(answer, "ANSWER_BYTES", 4)
    for size, failure in ((10, None), (9, Failure.TRUNCATED)):
        with scripted(says(HEAD + bytes(size))) as server:
            (trail,) = through(server.place, State(Kind.IN_HANDLER))
        assert trail.failure is failure


@pytest.mark.parametrize(
    ("said", "method", "unframed"),
    [
        (UNENDED + b"123", "GET", True),
        (UNENDED, "GET", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n123", "GET", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "GET", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "GET", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", False),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "GET", False),
        (UNENDED, "HEAD", False),
    ],
)
def test_an_answer_that_only_the_end_ends(said: bytes, method: str, *, unframed: bool) -> None:
    """It counts as whole, and it is told that nobody can know; one with an end of its own not."""
    with scripted(says(said)) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER, Request(method=method)))
    assert (trail.failure, trail.unframed) == (None, unframed)
    assert trail.complete is not None


def test_a_cut_that_is_proved_is_not_unframed() -> None:
    """A reset in the middle of an answer without length is a cut, and no doubt about it."""
    with scripted(says(UNENDED + b"123", reset=True)) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER))
    assert (trail.failure, trail.unframed) == (Failure.TRUNCATED, False)


@pytest.mark.parametrize(
    ("kind", "began", "sent"),
    [
        (Kind.SILENT, b"", False),
        (Kind.HALF_LINE, b"GET /path", True),
        (Kind.HALF_HEADERS, b"GET /path-of-some-length HTTP/1.1\r\nHost:", True),
        (Kind.HALF_BODY, b"POST /path-of-some-length HTTP/1.1\r\nHost:", True),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("farewell", [b"", b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"])
def test_a_server_that_ends_half_requests(
    kind: Kind, began: bytes, *, sent: bool, reset: bool, farewell: bytes
) -> None:
    """A half request knows how much of it went out when the server ended it at the stop."""

    def script(end: Connection) -> None:
        end.until_stopped()
        got = end.sock.recv(65536) if sent else b""
        assert got.startswith(began)
        assert b"k1-" not in got or kind is not Kind.SILENT
        end.send(farewell)
        if reset:
            end.reset()

    method = "POST" if kind is Kind.HALF_BODY else "GET"
    request = Request("/path-of-some-length", method, body=b"body" if sent else b"")
    state = State(kind, request, after_s=5.0)
    with scripted(script) as server:
        (trail,) = through(server.place, state, stop=server.stopped.set)
    assert (trail.sent is not None) == sent
    assert trail.sent_all is None
    if farewell and sent:
        assert (trail.status, trail.failure) == (408, None)
    elif farewell:
        assert (trail.failure, trail.note) == (
            Failure.CLOSED,
            "answered 408 before anything was sent",
        )
    else:
        assert trail.failure is (Failure.RESET if reset else Failure.CLOSED)


@pytest.mark.parametrize(
    "kind", [Kind.SILENT, Kind.HALF_LINE, Kind.HALF_HEADERS, Kind.HALF_BODY, Kind.EXPECT_CONTINUE]
)
def test_the_rest_comes_after_the_stop(kind: Kind) -> None:
    """Before the stop there is exactly the first part, after it the rest, with its own key."""
    parts: list[bytes] = []
    body = b"a body with {key} in it"

    def script(end: Connection) -> None:
        end.until_stopped()
        end.sock.setblocking(False)
        try:
            parts.append(end.sock.recv(65536))
        except BlockingIOError:
            parts.append(b"")
        end.sock.settimeout(10)
        parts.append(end.read(b" in it"))
        end.send(OK)

    request = Request("/{key}?x", "POST", (("X-Key", "{key}"),), body)
    with scripted(script) as server:
        state = State(kind, request, after_s=0.05)
        stopped: list[float] = []

        def stop() -> None:
            stopped.append(monotonic())
            server.stopped.set()

        (trail,) = through(server.place, state, stop=stop)
    assert trail.sent is not None
    assert trail.sent_all is not None
    assert (trail.sent < stopped[0]) == (kind is not Kind.SILENT)
    assert stopped[0] < trail.sent_all
    key = f"k1-{kind.key}".encode()
    assert trail.failure is None
    whole = b"".join(parts)
    assert whole.startswith(b"POST /" + key + b"?x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"X-Key: " + key + b"\r\n" in whole
    assert whole.endswith(b"\r\n\r\na body with " + key + b" in it")
    ends = {
        Kind.SILENT: 0,
        Kind.HALF_LINE: whole.index(b"\r\n") // 2 + 1,
        Kind.EXPECT_CONTINUE: whole.index(b"\r\n\r\n") + 4,
    }
    assert len(parts[0]) == ends.get(kind, len(parts[0]))
    assert parts[1]


def test_an_answer_before_the_body_was_read() -> None:
    """A server that answers 413 and reads no more is heard, although our write is stuck."""

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
        end.until_stopped()

    request = Request("/", "POST", body=b"x" * 32_000_000)
    with scripted(script) as server:
        state = State(Kind.IN_HANDLER, request)
        (trail,) = through(server.place, state, stop=server.stopped.set)
    assert (trail.status, trail.failure, trail.sent_all) == (413, None, None)


def test_an_answer_in_front_of_a_reset_is_heard() -> None:
    """What a server said before it reset the unread rest of an upload counts."""

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")

    request = Request("/", "POST", body=b"x" * 32_000_000)
    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER, request))
    assert (trail.status, trail.failure, trail.retry_after) == (503, None, True)


def test_bytes_before_a_reset_are_read_first() -> None:
    """Even when the reset has long come: the kernel keeps what came in front of it."""
    done = threading.Event()

    def script(end: Connection) -> None:
        end.send(b"before")
        end.reset()
        done.set()

    async def read(place: Place) -> None:
        one = wire.Wire(place, [])
        await one.open()
        assert done.wait(PATIENCE_S)
        assert await one.recv() == b"before"
        with pytest.raises(wire.Broken) as broken:
            await one.recv()
        assert (broken.value.failure, broken.value.note) == (Failure.RESET, "ECONNRESET")
        one.close()

    with scripted(script) as server:
        asyncio.run(read(server.place))


def test_nothing_listens(tmp_path: Path) -> None:
    """A port, or a socket file, that nobody listens on refuses; there never was a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for place in (Place(port=port), Place(unix=str(tmp_path / "none.sock"))):
        (trail,) = through(place, State(Kind.SILENT))
        assert (trail.failure, trail.connected, trail.connection) == (Failure.REFUSED, None, 0)
        assert trail.attempted is not None


def test_a_name_that_is_not_known() -> None:
    """A server whose name has no address cannot be reached, and that is told."""
    (trail,) = through(Place("no-such-host.invalid", 80), State(Kind.SILENT))
    assert trail.failure is Failure.UNREACHED
    assert "no-such-host.invalid" in trail.note


def test_no_connection_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog gives no connection: of TCP the kernel drops, of Unix it says EAGAIN."""
    monkeypatch.setattr(wire, "CONNECT_S", 0.2)
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(path)
        unix.listen(0)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(0)
        for listener, place in ((unix, Place(unix=path)), (tcp, Place(port=tcp.getsockname()[1]))):
            filler = socket.socket(listener.family)
            with filler:
                filler.connect(listener.getsockname())
                (trail,) = through(place, State(Kind.SILENT))
            assert (trail.failure, trail.connected) == (Failure.UNREACHED, None)


def test_no_files_left_is_our_own_fault() -> None:
    """Where this process has no file left, the server refused nothing, and the note names why."""

    async def drill() -> Trail:
        gate = Gate(10.0)
        clients = make.clients(Place(port=1), State(Kind.SILENT), gate, count(1))
        with no_files():
            await led(clients, gate)
        return clients[0].trails[0]

    trail = asyncio.run(drill())
    assert (trail.failure, trail.connected) == (Failure.OURS, None)
    assert trail.note.startswith("EMFILE: ")


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM])
def test_no_ports_left_is_our_own_fault(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel lacked here is told by its name, and as nobody's refusal."""
    unable(monkeypatch, code)
    (trail,) = through(Place(port=1), State(Kind.SILENT))
    assert (trail.failure, trail.connected) == (Failure.OURS, None)
    assert trail.note.startswith(f"{errno.errorcode[code]}: ")


def test_a_port_shortage_is_not_hidden_by_the_next_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the second address refuses says nothing of the first, where the server may listen."""
    both = ((socket.AF_INET, ("127.0.0.1", 1)), (socket.AF_INET6, ("::1", 1, 0, 0)))
    monkeypatch.setattr(wire, "addresses", lambda _place: both)
    unable(monkeypatch, errno.EADDRNOTAVAIL, socket.AF_INET)
    (trail,) = through(Place("localhost", 1), State(Kind.SILENT))
    assert trail.failure is Failure.OURS


def test_an_address_that_this_machine_cannot_use_is_no_shortage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where IPv6 is off, `::1` gives the same error as a lack of ports, but to UDP as well."""
    unable(monkeypatch, errno.EADDRNOTAVAIL, udp=True)
    (trail,) = through(Place(port=1), State(Kind.SILENT))
    assert trail.failure is Failure.UNREACHED


def test_a_connection_to_itself_is_none() -> None:
    """A socket that met itself on a free port is known for what it is."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert reach.is_itself(sock)


def test_unix_and_ipv6(tmp_path: Path) -> None:
    """Servers on a Unix socket and on IPv6 are reached, and told apart by a number."""
    path = str(tmp_path / "some.sock")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    for listener in (unix, six):
        with scripted(says(OK), listener) as server:
            trails = through(server.place, State(Kind.IN_HANDLER, count=2))
        assert [trail.status for trail in trails] == [200, 200]
        assert len({trail.connection for trail in trails} - {0}) == 2


def test_a_server_that_never_answers_hangs() -> None:
    """After the patience an attempt is over, and its connection is let go."""
    with scripted(Connection.until_closed) as server:
        trails = [
            *through(server.place, State(Kind.LONG_POLL, count=3), patience_s=0.1),
            *through(server.place, State(Kind.SILENT, after_s=0.01), patience_s=0.1),
        ]
    assert {trail.failure for trail in trails} == {Failure.HUNG}


def test_an_answer_that_stops_in_the_middle_hangs() -> None:
    """How much of it had come is told."""

    def script(end: Connection) -> None:
        says(HEAD + b"123")(end)
        end.until_closed()

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IN_HANDLER), patience_s=0.2)
    assert trail.failure is Failure.HUNG
    assert trail.note == f"{len(HEAD) + 3} bytes of the answer had come"


@pytest.mark.parametrize(
    ("ending", "failure", "sent"),
    [("eof", Failure.CLOSED, False), ("reset", Failure.RESET, False), ("late", None, True)],
)
def test_an_idle_connection(ending: str, failure: Failure | None, *, sent: bool) -> None:
    """A connection that ends while idle was let go; one that is kept is used again."""
    got: list[bytes] = []

    def script(end: Connection) -> None:
        got.append(end.read())
        end.send(OK)
        end.until_stopped()
        if ending == "reset":
            end.reset()
        elif ending == "late":
            got.append(end.read())
            end.send(OK)

    after_s = 0.05 if sent else 5.0
    state = State(Kind.IDLE_THEN_REQUEST, Request("/{key}"), after_s=after_s)
    with scripted(script) as server:
        (trail,) = through(server.place, state, stop=server.stopped.set)
    assert (trail.failure, trail.sent is not None) == (failure, sent)
    assert got[0].startswith(b"GET /k1-idle-then-request-warm HTTP/1.1")
    assert not got[1:] or got[1].startswith(b"GET /k1-idle-then-request HTTP/1.1")


def test_a_server_without_keep_alive_is_not_brought_to_idle() -> None:
    """Where the first answer says close, the state is not reached."""
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with scripted(says(answer)) as server:
        (trail,) = through(server.place, State(Kind.IDLE_THEN_REQUEST))
    assert (trail.steady, trail.failure, trail.sent) == (False, Failure.CLOSED, None)


def test_an_idle_connection_closed_after_the_request() -> None:
    """A request that was sent and not answered is told as sent."""

    def script(end: Connection) -> None:
        end.read()
        end.send(OK)
        end.read()

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.IDLE_THEN_REQUEST, after_s=0.0))
    assert trail.failure is Failure.CLOSED
    assert trail.sent_all is not None


@pytest.mark.parametrize("close", [False, True])
def test_pipelined(*, close: bool) -> None:
    """Two requests on one connection: each gets its own answer, or the second is dropped."""
    first = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

    def script(end: Connection) -> None:
        assert end.read().startswith(b"GET /k1-in-handler ")
        assert end.read().startswith(b"GET /k2-pipelined ")
        end.send(first if close else OK + OK.replace(b"200", b"201"))

    with scripted(script) as server:
        one, two = through(server.place, State(Kind.PIPELINED, Request("/{key}")))
    assert (one.kind, two.kind) == (Kind.IN_HANDLER, Kind.PIPELINED)
    assert one.connection == two.connection
    assert (one.status, one.failure, one.close) == (200, None, close)
    if close:
        assert (two.failure, two.status) == (Failure.TURNED_AWAY, None)
        assert "announced" in two.note
    else:
        assert (two.failure, two.status) == (None, 201)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", 200, True),
        (b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", 417, False),
        (b"", 200, True),
    ],
)
def test_expect_continue(answer: bytes, status: int, *, body: bool) -> None:
    """The body comes after 100 Continue or after a second, and never behind a final answer."""

    def script(end: Connection) -> None:
        assert b"Expect: 100-continue" in end.read()
        end.send(answer)
        if body:
            assert end.read(b"end") == b"the end"
            end.send(OK)

    request = Request("/", "POST", body=b"the end")
    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.EXPECT_CONTINUE, request))
    assert (trail.status, trail.failure) == (status, None)
    assert (trail.sent_all is not None) == body


@pytest.mark.parametrize("kind", [Kind.STREAMING_CHUNKED, Kind.STREAMING_LENGTH, Kind.EVENTS])
@pytest.mark.parametrize("fits", [False, True])
def test_streaming_needs_its_framing(kind: Kind, *, fits: bool) -> None:
    """It is steady once a byte of the body came in the framing that its kind names."""
    header, body = {
        Kind.STREAMING_CHUNKED: (b"Transfer-Encoding: chunked", (b"1\r\na\r\n", b"0\r\n\r\n")),
        Kind.STREAMING_LENGTH: (b"Content-Length: 2", (b"a", b"b")),
        Kind.EVENTS: (b"Content-Type: text/event-stream; charset=utf-8", (b"data: a\n", b"\n")),
    }[kind]
    if not fits:
        header, body = b"X-None: 1", (b"a", b"b")

    def script(end: Connection) -> None:
        end.read()
        end.send(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n" + body[0])
        if fits:
            end.until_stopped()
        end.send(body[1])

    with scripted(script) as server:
        (trail,) = through(server.place, State(kind), stop=server.stopped.set)
    assert (trail.steady, trail.failure, trail.status) == (fits, None, 200)
    assert bool(trail.note) != fits


@pytest.mark.parametrize("kind", [k for k in Kind if k not in OTHERS])
def test_no_client_ever_raises(kind: Kind) -> None:
    """Against a server that says nonsense every client ends, with a failure and no exception."""
    before = descriptors()

    def script(end: Connection) -> None:
        end.send(bytes(range(256)) * 40)

    if kind is Kind.BACKLOG:
        with pytest.raises(ValueError, match="backlog"):
            through(Place(), State(kind))
        return
    with scripted(script) as server:
        place = Place(port=server.place.port, tls=kind is Kind.TLS_HALF)
        trails = through(place, State(kind, count=2, after_s=0.05), patience_s=3.0)
    assert len(trails) >= 2
    assert all(trail.failure is not None and trail.over for trail in trails)
    assert descriptors() == before


def test_a_cancelled_client_closes_its_connection() -> None:
    """A drill that is broken off leaves no connection behind."""
    closed: list[bytes] = []

    def script(end: Connection) -> None:
        closed.append(end.sock.recv(1))

    async def cancelled(place: Place) -> None:
        gate = Gate(10.0)
        (client,) = make.clients(place, State(Kind.SILENT), gate, count(1))
        running = asyncio.ensure_future(client.run())
        while not client.trails[0].steady:  # noqa: ASYNC110 (a trail is plain data)
            await asyncio.sleep(0.002)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    before = descriptors()
    with scripted(script) as server:
        asyncio.run(cancelled(server.place))
    assert closed == [b""]
    assert descriptors() == before


def test_many_at_once() -> None:
    """Every client of a state has a trail, a key and a connection of its own."""
    with scripted(says(OK)) as server:

        async def drill() -> list[str]:
            gate = Gate(10.0)
            clients = make.clients(server.place, State(Kind.IN_HANDLER, count=50), gate, count(7))
            await led(clients, gate)
            assert all(client.trails[0].failure is None for client in clients)
            return [client.trails[0].key for client in clients]

        keys = asyncio.run(drill())
    assert keys == [f"k{number}-in-handler" for number in range(7, 57)]


def test_a_reset_right_behind_the_connection_is_no_refusal() -> None:
    """Whoever was connected, for however short a time, was not refused: it was reset."""
    with scripted(Connection.reset) as server:
        trails = through(server.place, State(Kind.SILENT, count=100, after_s=5.0))
    assert {(trail.failure, trail.sent) for trail in trails} == {(Failure.RESET, None)}
    assert all(trail.connected and trail.connection for trail in trails)
