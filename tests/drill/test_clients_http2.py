"""The HTTP/2 client against servers that end streams and connections in every way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded

from drill.client_stage import Connection, scripted, through
from lastcall.drill.clients import http2
from lastcall.drill.history import Failure, Kind
from lastcall.drill.scenario import Request, State

if TYPE_CHECKING:
    from collections.abc import Callable

STATE = State(Kind.HTTP2_STREAM, Request("/{key}"), count=2, after_s=0.05)
PATIENT = replace(STATE, after_s=5.0)


class Peer:
    """The server's end of an HTTP/2 connection."""

    def __init__(self, end: Connection) -> None:
        self.end = end
        self._whole: list[int] = []
        self.protocol = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.protocol.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is due."""
        self.end.send(self.protocol.data_to_send())

    def take(self, count: int) -> list[int]:
        """Read until so many more requests are whole: their streams."""
        while len(self._whole) < count:
            data = self.end.sock.recv(65536)
            assert data, "the client closed"
            for event in self.protocol.receive_data(data):
                if isinstance(event, StreamEnded):
                    self._whole.append(event.stream_id)
                if isinstance(event, DataReceived):
                    size = event.flow_controlled_length
                    self.protocol.acknowledge_received_data(size, event.stream_id)
            self.flush()
        taken, self._whole = self._whole[:count], self._whole[count:]
        return taken

    def answer(self, stream: int, status: str = "200") -> None:
        """A whole answer."""
        self.begin(stream, status)
        self.protocol.send_data(stream, b"ok", end_stream=True)
        self.flush()

    def begin(self, stream: int, status: str = "200") -> None:
        """The head of an answer."""
        self.protocol.send_headers(stream, [(":status", status), ("retry-after", "1")])
        self.flush()

    def goaway(self, last: int) -> None:
        """A GOAWAY frame by hand: h2 takes no answers after its own."""
        body = last.to_bytes(4, "big") + (0).to_bytes(4, "big")
        self.end.send(len(body).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + body)


def test_a_drain_by_goaway() -> None:
    """Streams up to the last one are answered after GOAWAY; those above were turned away."""

    def script(end: Connection) -> None:
        peer = Peer(end)
        first, _ = peer.take(2)
        end.until_stopped()
        peer.goaway(2**31 - 1)  # a notice, as RFC 9113, 6.8 advises
        peer.goaway(first)
        peer.answer(first)
        end.until_closed()

    with scripted(script) as server:
        one, two, late = through(server.place, PATIENT, stop=server.stopped.set)
    assert (one.failure, one.status, one.retry_after) == (None, 200, True)
    assert (two.failure, two.note) == (
        Failure.TURNED_AWAY,
        "GOAWAY (NO_ERROR), last stream 1, this is 3",
    )
    assert (late.failure, late.sent) == (Failure.TURNED_AWAY, None)
    assert one.connection == two.connection == late.connection > 0


def test_a_known_length_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that names its length is followed to its end; one that does not has a limit."""
    monkeypatch.setattr(http2, "ANSWER_BYTES", 4)

    def script(end: Connection) -> None:
        peer = Peer(end)
        one, two = peer.take(2)
        peer.protocol.send_headers(one, [(":status", "200"), ("content-length", "10")])
        peer.protocol.send_headers(two, [(":status", "200")])
        for stream in (one, two):
            peer.protocol.send_data(stream, bytes(10), end_stream=True)
        peer.flush()
        end.until_closed()

    with scripted(script) as server:
        one, two, _ = through(server.place, STATE, patience_s=0.5)
    assert (one.failure, one.status, one.unframed) == (None, 200, False)
    assert two.failure is Failure.TOO_LONG


def test_streams_that_are_reset() -> None:
    """REFUSED_STREAM says that nothing was done; any other reset does not."""

    def script(end: Connection) -> None:
        peer = Peer(end)
        one, two = peer.take(2)
        peer.protocol.reset_stream(one, ErrorCodes.REFUSED_STREAM)
        peer.protocol.reset_stream(two, ErrorCodes.CANCEL)
        peer.flush()
        peer.answer(peer.take(1)[0])
        end.until_closed()

    with scripted(script) as server:
        one, two, late = through(server.place, STATE)
    assert (one.failure, one.note) == (Failure.TURNED_AWAY, "RST_STREAM REFUSED_STREAM")
    assert (two.failure, two.note) == (Failure.RESET, "RST_STREAM CANCEL")
    assert (late.failure, late.status) == (None, 200)


def closes(end: Connection) -> None:
    """End the connection under two open streams, one of them with half an answer."""
    peer = Peer(end)
    peer.begin(peer.take(2)[0])
    end.until_stopped()


def resets(end: Connection) -> None:
    """Do the same with a reset."""
    closes(end)
    end.sock.settimeout(0.05)
    end.reset()


@pytest.mark.parametrize(("script", "failure"), [(closes, "CLOSED"), (resets, "RESET")])
def test_a_connection_that_ends_under_open_streams(
    script: Callable[[Connection], None], failure: str
) -> None:
    """Each stream knows whether an answer had begun, and the late one that it was never sent."""
    with scripted(script) as server:
        one, two, late = through(server.place, PATIENT, stop=server.stopped.set)
    assert (one.failure, one.status) == (Failure.TRUNCATED, 200)
    assert two.failure is Failure[failure]
    assert two.sent is not None
    assert (late.failure, late.sent) == (Failure[failure], None)


def test_a_body_larger_than_the_windows() -> None:
    """An upload is sent as the server's windows open."""
    size = 300_000

    def script(end: Connection) -> None:
        peer = Peer(end)
        for stream in peer.take(1) + peer.take(1):
            peer.answer(stream)
        end.until_closed()

    request = Request("/", "POST", body=b"x" * size)
    with scripted(script) as server:
        trails = through(server.place, State(Kind.HTTP2_STREAM, request, after_s=0.05))
    assert [(trail.status, trail.failure) for trail in trails] == [(200, None)] * 2
    assert all(trail.sent_all is not None for trail in trails)


def test_a_server_that_speaks_http1() -> None:
    """It does not come to its state, and does not hang."""
    with scripted(lambda end: end.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        trails = through(server.place, STATE)
    assert {trail.failure for trail in trails} == {Failure.GARBAGE}
    assert not any(trail.steady for trail in trails)
