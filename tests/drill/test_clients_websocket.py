"""The clients of WebSockets against servers that end them in every way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from wsproto import ConnectionType, WSConnection, events

from drill.client_stage import Connection, scripted, through
from lastcall.drill.history import Failure, Kind
from lastcall.drill.scenario import State

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Peer:
    """The server's end of a WebSocket, with the handshake done."""

    def __init__(self, end: Connection) -> None:
        self.end = end
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._protocol.receive_data(end.read())
        assert isinstance(next(self._protocol.events()), events.Request)
        self.say(events.AcceptConnection())

    def say(self, event: events.Event) -> None:
        """Send one event."""
        self.end.send(self._protocol.send(event))

    def hear(self) -> events.Event:
        """The next event."""
        while True:
            for event in self._protocol.events():
                return event
            self._protocol.receive_data(self.end.sock.recv(65536) or None)


def told(end: Connection) -> None:
    """Close with a close frame, as a restart does."""
    peer = Peer(end)
    end.until_stopped()
    peer.say(events.Ping())
    peer.say(events.TextMessage("see you"))
    peer.say(events.CloseConnection(1012, "restart"))
    while not isinstance(event := peer.hear(), events.CloseConnection):
        assert isinstance(event, events.Pong | events.Message)
    assert event.code == 1012


def cut(end: Connection) -> None:
    """Close without a close frame."""
    peer = Peer(end)
    end.until_stopped()
    end.sock.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        peer.hear()  # an echo's message must not lie unread: closing would reset


def reset(end: Connection) -> None:
    """Reset."""
    Peer(end)
    end.until_stopped()
    end.reset()


def garbage(end: Connection) -> None:
    """Say what is no frame."""
    Peer(end)
    end.until_stopped()
    end.send(b"\xff" * 100)
    end.until_closed()


@pytest.mark.parametrize(
    ("script", "failure", "note"),
    [
        (told, Failure.CLOSED, "1012 restart"),
        (cut, Failure.CUT, ""),
        (reset, Failure.RESET, "ECONNRESET"),
        (garbage, Failure.GARBAGE, ""),
    ],
)
@pytest.mark.parametrize("kind", [Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO])
def test_every_end_of_a_websocket(
    kind: Kind, script: Callable[[Connection], None], failure: Failure, note: str
) -> None:
    """Told, cut and reset are different ends, with an echo in flight or without."""
    with scripted(script) as server:
        (trail,) = through(server.place, State(kind), stop=server.stopped.set)
    assert trail.steady
    assert trail.failure is failure
    assert trail.note.startswith(note)
    assert (trail.sent is not None) == (kind is Kind.WEBSOCKET_ECHO)
    assert trail.complete is None


@pytest.mark.parametrize(
    ("answers", "failure", "note"),
    [
        (True, Failure.CLOSED, "closed by us"),
        (False, Failure.HUNG, "after our own close frame"),
    ],
)
def test_a_client_that_is_told_nothing_leaves(
    answers: bool,  # noqa: FBT001 (a parameter of the test)
    failure: Failure,
    note: str,
) -> None:
    """A server that keeps a WebSocket open is not blamed once it answers our close frame."""

    def script(end: Connection) -> None:
        peer = Peer(end)
        event = peer.hear()
        assert isinstance(event, events.CloseConnection)
        if answers:
            peer.say(event.response())
        end.until_closed()

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.WEBSOCKET_IDLE), patience_s=1.0)
    assert (trail.failure, trail.note, trail.sent) == (failure, note, None)


def test_an_echo() -> None:
    """Only a message that holds ours is the echo, in however many pieces it comes."""
    heard: list[str] = []

    def script(end: Connection) -> None:
        peer = Peer(end)
        message = peer.hear()
        assert isinstance(message, events.TextMessage)
        heard.append(message.data)
        peer.say(events.TextMessage("welcome"))
        peer.say(events.TextMessage(message.data[:5], message_finished=False))
        peer.say(events.TextMessage(message.data[5:]))
        closing = peer.hear()
        assert isinstance(closing, events.CloseConnection)
        peer.say(closing.response())

    with scripted(script) as server:
        state = State(Kind.WEBSOCKET_ECHO, message="for {key}")
        (trail,) = through(server.place, state)
    assert heard == ["for k1-websocket-echo"]
    assert (trail.status, trail.failure) == (101, None)
    assert trail.complete is not None


def test_a_server_without_websockets() -> None:
    """A refused handshake does not bring it to its state."""

    def script(end: Connection) -> None:
        end.read()
        end.send(REFUSED)

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.WEBSOCKET_IDLE))
    assert (trail.steady, trail.failure, trail.status) == (False, Failure.TURNED_AWAY, 404)


def test_messages_without_end() -> None:
    """A server that never stops talking is left."""

    def script(end: Connection) -> None:
        peer = Peer(end)
        try:
            while True:
                peer.say(events.BytesMessage(b"x" * 65536))
        except ConnectionError:
            pass

    with scripted(script) as server:
        (trail,) = through(server.place, State(Kind.WEBSOCKET_ECHO))
    assert trail.failure is Failure.TOO_LONG
